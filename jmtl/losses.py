"""Losses of one example, and their mean over the examples that carry a label.

A loss maps a task's output `[B, ...]` and label `[B, ...]` to one value an example, `[B]`; it never
averages over the batch, because the mean has to be global (over devices and microbatches) before a
method sees it. `masked_mean` divides by a count that the caller may take over all of them.
"""

from typing import Any

import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Num


def cross_entropy(output: Float[Array, "B *d C"], label: Int[Array, "B *d"]) -> Float[Array, " B"]:
    """Softmax cross entropy with integer labels, averaged over the dimensions between B and C.

    Args:
        output: `[B, ..., C]` logits of C classes.
        label: `[B, ...]` integers in 0 .. C - 1. Any other label gives NaN: an index that wraps
            around to another class would train on it unseen.

    Returns:
        `[B]`, in nats, at least float32.

    Raises:
        ValueError: If `label` is not `[B, ...]` integers.
    """
    logits = _at_least_float32(output)
    label = jnp.asarray(label)
    if label.shape != logits.shape[:-1] or not jnp.issubdtype(label.dtype, jnp.integer):
        raise ValueError(
            f"cross_entropy: an output of shape {logits.shape} takes integer labels of shape "
            f"{logits.shape[:-1]}, got {label.dtype} {label.shape}"
        )
    known = (label >= 0) & (label < logits.shape[-1])
    values = optax.losses.softmax_cross_entropy_with_integer_labels(
        logits, jnp.where(known, label, 0)
    )
    return _per_example(jnp.where(known, values, jnp.nan))


def squared_error(output: Num[Array, "B *d"], label: Num[Array, "B *d"]) -> Float[Array, " B"]:
    """`(output - label)²`, averaged over the dimensions after B.

    Args:
        output: `[B, ...]`, or `[B, ..., 1]` for a label `[B, ...]`.
        label: `[B, ...]`.

    Returns:
        `[B]`, in the label's unit squared.

    Raises:
        ValueError: If the shapes differ.
    """
    return _per_example(optax.losses.squared_error(*aligned(output, label)))


def absolute_error(output: Num[Array, "B *d"], label: Num[Array, "B *d"]) -> Float[Array, " B"]:
    """`|output - label|`, averaged over the dimensions after B.

    Args:
        output: `[B, ...]`, or `[B, ..., 1]` for a label `[B, ...]`.
        label: `[B, ...]`.

    Returns:
        `[B]`, in the label's unit.

    Raises:
        ValueError: If the shapes differ.
    """
    output, label = aligned(output, label)
    return _per_example(jnp.abs(output - label))


def huber(
    output: Num[Array, "B *d"], label: Num[Array, "B *d"], delta: float = 1.0
) -> Float[Array, " B"]:
    """Half the squared error up to `delta`, linear beyond, averaged over the dimensions after B.

    Args:
        output: `[B, ...]`, or `[B, ..., 1]` for a label `[B, ...]`.
        label: `[B, ...]`.
        delta: The error at which the loss turns linear, in the label's unit.

    Returns:
        `[B]`.

    Raises:
        ValueError: If the shapes differ.

    References:
        Huber, *Robust estimation of a location parameter*, 1964.
    """
    return _per_example(optax.losses.huber_loss(*aligned(output, label), delta=delta))


def masked_mean(
    values: Float[Array, " B"],
    present: Bool[Array, " B"],
    count: Any = None,
    weight: Num[Array, " B"] | None = None,
) -> Float[Array, ""]:
    """The weighted sum of the values present over the sum of their weights.

    The value and the gradient of an absent row are exactly 0, whatever it holds, NaN included. Its
    gradient with respect to what the value was computed *from* is 0 · ∂value: finite only if that
    row's label was replaced before the loss (`present_only`), as `task_losses` does.

    Args:
        values: `[B]`.
        present: `[B]` which rows count.
        count: The number to divide by, where the batch is one part of a larger one: the sums of the
            parts then add to the global mean. Default: the weights present here, summed.
        weight: `[B]` how much each row counts, at least 0. Default: all 1.

    Returns:
        `[]`, 0 where the count is 0.

    Raises:
        ValueError: If `values` and `present` are not both `[B]`.
    """
    if values.ndim != 1 or values.shape != present.shape:
        raise ValueError(
            f"masked_mean: values and present are both [B], got {values.shape} and {present.shape}"
        )
    weight = jnp.where(present, 1 if weight is None else weight, 0)
    total = (jnp.where(present, values, 0) * weight.astype(values.dtype)).sum()
    count = jnp.asarray(weight.sum() if count is None else count)
    return total / jnp.where(count > 0, count, 1).astype(total.dtype)


def present_only(label: Num[Array, "B *d"], present: Bool[Array, " B"]) -> Num[Array, "B *d"]:
    """The label with 0 in the rows that are absent, which may hold anything.

    Args:
        label: `[B, ...]`.
        present: `[B]`.

    Returns:
        `[B, ...]`.
    """
    label = jnp.asarray(label)
    rows = jnp.expand_dims(present, tuple(range(1, label.ndim)))
    return jnp.where(rows, label, jnp.zeros_like(label))


def aligned(
    output: Num[Array, "B *d"], label: Num[Array, "B *d"]
) -> tuple[Float[Array, "B *d"], Float[Array, "B *d"]]:
    """Output and label in one shape and in one dtype, at least float32.

    Args:
        output: `[B, ...]`, or `[B, ..., 1]` for a label `[B, ...]`.
        label: `[B, ...]`.

    Returns:
        Both, in the label's shape.

    Raises:
        ValueError: If the shapes differ.
    """
    output, label = _at_least_float32(output), jnp.asarray(label)
    if output.shape == (*label.shape, 1):
        output = output[..., 0]
    if output.shape != label.shape:
        raise ValueError(
            f"a regression's output and label have one shape, got {output.shape} and {label.shape}"
        )
    return output, label.astype(output.dtype)


def _at_least_float32(x: Num[Array, "*d"]) -> Float[Array, "*d"]:
    x = jnp.asarray(x)
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _per_example(values: Float[Array, "B *d"]) -> Float[Array, " B"]:
    return values.mean(axis=tuple(range(1, values.ndim)))
