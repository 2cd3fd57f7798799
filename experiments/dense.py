"""What the problems of dense tasks share: protocols, published recipes and augmentation."""

from collections.abc import Mapping
from functools import partial
from typing import Any, Literal

from experiments.last_epochs import steps_of
from experiments.problem import Base, Problem, Recipe
from jmtl.data.affine import Kind
from jmtl.data.augment import Augment, augmentation, flip, scale_crop

Protocol = Literal["own", "published"]
"""Which of the configurations of `jmtl.data.npy_folders` is trained on."""

EPOCHS = 200
"""Of the published recipes, whose learning rate is halved after half of them."""

LAST = 10
"""Epochs at whose ends papers evaluate the test split for the mean that they print."""

AUGMENTATION = "scale_crop"
"""The name of `published_augmentation`."""


def training_rows(files: int, protocol: Protocol) -> int:
    """The rows that a protocol trains on, of the files in train/."""
    return files if protocol == "published" else files - files // 5


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
    return _halved("segnet", rows, batch_size, steps_per_dispatch)._replace(
        sharing="mtan",
        head_options={"hidden": (64,), "kernel_init": "glorot_normal"},
        checkpoint_every=2_000,
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
    return _halved("deeplab", rows, batch_size, steps_per_dispatch)._replace(
        head_options={"atrous": (12, 24, 36)},
        optimizer="adam_l2",
        weight_decay=1e-5,
        checkpoint_every=1_000,
    )


def _halved(encoder: str, rows: int, batch_size: int, steps_per_dispatch: int) -> Recipe:
    """What the published recipes share: a rate of 1e-4, halved after half of the epochs."""
    return Recipe(
        encoder=encoder,
        steps=steps_of(EPOCHS, rows, batch_size),
        schedule=((steps_of(EPOCHS / 2, rows, batch_size), 0.5),),
        batch_size=batch_size,
        learning_rate=1e-4,
        steps_per_dispatch=steps_per_dispatch,
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
            f"published protocol: trained on all {files:,} rows, without a validation split, and "
            f"papers print the mean of test scores at the ends of the last {LAST} epochs"
        )
    return (
        f"own protocol: trained on {rows:,} of {files:,} rows, the rest kept for validation, "
        "where papers train on all"
    )


def problem(
    name: str,
    what: str,
    size: tuple[int, int],
    files: int,
    protocol: Protocol,
    kinds: Mapping[str, Kind],
    recipes: Mapping[str, Recipe],
    base: Base,
    **own: Any,
) -> Problem:
    """A problem of MTAN's folders under a protocol.

    Args:
        name: of the data set.
        what: its pictures show.
        size: of the pictures.
        files: in train/.
        protocol: says the splits, and so the problem's name.
        kinds: of labels by key, for the published augmentation.
        recipes: by name, first the one that is used where none is named.
        base: published single-task scores.
        **own: what else `Problem` takes: tasks, to_batch, evaluation_rows.
    """
    rows, published = training_rows(files, protocol), protocol == "published"
    return Problem(
        name=f"{name}_published" if published else name,
        summary=f"{what} of {size[0]}×{size[1]} pixels, {rows:,} training pictures"
        + (", no validation split" if published else ""),
        data=f"{name}/{protocol}",
        recipe=next(iter(recipes.values())),
        recipes=recipes,
        offline=False,
        by_hand=True,
        source="linked from github.com/lorenmt/mtan",
        validation=not published,
        mean_of_last_epochs=LAST if published else None,
        protocol=told(protocol, rows, files),
        base=base,
        augmentations={AUGMENTATION: published_augmentation(dict(kinds))},
        **own,
    )
