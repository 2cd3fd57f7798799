"""CelebA: 40 attributes of a face, each its own yes-or-no task.

python -m experiments train celeb_a --method pcgrad

The data set lies on Google Drive, 1.5 GB, which asks programs whether they are sure: the error says
which five files to put where. (TFDS answers where beautifulsoup4 is installed, until Drive's quota
is used up.) `jmtl.data.celeb_a64` writes 2.5 GB of pictures at 64×64 pixels beside the JPEG files
that TFDS keeps. Splits are CelebA's own.

Sener & Koltun, *Multi-Task Learning as Multi-Objective Optimization*, NeurIPS 2018, made a problem
of 40 tasks of it, and many papers since report the mean error of the 40. Size of the pictures,
batch, rate and network are those of their code, a ResNet-18 whose stem keeps the resolution, but
for its last pooling, to one place here and to 2×2 there. Many attributes are rare (a constant
answer is mostly right), so `f1` and `average_precision` say more than `accuracy`. It was not
trained here, for lack of the data.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from experiments.problem import Problem, Recipe
from jmtl.data.celeb_a64 import ATTRIBUTES
from jmtl.tasks import Batch, batch, binary


def to_batch(raw: Mapping[str, Any]) -> Batch:
    """Images `[B, 64, 64, 3]` in [-1, 1] and the 40 answers, 0 or 1."""
    images = raw["image"].astype(jnp.float32) / 127.5 - 1
    answers = raw["attributes"].astype(jnp.int32)
    return batch(images, {name: answers[:, i] for i, name in enumerate(ATTRIBUTES)})


PROBLEM = Problem(
    name="celeb_a",
    summary="attributes of a face on 64×64 pixels, 162,770 training images",
    tasks=tuple(binary(name) for name in ATTRIBUTES),
    data="celeb_a64",
    to_batch=to_batch,
    recipe=Recipe(
        encoder="resnet",
        encoder_options={"widths": (64, 128, 256, 512), "blocks": (2, 2, 2, 2)},
        steps=10_000,
        batch_size=256,
        learning_rate=5e-4,
        checkpoint_every=1_000,
    ),
    offline=False,
    by_hand=True,
    source="TFDS's celeb_a from Google Drive, 1.5 GB",
)
