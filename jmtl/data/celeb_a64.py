"""CelebA at 64×64 pixels with its 40 attributes in one array: 202,599 faces."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
from PIL import Image
from tensorflow_datasets.datasets.celeb_a.celeb_a_dataset_builder import ATTR_HEADINGS

from jmtl.data.derived import Derived

ATTRIBUTES = tuple(ATTR_HEADINGS)
"""Names of the 40, in their order."""

SIZE = 64


class CelebA64(Derived, skip_registration=True):  # type: ignore[call-arg]
    """Faces: `image` `[64, 64, 3]` uint8, `attributes` `[40]` 0 and 1, `identity` a number.

    The whole aligned picture of 218×178 pixels, reduced to 64×64 by a triangle filter, as the
    multi-task papers do after Sener & Koltun, NeurIPS 2018: a necktie is at the lower edge. The
    splits are CelebA's own: 162,770, 19,867 and 19,962 faces.
    """

    SOURCE = "celeb_a"
    SPLITS: ClassVar = {"train": "train", "validation": "validation", "test": "test"}
    FEATURES: ClassVar = {
        "image": ((SIZE, SIZE, 3), np.uint8),
        "attributes": ((len(ATTRIBUTES),), np.uint8),
        "identity": ((), np.int64),
    }

    def convert(self, example: Mapping[str, Any]) -> dict[str, Any]:
        """A face of TFDS's celeb_a."""
        picture = Image.fromarray(example["image"])
        return {
            "image": np.asarray(picture.resize((SIZE, SIZE), Image.Resampling.BILINEAR)),
            "attributes": np.array([example["attributes"][a] for a in ATTRIBUTES], np.uint8),
            "identity": example["identity"]["Identity_No"],
        }
