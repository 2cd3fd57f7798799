"""CIFAR-100: which of 100 things a picture shows, and of which of 20 kinds.

python -m experiments train cifar100 --method pcgrad

TFDS downloads 169 MB from cs.toronto.edu once; without a network the error says which file to put
where. The last tenth of the training pictures in TFDS's order, which is random and fixed, is the
validation split. Routing networks (Rosenbaum et al., 2018) and PCGrad (Yu et al., 2020) make a task
of each of the 20 kinds instead, and tell its five classes apart; here every picture carries both
labels, and the fine one says the coarse one. The network is the ResNet-18 that is usual for CIFAR,
its pictures shifted by up to 4 pixels and mirrored. It was not trained here, for lack of the data.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax.numpy as jnp

from experiments.problem import Problem, Recipe
from jmtl.data.augment import augmentation, crop, flip
from jmtl.tasks import Batch, batch, classification


def to_batch(raw: Mapping[str, Any]) -> Batch:
    """Images `[B, 32, 32, 3]` in [-1, 1] and both classes."""
    images = raw["image"].astype(jnp.float32) / 127.5 - 1
    return batch(images, {"fine": raw["label"], "coarse": raw["coarse_label"]})


PROBLEM = Problem(
    name="cifar100",
    summary="a photograph on 32×32 pixels, 45,000 training images",
    tasks=(classification("fine", 100), classification("coarse", 20)),
    data="cifar100",
    to_batch=to_batch,
    recipe=Recipe(
        encoder="resnet",
        encoder_options={"widths": (64, 128, 256, 512), "blocks": (2, 2, 2, 2)},
        steps=35_000,
        optimizer="adam_l2",
        weight_decay=5e-4,
        schedule=((20_000, 0.1), (30_000, 0.1)),
        checkpoint_every=1_000,
        augment="standard",
    ),
    offline=False,
    augmentations={"standard": augmentation({}, moves=(flip, partial(crop, pad=4)))},
    splits={"train": "train[:90%]", "validation": "train[90%:]"},
    source="TFDS's cifar100, 169 MB",
)
