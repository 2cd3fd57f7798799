"""smallNORB: what a toy is, and from where and in which light it was photographed.

python -m experiments train smallnorb --method pcgrad

TFDS downloads 263 MB from cs.nyu.edu once, and `jmtl.data.norb` writes 225 MB of pictures beside
what TFDS writes; without a network the error says which files to put where. Both views are the two
channels of one picture, at 48×48 pixels as Hinton et al. have them. The category must not depend on
the pose, and the pose not on the category: LeCun et al., *Learning Methods for Generic Object
Recognition with Invariance to Pose and Lighting*, CVPR 2004; Hinton, Sabour & Frosst, *Matrix
Capsules with EM Routing*, ICLR 2018. Toys that validate and test are not those that train. It was
not trained here, for lack of the data.
"""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from experiments.problem import Problem, Recipe
from jmtl.data.norb import LABELS
from jmtl.tasks import Batch, batch, classification


def to_batch(raw: Mapping[str, Any]) -> Batch:
    """Stereo pairs `[B, 48, 48, 2]` in [-1, 1] and the classes of all tasks."""
    images = raw["image"].astype(jnp.float32) / 127.5 - 1
    return batch(images, {name: raw[name] for name in LABELS})


PROBLEM = Problem(
    name="smallnorb",
    summary="two views of a toy on 48×48 pixels, 19,440 training pairs",
    tasks=tuple(classification(name, classes) for name, classes in LABELS.items()),
    data="norb",
    to_batch=to_batch,
    recipe=Recipe(
        encoder="resnet",
        encoder_options={"widths": (32, 64, 128)},
        steps=10_000,
        checkpoint_every=1_000,
    ),
    offline=False,
    source="TFDS's smallnorb, 263 MB",
)
