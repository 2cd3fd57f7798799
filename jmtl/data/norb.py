"""smallNORB's stereo pairs at 48×48 pixels: 48,600 photographs of 50 toys."""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from jmtl.data.derived import Derived

SIZE = 48

LABELS = {"category": 5, "elevation": 9, "azimuth": 18, "lighting": 6}
"""What a photograph is labelled with, and the classes of each."""

KEPT = 9
"""The toy of each category that validates."""


class Norb(Derived, skip_registration=True):  # type: ignore[call-arg]
    """Toys: `image` `[48, 48, 2]` uint8, the left and the right view, `instance`, and `LABELS`.

    Views are reduced to a half, by the mean of 2×2 pixels. Of the five training toys of a category,
    4, 6, 7, 8 and 9, the last makes the validation split: 19,440, 4,860 and 24,300 pairs. No toy is
    in two splits, as those that test are not those that train.
    """

    SOURCE = "smallnorb"
    SPLITS: ClassVar = {"train": "train", "validation": "train", "test": "test"}
    FEATURES: ClassVar = {
        "image": ((SIZE, SIZE, 2), np.uint8),
        "instance": ((), np.int64),
        **dict.fromkeys(LABELS, ((), np.int64)),
    }

    def belongs(self, split: str, example: Mapping[str, Any]) -> bool:
        """Toys of one number validate."""
        return split == "test" or (example["instance"] == KEPT) == (split == "validation")

    def convert(self, example: Mapping[str, Any]) -> dict[str, Any]:
        """A stereo pair of TFDS's smallnorb."""
        views = np.concatenate([example["image"], example["image2"]], axis=-1)
        blocks = views.reshape(SIZE, 2, SIZE, 2, 2)
        return {
            "image": np.rint(blocks.mean(axis=(1, 3))).astype(np.uint8),
            "instance": example["instance"],
            **{name: example[f"label_{name}"] for name in LABELS},
        }
