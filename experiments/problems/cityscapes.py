"""Cityscapes: classes and inverse depth of every pixel of streets, with a validation split.

    python -m experiments train cityscapes --method pcgrad
    python -m experiments train cityscapes_published --method pcgrad
    python -m experiments train cityscapes_published --recipe deeplab --encoder-weights FILE

The files are put by hand into DATA_DIR/downloads/manual/cityscapes (`jmtl.data.npy_folders` has the
layout): the authors of MTAN link them, 2,975 streets to train and 500 to test, 128×256 pixels, with
7 classes. Once prepared they are 1.9 GB of arrays, 17 bytes a pixel. `cityscapes` trains on 2,380
streets and keeps 595 for validation; `cityscapes_published` trains on all, as papers do, and takes
the mean of the test scores over the last 10 epochs (`experiments.last_epochs`).

Papers report mIoU, pixel accuracy, and absolute and relative error of the inverse depth: a network
a task reaches 0.7401, 0.9316, 0.0125 and 27.77 (`BASE`; a share, no percentage: some depths are
near 0). Not trained here: there was no data.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from experiments.dense import Protocol, deeplab, problem, segnet_mtan, training_rows
from experiments.problem import Base, Problem
from jmtl.data.cityscapes import CLASSES, Cityscapes
from jmtl.tasks import Batch, batch, depth, segmentation

FILES = 2_975
"""In train/."""

BASE = Base(
    {
        "segmentation": {"miou": 0.7401, "pixel_accuracy": 0.9316},
        "depth": {"abs_error": 0.0125, "rel_error": 27.77},
    },
    "SegNet, one network a task, of CAGrad, as in github.com/Cranial-XIX/FAMO, "
    "experiments/cityscapes/utils.py",
)


def to_batch(raw: Mapping[str, Any]) -> Batch:
    """Pictures `[B, H, W, 3]` in [0, 1] as they are, and the labels of both tasks."""
    labels = {"segmentation": raw["label"].astype(jnp.int32), "depth": raw["depth"]}
    return batch(raw["image"], labels)


def at(protocol: Protocol, size: tuple[int, int] = Cityscapes.SIZE) -> Problem:
    """The problem under a protocol, of pictures of a size."""
    rows = training_rows(FILES, protocol)
    return problem(
        "cityscapes",
        "streets",
        size,
        FILES,
        protocol,
        # Of an inverse depth geometry has the product with the scale; papers have divided.
        kinds={"segmentation": "classes", "depth": "depth"},
        recipes={
            "segnet_mtan": segnet_mtan(rows, batch_size=8, steps_per_dispatch=20),
            "deeplab": deeplab(rows, batch_size=64, steps_per_dispatch=5),
        },
        base=BASE,
        tasks=(segmentation("segmentation", CLASSES, size), depth("depth", size)),
        to_batch=to_batch,
        evaluation_rows=32,
    )


PROBLEM = at("own")
