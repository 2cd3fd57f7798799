"""What the problems of dense tasks share: protocols, published recipes and augmentation."""

import math
from functools import partial
from typing import Literal

from experiments.problem import Recipe
from jmtl.data.affine import Kind
from jmtl.data.augment import Augment, augmentation, flip, scale_crop

Protocol = Literal["own", "published"]
"""Which of the configurations of `jmtl.data.npy_folders` is trained on."""

EPOCHS = 200
"""Of the published recipes, whose learning rate is halved after half of them."""

AUGMENTATION = "scale_crop"
"""The name of `published_augmentation`."""


def training_rows(files: int, protocol: Protocol) -> int:
    """The rows that a protocol trains on, of the files in train/."""
    return files if protocol == "published" else files - files // 5


def steps_of(epochs: float, rows: int, batch_size: int) -> int:
    """The updates after which as many rows have been read as epochs have; batches straddle them."""
    return math.ceil(epochs * rows / batch_size)


def segnet_mtan(rows: int, batch_size: int, steps_per_dispatch: int) -> Recipe:
    """SegNet with task attention, as CAGrad, Nash-MTL and FAMO train it.

    Adam with a rate of 1e-4, halved after 100 of 200 epochs, and augmentation. The network is not
    theirs in all: the 3×3 convolution of a head is followed by a ReLU here, and the convolutions
    between masks are those of `jmtl.nn.sharing.mtan`. For NYUv2 it has 43.7 million parameters,
    and theirs 44.2.

    Args:
        rows: of the training split.
        batch_size: rows a step.
        steps_per_dispatch: what a stream stacks is so many batches.
    """
    return Recipe(
        encoder="segnet",
        sharing="mtan",
        head_options={"hidden": (64,), "kernel_init": "glorot_normal"},
        steps=steps_of(EPOCHS, rows, batch_size),
        schedule=((steps_of(EPOCHS / 2, rows, batch_size), 0.5),),
        batch_size=batch_size,
        learning_rate=1e-4,
        steps_per_dispatch=steps_per_dispatch,
        checkpoint_every=2_000,
        measure_every=100,
        augment=AUGMENTATION,
    )


def deeplab(rows: int, batch_size: int, steps_per_dispatch: int) -> Recipe:
    """DeepLab on ResNet-50 with a pyramid in each head, as LibMTL trains it.

    Adam with a rate of 1e-4, halved after 100 of 200 epochs, and 1e-5 times the weights in the
    gradient; pictures as they are. LibMTL begins with torchvision's weights of ImageNet
    (`--encoder-weights FILE`; without, the encoder is drawn), leaves the last part of a batch of
    every epoch out, and resizes answers with their corners aligned.

    Args:
        rows: of the training split.
        batch_size: rows a step.
        steps_per_dispatch: what a stream stacks is so many batches.
    """
    return Recipe(
        encoder="deeplab",
        head_options={"atrous": (12, 24, 36)},
        optimizer="adam_l2",
        weight_decay=1e-5,
        steps=steps_of(EPOCHS, rows, batch_size),
        schedule=((steps_of(EPOCHS / 2, rows, batch_size), 0.5),),
        batch_size=batch_size,
        learning_rate=1e-4,
        steps_per_dispatch=steps_per_dispatch,
        checkpoint_every=1_000,
        measure_every=100,
    )


def published_augmentation(kinds: dict[str, Kind]) -> Augment:
    """A window enlarged by 1, 1.2 or 1.5, flipped with a chance of ½.

    As published, depths are divided by the scale. Normals are turned as the pinhole camera has it
    and read by the nearest pixel; published code leaves them and interpolates.

    Args:
        kinds: of labels by key.
    """
    return augmentation(kinds, moves=(partial(scale_crop, scales=(1.0, 1.2, 1.5)), flip))


def told(protocol: Protocol, rows: int, files: int) -> str:
    """One line on what scores of the test split are of."""
    if protocol == "published":
        return (
            f"published protocol: trained on all {files:,} rows, scores of the last step; papers "
            "print the mean of the last 10 epochs, and none has a validation split"
        )
    return (
        f"own protocol: trained on {rows:,} of {files:,} rows, the rest kept for validation, "
        "where papers train on all"
    )
