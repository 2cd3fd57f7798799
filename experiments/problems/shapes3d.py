"""3D Shapes: the six numbers from which a picture of one solid in a room was rendered.

python -m experiments train shapes3d --method pcgrad

TFDS downloads 268 MB from storage.googleapis.com once, and reads them with h5py (the extra `hdf5`)
by way of 5.9 GB of memory; without a network the error says which file to put where. The data set
is every combination of the factors once: 480,000 pictures, of which TFDS has one split. In its
order, which is random and fixed, the first 80 % train, the next 10 % validate, the last 10 % test.

It was made for disentangled representations (Kim & Mnih, *Disentangling by Factorising*, 2018):
no factor tells of another, so tasks have nothing but the picture in common. Training pictures take
4.7 GB of a device's memory, and are streamed unless `--input resident` says otherwise. It was not
trained here, for lack of the data.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from experiments.problem import Problem, Recipe
from jmtl.tasks import Batch, batch, classification

FACTORS = {
    "floor_hue": 10,
    "wall_hue": 10,
    "object_hue": 10,
    "scale": 8,
    "shape": 4,
    "orientation": 15,
}
"""And the values of each."""


def to_batch(raw: Mapping[str, Any]) -> Batch:
    """Images `[B, 64, 64, 3]` in [-1, 1] and the class of each factor, in the order of values."""
    images = raw["image"].astype(jnp.float32) / 127.5 - 1
    return batch(images, {name: raw[f"label_{name}"] for name in FACTORS})


PROBLEM = Problem(
    name="shapes3d",
    summary="a rendered solid in a room on 64×64 pixels, 384,000 training images",
    tasks=tuple(classification(name, classes) for name, classes in FACTORS.items()),
    data="shapes3d",
    to_batch=to_batch,
    recipe=Recipe(
        encoder="resnet",
        encoder_options={"widths": (32, 64, 128, 256), "blocks": (1, 1, 1, 1)},
        steps=20_000,
        checkpoint_every=1_000,
    ),
    offline=False,
    splits={
        "train": "train[:80%]",
        "validation": "train[80%:90%]",
        "test": "train[90%:]",
    },
    source="TFDS's shapes3d, 268 MB, read with h5py",
)
