"""Oxford-IIIT Pet: a pet's breed, its species, and which pixels are the pet.

python -m experiments train oxford_iiit_pet --method pcgrad

TFDS downloads 811 MB from robots.ox.ac.uk once; without a network the error says which files to put
where. `jmtl.data.pets` writes 0.5 GB of pictures at 128×128 pixels beside them. A tenth of the
authors' trainval is the validation split.

Parkhi et al., *Cats and Dogs*, CVPR 2012, made the data set for breeds, species and segmentation by
hand-made features. A breed says its species. With 3,312 training pictures an encoder that begins at
random knows few breeds; `--encoder-weights FILE` begins at torchvision's ImageNet weights of
ResNet-18, and `to_batch` normalises as these expect. The encoder keeps an eighth of the resolution,
as DeepLabv3's. It was not trained here, for lack of the data.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np

from experiments.problem import Problem, Recipe
from jmtl.data.augment import augmentation, colour, crop, flip, zoom
from jmtl.data.pets import BREEDS, REGIONS, SIZE, SPECIES
from jmtl.tasks import Batch, batch, classification, segmentation

MEAN = np.array([0.485, 0.456, 0.406], np.float32)
STD = np.array([0.229, 0.224, 0.225], np.float32)
"""Of ImageNet's red, green and blue in [0, 1], as torchvision's weights expect."""


def to_batch(raw: Mapping[str, Any]) -> Batch:
    """Normalised images `[B, 128, 128, 3]`, classes, and masks `[B, 128, 128]`."""
    scale, shift = 1 / (255 * STD), -MEAN / STD
    images = raw["image"].astype(jnp.float32) * scale[None, None, None] + shift[None, None, None]
    labels = {
        "breed": raw["breed"],
        "species": raw["species"],
        "segmentation": raw["mask"].astype(jnp.int32),
    }
    return batch(images, labels)


PROBLEM = Problem(
    name="oxford_iiit_pet",
    summary=f"a cat or a dog on {SIZE}×{SIZE} pixels, 3,312 training images",
    tasks=(
        classification("breed", BREEDS),
        classification("species", SPECIES),
        segmentation("segmentation", len(REGIONS), (SIZE, SIZE)),
    ),
    data="pets",
    to_batch=to_batch,
    recipe=Recipe(
        encoder="resnet18",
        encoder_options={"dense": True, "output_stride": 8},
        steps=10_000,
        batch_size=64,
        schedule=((7_000, 0.1),),
        checkpoint_every=1_000,
        augment="standard",
    ),
    offline=False,
    augmentations={
        "standard": augmentation(
            {"segmentation": "classes"},
            moves=(flip, partial(zoom, low=1.0, high=1.5), partial(crop, pad=8)),
            changes=(partial(colour, brightness=0.0),),
        )
    },
    source="TFDS's oxford_iiit_pet, 811 MB",
)
