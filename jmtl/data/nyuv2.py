"""NYUv2 for dense multi-task learning: 795 and 654 rooms with 13 classes, depth and normals."""

from typing import ClassVar

import numpy as np

from jmtl.data.npy_folders import NpyFolders, Part

CLASSES = 13
"""Of segmentation; -1 marks pixels without a class."""


class Nyuv2(NpyFolders, skip_registration=True):  # type: ignore[call-arg]
    """Rooms: `image` in [0, 1], `label` -1 .. 12, `depth` in metres, 0 unknown, unit `normal`."""

    SIZE = (288, 384)
    PARTS: ClassVar = {
        "image": Part(3, np.float32),
        "label": Part(None, np.int8),
        "depth": Part(1, np.float32),
        "normal": Part(3, np.float32),
    }
    SOURCE = "the pre-processed NYUv2 linked from github.com/lorenmt/mtan"
