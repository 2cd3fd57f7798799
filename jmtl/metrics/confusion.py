"""Metrics of one class among several, from a confusion matrix: exact."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jmtl.losses import Valid
from jmtl.metrics.metric import Metric, defined, ratio

Confusion = Int[Array, "C C"]


class Sequences(NamedTuple):
    """Counts of tagged sequences.

    Attributes:
        confusion: `[C, C]` of their tokens: a row for each label, a column for each prediction.
        right: `[]` sequences with every token right.
        total: `[]` sequences with a token that counts.
    """

    confusion: Confusion
    right: Int[Array, ""]
    total: Int[Array, ""]


def classification(num_classes: int) -> Metric:
    """Accuracy and macro-averaged precision, recall and F1, from a confusion matrix.

    The averages run over all C classes, and a class with nothing to divide by counts as 0: what
    scikit-learn gives with `labels=range(C), average="macro", zero_division=0`. With no label at
    all every metric is NaN.

    Args:
        num_classes: C, at least 2.

    Returns:
        `update` takes outputs `[B, ..., C]` (the largest wins) and integer labels `[B, ...]`, of
        which it leaves out those outside 0 .. C - 1, and gives `[C, C]` int32 counts: a row for
        each label, a column for each prediction. `compute` gives `accuracy`, `precision`, `recall`
        and `f1`, in [0, 1].

    Raises:
        ValueError: If `num_classes` is below 2; from `update`, if the shapes do not fit.
    """
    update = _confusion(num_classes)
    return Metric(update, _class_scores, dict.fromkeys(_CLASS_SCORES, True))


def segmentation(num_classes: int, valid: Valid | None = None) -> Metric:
    """Mean intersection over union and pixel accuracy, over all pixels of a split.

    A class's intersection over union is `TP / (TP + FP + FN)`; the mean is over the classes that
    some pixel has or is given (NumPy's nanmean, as mmsegmentation takes it; where every class
    occurs it is scikit-learn's macro Jaccard score). With no pixel at all both are NaN.

    Args:
        num_classes: C, at least 2.
        valid: Which of the labels in 0 .. C - 1 count. Default: all; others never do.

    Returns:
        `update` takes outputs `[B, H, W, C]` and integer labels `[B, H, W]` and gives `[C, C]`
        int32 counts. `compute` gives `miou` and `pixel_accuracy`, in [0, 1].

    Raises:
        ValueError: If `num_classes` is below 2; from `update`, if the shapes do not fit.
    """

    def compute(confusion: Confusion) -> dict[str, Float[Array, ""]]:
        confusion = jnp.asarray(confusion, jnp.float32)
        hits, total = jnp.diagonal(confusion), confusion.sum()
        union = confusion.sum(0) + confusion.sum(1) - hits
        miou = ratio(ratio(hits, union).sum(), (union > 0).sum())
        return defined({"miou": miou, "pixel_accuracy": ratio(hits.sum(), total)}, total)

    names = ("miou", "pixel_accuracy")
    return Metric(_confusion(num_classes, valid), compute, dict.fromkeys(names, True))


def tagging(num_tags: int, valid: Valid | None = None) -> Metric:
    """The metrics of `classification` over tokens, and the share of sequences without an error.

    Args:
        num_tags: C, at least 2.
        valid: Which of the labels in 0 .. C - 1 count. Default: all; others never do.

    Returns:
        `update` takes outputs `[B, T, C]` and integer labels `[B, T]` and gives `Sequences`.
        `compute` gives `accuracy`, `precision`, `recall`, `f1` and `sequence_accuracy`, in [0, 1].

    Raises:
        ValueError: If `num_tags` is below 2; from `update`, if the shapes do not fit.
    """
    confusion = _confusion(num_tags, valid)

    def update(
        output: Float[Array, "B T C"], label: Int[Array, "B T"], present: Bool[Array, " B"]
    ) -> Sequences:
        tokens = confusion(output, label, present)
        counted = _counted(label, present, num_tags, valid)
        some = counted.any(axis=1)
        right = ((output.argmax(-1) == label) | ~counted).all(axis=1) & some
        return Sequences(tokens, right.sum(dtype=jnp.int32), some.sum(dtype=jnp.int32))

    def compute(sums: Sequences) -> dict[str, Float[Array, ""]]:
        whole = {"sequence_accuracy": ratio(sums.right, sums.total)}
        return _class_scores(sums.confusion) | defined(whole, sums.total)

    return Metric(update, compute, dict.fromkeys((*_CLASS_SCORES, "sequence_accuracy"), True))


_CLASS_SCORES = ("accuracy", "precision", "recall", "f1")


def _class_scores(confusion: Confusion) -> dict[str, Float[Array, ""]]:
    # Counts that were added in 64 bits on the host may be more than an int32 holds.
    confusion = jnp.asarray(confusion, jnp.float32)
    hits = jnp.diagonal(confusion)
    labelled, predicted, total = confusion.sum(1), confusion.sum(0), confusion.sum()
    scores = (
        ratio(hits.sum(), total),
        ratio(hits, predicted).mean(),
        ratio(hits, labelled).mean(),
        ratio(2 * hits, labelled + predicted).mean(),
    )
    return defined(dict(zip(_CLASS_SCORES, scores, strict=True)), total)


def _confusion(
    num_classes: int, valid: Valid | None = None
) -> Callable[[Array, Array, Array], Confusion]:
    if num_classes < 2:
        raise ValueError(f"a classification has at least 2 classes, got num_classes={num_classes}")

    def update(
        output: Float[Array, "B *d C"], label: Int[Array, "B *d"], present: Bool[Array, " B"]
    ) -> Confusion:
        label = jnp.asarray(label)
        if output.shape != (*label.shape, num_classes):
            raise ValueError(
                f"metrics of {num_classes} classes take outputs {(*label.shape, num_classes)} for "
                f"labels {label.shape}, got {output.shape}"
            )
        cells = label.astype(jnp.int32) * num_classes + output.argmax(-1).astype(jnp.int32)
        # One cell more than the matrix has takes what is not counted.
        counted = _counted(label, present, num_classes, valid)
        cells = jnp.where(counted, cells, num_classes**2).ravel()
        return jnp.bincount(cells, length=num_classes**2 + 1)[:-1].reshape(num_classes, -1)

    return update


def _counted(
    label: Int[Array, "B *d"], present: Bool[Array, " B"], num_classes: int, valid: Valid | None
) -> Bool[Array, "B *d"]:
    label = jnp.asarray(label)
    rows = jnp.expand_dims(present, tuple(range(1, label.ndim)))
    number = label.astype(jnp.int32)
    counted = rows & (number >= 0) & (number < num_classes)
    return counted if valid is None else counted & valid(label)
