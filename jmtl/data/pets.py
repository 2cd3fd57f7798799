"""Oxford-IIIT Pet at 128×128 pixels: 7,349 cats and dogs, their breeds and where they are.

Splits are nine tenths and a tenth of the authors' `trainval`, and their `test`.

References:
    Parkhi, Vedaldi, Zisserman, Jawahar, *Cats and Dogs*, CVPR 2012.
"""

import io
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from jmtl.data import source
from jmtl.data.derived import Derived

SIZE = 128

BREEDS, SPECIES = 37, 2

REGIONS = ("pet", "background", "border")
"""Of the masks; the border is a strip that the annotators left open."""


class Pets(Derived, skip_registration=True):  # type: ignore[call-arg]
    """Pets: `image` `[128, 128, 3]` uint8, `mask` `[128, 128]` 0, 1, 2, `breed` and `species`.

    Pictures of any shape are made square, by a triangle filter; masks by the nearest pixel. Species
    are cat (0) and dog (1). Some files are PNG, GIF or BMP by content, in palettes, grey, with an
    alpha channel or in CMYK: all are read as RGB, of several frames the first.
    """

    SOURCE = "oxford_iiit_pet"
    SPLITS: ClassVar = {"train": "train[:90%]", "validation": "train[90%:]", "test": "test"}
    FEATURES: ClassVar = {
        "image": ((SIZE, SIZE, 3), np.uint8),
        "mask": ((SIZE, SIZE), np.uint8),
        "breed": ((), np.int64),
        "species": ((), np.int64),
    }

    def convert(self, example: Mapping[str, Any]) -> dict[str, Any]:
        """A pet of TFDS's oxford_iiit_pet, whose picture is still in its file's bytes."""
        with Image.open(io.BytesIO(example["image"])) as file:
            picture = file.convert("RGB").resize((SIZE, SIZE), Image.Resampling.BILINEAR)
        mask = Image.fromarray(example["segmentation_mask"][..., 0])
        return {
            "image": np.asarray(picture),
            "mask": np.asarray(mask.resize((SIZE, SIZE), Image.Resampling.NEAREST)) - 1,
            "breed": example["label"],
            "species": example["species"],
        }

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        original = source.prepare(self.SOURCE, self.data_dir_root)
        # TFDS would give a palette's indices for its colours, and four channels where there are.
        as_they_are = {"image": tfds.decode.SkipDecoding()}
        return {
            split: self._generate_examples(
                split, original.as_data_source(part, decoders=as_they_are)
            )
            for split, part in self.SPLITS.items()
        }
