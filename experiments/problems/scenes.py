"""Scenes: six tasks from one picture of solids and the next: dense maps, boxes, motion, kinds.

python -m experiments train scenes --method pcgrad

6 minutes 41 s on 2 CPU cores, compiling and test included, rendering not. Of the test split:
mIoU 0.54, depth to 0.31 (of 4 to 11), normals to 12.4°, mAP@.5 0.70, displacements to 3.5 % of the
picture's side, 0.82 of the kinds right. Constant answers reach 0.10, 1.05, 18.3°, 0.00, 8.4 % and
0.60: `experiments/results/scenes`.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from experiments.problem import Problem, Recipe
from jmtl.data.scenes import SURFACES
from jmtl.data.solids import KINDS
from jmtl.tasks import (
    Batch,
    Head,
    batch,
    depth,
    detection,
    multi_label,
    normals,
    segmentation,
    tracking,
)

CELL = 4
"""Pixels along a cell of the maps of objects."""


def to_batch(size: int, raw: Mapping[str, Any]) -> Batch:
    """Both pictures and each pixel's place, `[B, S, S, 8]` in [0, 1], and the labels of all tasks.

    The place, y and x of the pixel's middle, is what a floor's depth depends on, and no convolution
    sees it.

    Args:
        size: S.
        raw: as `jmtl.data.scenes.Scenes` has them.
    """
    pictures = jnp.concatenate([raw["image"], raw["next_image"]], axis=-1)
    along = (jnp.arange(size, dtype=jnp.float32) + 0.5) / size
    places = jnp.stack(jnp.meshgrid(along, along, indexing="ij"), axis=-1)
    places = jnp.broadcast_to(places, (*pictures.shape[:3], 2))
    kinds, tracked = raw["kinds"], raw["tracked"]
    corners = raw["boxes"].astype(jnp.float32) / size
    seen = jax.nn.one_hot(kinds, len(KINDS)).max(axis=1)  # padding, -1, is no kind
    labels = {
        "segmentation": raw["segmentation"].astype(jnp.int32),
        "depth": raw["depth"],
        "normals": raw["normals"],
        "objects": jnp.concatenate([corners, kinds[..., None].astype(jnp.float32)], axis=-1),
        "motion": jnp.concatenate(
            [raw["centres"], raw["moves"], tracked[..., None].astype(jnp.float32)], axis=-1
        ),
        "kinds": seen.astype(jnp.int32),
    }
    inputs = jnp.concatenate([pictures.astype(jnp.float32) / 255, places], axis=-1)
    return batch(inputs, labels)


def at(size: int) -> Problem:
    """The problem at a resolution of `size` × `size` pixels, a multiple of 16."""
    pixels, cells = (size, size), (size // CELL, size // CELL)
    return Problem(
        name="scenes",
        summary=f"two {size}×{size} pictures of solids that move, 4,000 training scenes",
        tasks=(
            segmentation("segmentation", len(SURFACES), pixels),
            depth("depth", pixels),
            normals("normals", pixels),
            detection("objects", len(KINDS), cells),
            tracking("motion", cells),
            # A solid covers a part of the picture, of which a mean of features has little.
            multi_label("kinds", len(KINDS))._replace(head=Head("presence", len(KINDS))),
        ),
        data=f"scenes/{size}",
        to_batch=partial(to_batch, size),
        recipe=Recipe(
            encoder="segnet",
            encoder_options={"widths": (16, 32, 64, 64), "convolutions": (1, 1, 1, 1)},
            steps=3_000,
            batch_size=8,
            learning_rate=4e-3,
            steps_per_dispatch=50,
            measure_every=50,
        ),
        offline=True,
        source="pictures rendered here",
    )


PROBLEM = at(64)
