"""MNIST and SVHN: written digits and house numbers, two data sets with nothing but classes alike.

python -m experiments train mnist_svhn --method pcgrad --sampler proportional

TFDS downloads 12 MB of MNIST and 1.6 GB of SVHN once, of which 1.3 GB are more digits that nothing
here reads but TFDS wants; without a network the error says which files to put where. The last tenth
of each training split in TFDS's order, which is random and fixed, validates.

The two are the usual pair of papers on domains that differ. MNIST's digits are put on the black
canvas and into the three colours that make them as large as SVHN's, so that one convolutional
network reads both, as there; each data set has its own order and share of a batch, and its own
running statistics in batch norm. It was not trained here, for lack of the data.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, UInt8

from experiments.problem import Problem, Recipe
from jmtl.tasks import Batch, batch, classification

DATA = {"mnist": "mnist", "svhn": "svhn_cropped"}

SIDE = 32


def to_batch(raw: Mapping[str, Any]) -> Batch:
    """Images `[B, 32, 32, 3]` in [-1, 1] and digits, by data set."""
    return batch(
        {
            name: _canvas(part["image"]).astype(jnp.float32) / 127.5 - 1
            for name, part in raw.items()
        },
        {name: part["label"] for name, part in raw.items()},
    )


def _canvas(image: UInt8[Array, "B h w c"]) -> UInt8[Array, "B 32 32 3"]:
    """The image in the middle of a black canvas, in three colours."""
    rows, columns = ((SIDE - n) // 2 for n in image.shape[1:3])
    wide = jnp.pad(image, ((0, 0), (rows, rows), (columns, columns), (0, 0)))
    return jnp.broadcast_to(wide, (*wide.shape[:3], 3))


PROBLEM = Problem(
    name="mnist_svhn",
    summary="two data sets of digits: 54,000 written ones, 65,931 on houses",
    tasks=tuple(classification(name, 10)._replace(source=name) for name in DATA),
    data=DATA,
    to_batch=to_batch,
    recipe=Recipe(
        encoder="resnet",
        encoder_options={"widths": (32, 64, 128)},
        steps=10_000,
        batch_size=256,
        checkpoint_every=1_000,
    ),
    offline=False,
    splits={name: {"train": "train[:90%]", "validation": "train[90%:]"} for name in DATA},
    stem_width=None,
    source="TFDS's mnist, 12 MB, and svhn_cropped, 1.6 GB",
)
