"""Cityscapes for dense multi-task learning: 2,975 and 500 streets with 7 classes and disparity."""

from typing import ClassVar

import numpy as np

from jmtl.data.npy_folders import NpyFolders, Part

CLASSES = 7
"""Of segmentation; -1 marks pixels without a class."""


class Cityscapes(NpyFolders, skip_registration=True):  # type: ignore[call-arg]
    """Streets: `image` in [0, 1], `label` -1 .. 6, `depth` the inverse depth, 0 unknown."""

    SIZE = (128, 256)
    PARTS: ClassVar = {
        "image": Part(3, np.float32),
        "label": Part(None, np.int8, also="label_7"),
        "depth": Part(1, np.float32),
    }
    SOURCE = "the 128x256 version of CityScapes linked from github.com/lorenmt/mtan"
