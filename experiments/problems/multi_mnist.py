"""MultiMNIST: two overlapping MNIST digits, read left and right, by the published protocol.

    python -m experiments train multi_mnist --method pcgrad

MNIST is downloaded once by TFDS; without a network the error says which files to put where.
The network is the papers' LeNet with a hidden layer of 50 in each head.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from experiments.problem import Problem, Recipe
from jmtl.data.multi_mnist import MEAN, STD
from jmtl.tasks import Batch, batch, classification


def to_batch(raw: Mapping[str, Any]) -> Batch:
    """Normalised images `[B, 28, 28]` and the classes of both digits."""
    images = (raw["image"].astype(jnp.float32) / 255 - MEAN) / STD
    return batch(images, {"left": raw["left"], "right": raw["right"]})


PROBLEM = Problem(
    name="multi_mnist",
    summary="two overlapping MNIST digits on a 28×28 canvas, 50,000 training pairs",
    tasks=(classification("left", 10), classification("right", 10)),
    data="multi_mnist",
    to_batch=to_batch,
    recipe=Recipe(
        encoder="lenet",
        head_options={"hidden": (50,)},
        steps=20_000,
        batch_size=256,
        checkpoint_every=1_000,
    ),
    offline=False,
    source="TFDS's mnist, 12 MB",
)
