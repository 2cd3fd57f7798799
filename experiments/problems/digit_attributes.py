"""DigitAttributes: class, parity, ink and its centre, from one handwritten digit. No download.

python -m experiments train digit_attributes --method pcgrad

On 2 CPU cores 6 s, compiling included. Of the test split, seed 0: 0.969 of the classes and 0.967 of
the parities right; ink to 0.16 and the centre to 0.09 standard deviations, in the mean of absolute
errors.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from experiments.problem import Problem, Recipe
from jmtl.data.multi_digits import MAX_PIXEL
from jmtl.tasks import Batch, batch, classification, regression

LABELS = ("digit", "parity", "mass", "centroid")


def to_batch(raw: Mapping[str, Any]) -> Batch:
    """Images `[B, 8, 8]` in [0, 1] and the labels of all tasks."""
    images = raw["image"].astype(jnp.float32) / MAX_PIXEL
    return batch(images, {name: raw[name] for name in LABELS})


PROBLEM = Problem(
    name="digit_attributes",
    summary="one UCI digit on 8×8 pixels, 1,078 training images",
    tasks=(
        classification("digit", 10),
        classification("parity", 2),
        regression("mass"),
        regression("centroid", 2),
    ),
    data="digit_attributes",
    to_batch=to_batch,
    recipe=Recipe(
        encoder="mlp",
        encoder_options={"hidden": (128, 64)},
        steps=2_000,
        batch_size=64,
    ),
    offline=True,
)
