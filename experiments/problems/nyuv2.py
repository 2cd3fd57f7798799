"""NYUv2: classes, depth and normals of every pixel of rooms, with a validation split of our own.

    python -m experiments train nyuv2 --method pcgrad
    python -m experiments train nyuv2_published --method pcgrad
    python -m experiments train nyuv2_published --recipe deeplab --encoder-weights FILE

The files are put by hand into DATA_DIR/downloads/manual/nyuv2 (`jmtl.data.npy_folders` has the
layout): the authors of MTAN link them, 795 rooms to train and 654 to test, 288×384 pixels. Once
prepared they are 4.6 GB of arrays, 29 bytes a pixel. `nyuv2` trains on 636 rooms and keeps 159 for
validation; `nyuv2_published` trains on all, as papers do, has no validation split, and takes the
mean of the test scores over the last 10 epochs (`experiments.last_epochs`).

Papers report mIoU, pixel accuracy, absolute and relative depth error, mean and median angle, and
the shares of angles within 11.25°, 22.5° and 30°. Equal weights with SegNet and task attention
reach 0.3929, 0.6533, 0.5493, 0.2263, 28.15°, 23.96°, 0.2209, 0.4750 and 0.6108 in Nash-MTL's table:
Δm −5.59 % against `BASE`. Not trained here: there was no data.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from experiments.dense import Protocol, deeplab, problem, segnet_mtan, training_rows
from experiments.problem import Base, Problem
from jmtl.data.nyuv2 import CLASSES, Nyuv2
from jmtl.tasks import Batch, batch, depth, normals, segmentation

FILES = 795
"""In train/."""

BASE = Base(
    {
        "segmentation": {"miou": 0.3830, "pixel_accuracy": 0.6376},
        "depth": {"abs_error": 0.6754, "rel_error": 0.2780},
        "normals": {
            "mean_angle": 25.01,
            "median_angle": 19.21,
            "within_11.25": 0.3014,
            "within_22.5": 0.5720,
            "within_30": 0.6915,
        },
    },
    "SegNet, one network a task, of CAGrad, as in github.com/AvivNavon/nash-mtl, "
    "experiments/nyuv2/utils.py",
)


def to_batch(raw: Mapping[str, Any]) -> Batch:
    """Pictures `[B, H, W, 3]` in [0, 1] as they are, and the labels of all tasks."""
    labels = {
        "segmentation": raw["label"].astype(jnp.int32),
        "depth": raw["depth"],
        "normals": raw["normal"],
    }
    return batch(raw["image"], labels)


def at(protocol: Protocol, size: tuple[int, int] = Nyuv2.SIZE) -> Problem:
    """The problem under a protocol, of pictures of a size."""
    rows = training_rows(FILES, protocol)
    return problem(
        "nyuv2",
        "rooms",
        size,
        FILES,
        protocol,
        kinds={"segmentation": "classes", "depth": "depth", "normals": "normals"},
        recipes={
            "segnet_mtan": segnet_mtan(rows, batch_size=2, steps_per_dispatch=20),
            "deeplab": deeplab(rows, batch_size=8, steps_per_dispatch=10),
        },
        base=BASE,
        tasks=(
            segmentation("segmentation", CLASSES, size),
            depth("depth", size),
            normals("normals", size),
        ),
        to_batch=to_batch,
        evaluation_rows=8,
    )


PROBLEM = at("own")
