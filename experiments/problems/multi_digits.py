"""MultiDigits: two overlapping handwritten digits, read left and right. Real data, no download.

python -m experiments train multi_digits --method pcgrad
python -m experiments train multi_digits --method pcgrad --augment shift
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax.numpy as jnp

from experiments.problem import Problem, Recipe
from jmtl.data.augment import augmentation, crop
from jmtl.data.multi_digits import MAX_PIXEL
from jmtl.tasks import Batch, batch, classification


def to_batch(raw: Mapping[str, Any]) -> Batch:
    """Images `[B, 10, 10]` in [0, 1] and the classes of both digits."""
    images = raw["image"].astype(jnp.float32) / MAX_PIXEL
    return batch(images, {"left": raw["left"], "right": raw["right"]})


PROBLEM = Problem(
    name="multi_digits",
    summary="two overlapping UCI digits on a 10×10 canvas, 20,000 training pairs",
    tasks=(classification("left", 10), classification("right", 10)),
    data="multi_digits",
    to_batch=to_batch,
    recipe=Recipe(
        encoder="mlp", encoder_options={"hidden": (256, 128), "dropout": 0.3}, steps=3_000
    ),
    offline=True,
    source="scikit-learn's digits",
    # By a pixel at most, along each axis; flips and zooms would make other digits.
    augmentations={"shift": augmentation({}, moves=(partial(crop, pad=1),))},
)
