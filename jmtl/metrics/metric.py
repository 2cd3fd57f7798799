"""What a metric is: sums, exact over uneven batches, devices and hosts.

A metric's `update` turns one batch into statistics, the statistics of all batches and devices are
*added* (`jax.tree.map(jnp.add, ...)`, `jax.lax.psum`), and `compute` reads the sum once.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Num

from jmtl.losses import aligned, present_only


class Metric(NamedTuple):
    """Two pure functions.

    Attributes:
        update: `(output [B, ...], label [B, ...], present [B])` -> statistics, a pytree of sums.
        compute: statistics -> scalars by name.
        higher_is_better: by the same names; what comparisons of methods need.
    """

    update: Callable[[Array, Array, Array], Any]
    compute: Callable[[Any], dict[str, Float[Array, ""]]]
    higher_is_better: Mapping[str, bool]


class Errors(NamedTuple):
    """Sums over the elements of the labels present.

    Attributes:
        absolute: `[]` the sum of `|output - label|`.
        squared: `[]` the sum of `(output - label)²`.
        elements: `[]` the number of elements.
    """

    absolute: Float[Array, ""]
    squared: Float[Array, ""]
    elements: Int[Array, ""]


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
    if num_classes < 2:
        raise ValueError(f"a classification has at least 2 classes, got num_classes={num_classes}")

    def update(
        output: Float[Array, "B *d C"], label: Int[Array, "B *d"], present: Bool[Array, " B"]
    ) -> Int[Array, "C C"]:
        label = jnp.asarray(label)
        if output.shape != (*label.shape, num_classes):
            raise ValueError(
                f"metrics of {num_classes} classes take outputs {(*label.shape, num_classes)} for "
                f"labels {label.shape}, got {output.shape}"
            )
        rows = jnp.expand_dims(present, tuple(range(1, label.ndim)))
        counted = rows & (label >= 0) & (label < num_classes)
        cells = label.astype(jnp.int32) * num_classes + output.argmax(-1).astype(jnp.int32)
        # One cell more than the matrix has takes what is not counted.
        cells = jnp.where(counted, cells, num_classes**2).ravel()
        return jnp.bincount(cells, length=num_classes**2 + 1)[:-1].reshape(num_classes, -1)

    def compute(confusion: Int[Array, "C C"]) -> dict[str, Float[Array, ""]]:
        hits = jnp.diagonal(confusion)
        labelled, predicted, total = confusion.sum(1), confusion.sum(0), confusion.sum()
        scores = {
            "accuracy": _ratio(hits.sum(), total),
            "precision": _ratio(hits, predicted).mean(),
            "recall": _ratio(hits, labelled).mean(),
            "f1": _ratio(2 * hits, labelled + predicted).mean(),
        }
        return {name: jnp.where(total > 0, score, jnp.nan) for name, score in scores.items()}

    names = ("accuracy", "precision", "recall", "f1")
    return Metric(update, compute, dict.fromkeys(names, True))


def regression() -> Metric:
    """Mean absolute and root mean squared error over the elements of the labels present.

    Returns:
        `update` takes outputs `[B, ...]` (or `[B, ..., 1]`) and labels `[B, ...]` and gives
        `Errors`. `compute` gives `mae` and `rmse` in the label's unit, NaN with no label at all.
        The sums are float32: over some 10⁴ batches, add them in float64 on the host.
    """

    def update(
        output: Num[Array, "B *d"], label: Num[Array, "B *d"], present: Bool[Array, " B"]
    ) -> Errors:
        output, label = aligned(output, label)
        error = present_only(output - label, present)
        elements = present.sum(dtype=jnp.int32) * (error.size // max(error.shape[0], 1))
        return Errors(jnp.abs(error).sum(), jnp.square(error).sum(), elements)

    def compute(errors: Errors) -> dict[str, Float[Array, ""]]:
        mae = _ratio(errors.absolute, errors.elements)
        rmse = jnp.sqrt(_ratio(errors.squared, errors.elements))
        return {
            name: jnp.where(jnp.asarray(errors.elements) > 0, value, jnp.nan)
            for name, value in (("mae", mae), ("rmse", rmse))
        }

    return Metric(update, compute, {"mae": False, "rmse": False})


def _ratio(part: Num[Array, "*d"], whole: Num[Array, "*d"]) -> Float[Array, "*d"]:
    """`part / whole`, 0 where `whole` is 0."""
    return jnp.where(jnp.asarray(whole) > 0, part / jnp.maximum(whole, 1), 0.0)
