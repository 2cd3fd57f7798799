"""Losses of one example, and their mean over the examples that carry a label.

A loss maps a task's output `[B, ...]` and label `[B, ...]` to one value an example, `[B]`; it never
averages over the batch, because the mean has to be global (over devices and microbatches) before a
method sees it. `masked_mean` divides by a count that the caller may take over all of them.

Where labels are invalid in part (pixels without depth, padded tokens, unknown attributes), a loss
takes `valid`, a function from the label to which of its elements count: an example's value is the
mean over those, 0 without any, and what the others hold reaches neither value nor gradient.
`elements` counts them, for a task's `weight`.
"""

from collections.abc import Callable, Collection
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Num

Valid = Callable[[Array], Bool[Array, "B *d"]]


def cross_entropy(
    output: Float[Array, "B *d C"], label: Int[Array, "B *d"], valid: Valid | None = None
) -> Float[Array, " B"]:
    """Softmax cross entropy with integer labels, averaged over the dimensions between B and C.

    Args:
        output: `[B, ..., C]` logits of C classes.
        label: `[B, ...]` integers in 0 .. C - 1. Any other label that counts gives NaN: an index
            that wraps around to another class would train on it unseen.
        valid: Which labels count. Default: all.

    Returns:
        `[B]`, in nats, at least float32.

    Raises:
        ValueError: If `label` is not `[B, ...]` integers.
    """
    logits, label = _at_least_float32(output), jnp.asarray(label)
    if label.shape != logits.shape[:-1] or not jnp.issubdtype(label.dtype, jnp.integer):
        raise ValueError(
            f"cross_entropy: an output of shape {logits.shape} takes integer labels of shape "
            f"{logits.shape[:-1]}, got {label.dtype} {label.shape}"
        )
    counted = None if valid is None else valid(label)
    label = label.astype(jnp.promote_types(label.dtype, jnp.int32))
    # Compared, not looked up as optax does: the gradient of a lookup is a scatter, which on a CPU
    # goes label by label (a step of 8 scenes of 64×64, six tasks: PCGrad 137 ms, 126 compared).
    there = jax.nn.one_hot(label, logits.shape[-1], dtype=bool)
    values = jax.nn.logsumexp(logits, axis=-1) - jnp.where(there, logits, 0).sum(axis=-1)
    return _per_example(jnp.where(there.any(axis=-1), values, jnp.nan), counted)


def binary_cross_entropy(
    output: Float[Array, "B *d"], label: Int[Array, "B *d"], valid: Valid | None = None
) -> Float[Array, " B"]:
    """Sigmoid cross entropy of yes-or-no labels, averaged over the dimensions after B.

    Args:
        output: `[B, ...]` logits of yes, or `[B, ..., 1]` for a label `[B, ...]`.
        label: `[B, ...]` booleans, or integers 0 and 1; any other that counts gives NaN.
        valid: Which labels count. Default: all.

    Returns:
        `[B]`, in nats, at least float32.

    Raises:
        ValueError: If the shapes differ, or `label` is neither integers nor booleans.
    """
    logits, answers, counted = _yes_or_no("binary_cross_entropy", output, label, valid)
    return _per_example(optax.losses.sigmoid_binary_cross_entropy(logits, answers), counted)


def focal(
    output: Float[Array, "B *d"],
    label: Int[Array, "B *d"],
    valid: Valid | None = None,
    alpha: float | None = 0.25,
    gamma: float = 2.0,
) -> Float[Array, " B"]:
    """Sigmoid cross entropy that fades where the output is right, averaged as it is.

    Args:
        output: See `binary_cross_entropy`.
        label: See there.
        valid: Which labels count. Default: all.
        alpha: The weight of yes, in (0, 1); that of no is 1 - alpha. None: both 1.
        gamma: The power of the probability of the wrong answer, at least 0.

    Returns:
        `[B]`, at least float32.

    Raises:
        ValueError: As `binary_cross_entropy`.

    References:
        Lin et al., *Focal Loss for Dense Object Detection*, ICCV 2017, equation 5.
    """
    logits, answers, counted = _yes_or_no("focal", output, label, valid)
    values = optax.losses.sigmoid_focal_loss(logits, answers, alpha=alpha, gamma=gamma)
    return _per_example(values, counted)


def hinge(
    output: Float[Array, "B *d"], label: Int[Array, "B *d"], valid: Valid | None = None
) -> Float[Array, " B"]:
    """`max(0, 1 - output)` for yes and `max(0, 1 + output)` for no, averaged over what follows B.

    Args:
        output: `[B, ...]`, yes above 0; or `[B, ..., 1]` for a label `[B, ...]`.
        label: `[B, ...]` booleans, or integers 0 and 1; any other that counts gives NaN.
        valid: Which labels count. Default: all.

    Returns:
        `[B]`, at least float32.

    Raises:
        ValueError: If the shapes differ, or `label` is neither integers nor booleans.
    """
    scores, answers, counted = _yes_or_no("hinge", output, label, valid)
    return _per_example(optax.losses.hinge_loss(scores, 2 * answers - 1), counted)


def squared_error(
    output: Num[Array, "B *d"], label: Num[Array, "B *d"], valid: Valid | None = None
) -> Float[Array, " B"]:
    """`(output - label)²` (L2), averaged over the dimensions after B.

    Args:
        output: `[B, ...]`, or `[B, ..., 1]` for a label `[B, ...]`.
        label: `[B, ...]`.
        valid: Which elements count. Default: all.

    Returns:
        `[B]`, in the label's unit squared.

    Raises:
        ValueError: If the shapes differ.
    """
    output, label, counted = _counted(output, label, valid)
    return _per_example(optax.losses.squared_error(output, label), counted)


def absolute_error(
    output: Num[Array, "B *d"], label: Num[Array, "B *d"], valid: Valid | None = None
) -> Float[Array, " B"]:
    """`|output - label|` (L1), averaged over the dimensions after B.

    Args:
        output: `[B, ...]`, or `[B, ..., 1]` for a label `[B, ...]`.
        label: `[B, ...]`.
        valid: Which elements count. Default: all.

    Returns:
        `[B]`, in the label's unit.

    Raises:
        ValueError: If the shapes differ.
    """
    output, label, counted = _counted(output, label, valid)
    return _per_example(jnp.abs(output - label), counted)


def huber(
    output: Num[Array, "B *d"],
    label: Num[Array, "B *d"],
    delta: float = 1.0,
    valid: Valid | None = None,
) -> Float[Array, " B"]:
    """Half the squared error up to `delta`, linear beyond, averaged over the dimensions after B.

    Args:
        output: `[B, ...]`, or `[B, ..., 1]` for a label `[B, ...]`.
        label: `[B, ...]`.
        delta: The error at which the loss turns linear, in the label's unit.
        valid: Which elements count. Default: all.

    Returns:
        `[B]`.

    Raises:
        ValueError: If the shapes differ.

    References:
        Huber, *Robust estimation of a location parameter*, 1964.
    """
    output, label, counted = _counted(output, label, valid)
    return _per_example(optax.losses.huber_loss(output, label, delta=delta), counted)


def cosine(
    output: Float[Array, "B *d D"], label: Num[Array, "B *d D"], valid: Valid | None = None
) -> Float[Array, " B"]:
    """`1 - cos` of the angle between two directions, averaged over the dimensions between B and D.

    The length of either plays no part; an output of exactly 0, which has no direction, is taken to
    be at a right angle and has a gradient of 0.

    Args:
        output: `[B, ..., D]`.
        label: `[B, ..., D]`; one of zeros that counts gives NaN.
        valid: Which directions count, `[B, ...]`. Default: all.

    Returns:
        `[B]`, in [0, 2].

    Raises:
        ValueError: If the shapes differ.
    """
    output, label = _at_least_float32(output), jnp.asarray(label)
    if output.shape != label.shape or output.ndim < 2:
        raise ValueError(
            f"cosine: output and label are both [B, ..., D], got {output.shape} and {label.shape}"
        )
    counted = None if valid is None else valid(label)
    label = label.astype(output.dtype)
    if counted is not None:
        label = jnp.where(counted[..., None], label, 1)
    largest = jnp.abs(output).max(-1, keepdims=True)
    # Squares of what is divided by the largest element neither under- nor overflow.
    scaled = output / lax.stop_gradient(jnp.where(largest == 0, 1, largest))
    still = largest == 0
    values = optax.losses.cosine_distance(jnp.where(still, 1, scaled), label)
    return _per_example(jnp.where(still[..., 0], 1, values), counted)


def outside(label: Int[Array, "B *d"], values: Collection[int]) -> Bool[Array, "B *d"]:
    """Which labels are none of `values`: those that mark what has no class."""
    label = jnp.asarray(label)
    # In at least 32 bits, signed: -1 is not among the numbers of a uint8.
    label = label.astype(jnp.promote_types(label.dtype, jnp.int32))
    counted = jnp.ones(label.shape, bool)
    for value in values:
        counted &= label != value
    return counted


def known(label: Int[Array, "B *d"]) -> Bool[Array, "B *d"]:
    """Which labels are not -1: those of attributes and tokens that have one."""
    return outside(label, (-1,))


def positive(label: Num[Array, "B *d"]) -> Bool[Array, "B *d"]:
    """Which numbers are above 0 and finite: a depth of 0 is one that was not measured."""
    return (jnp.asarray(label) > 0) & jnp.isfinite(label)


def directed(label: Num[Array, "B *d D"]) -> Bool[Array, "B *d"]:
    """Which vectors are not all zeros."""
    return (jnp.asarray(label) != 0).any(-1)


def elements(label: Num[Array, "B *d"], valid: Valid) -> Int[Array, " B"]:
    """The number of elements of each example's label that count."""
    counted = valid(label)
    return counted.sum(axis=tuple(range(1, counted.ndim)), dtype=jnp.int32)


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
        raise ValueError(f"output and label have one shape, got {output.shape} and {label.shape}")
    return output, label.astype(output.dtype)


def _at_least_float32(x: Num[Array, "*d"]) -> Float[Array, "*d"]:
    x = jnp.asarray(x)
    return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _counted(
    output: Num[Array, "B *d"], label: Num[Array, "B *d"], valid: Valid | None
) -> tuple[Float[Array, "B *d"], Float[Array, "B *d"], Bool[Array, "B *d"] | None]:
    """Both in one shape and dtype, the label 0 where it does not count, and where it does."""
    output, label = aligned(output, label)
    if valid is None:
        return output, label, None
    counted = valid(label)
    return output, jnp.where(counted, label, 0), counted


def _yes_or_no(
    name: str, output: Num[Array, "B *d"], label: Int[Array, "B *d"], valid: Valid | None
) -> tuple[Float[Array, "B *d"], Float[Array, "B *d"], Bool[Array, "B *d"] | None]:
    """Logits, labels as 0.0 and 1.0 (NaN for any other), and which count."""
    label = jnp.asarray(label)
    if not (jnp.issubdtype(label.dtype, jnp.integer) or label.dtype == bool):
        raise ValueError(f"{name}: a label is a boolean or the integer 0 or 1, got {label.dtype}")
    logits, answers, counted = _counted(output, label, valid)
    return logits, jnp.where((answers == 0) | (answers == 1), answers, jnp.nan), counted


def _per_example(
    values: Float[Array, "B *d"], counted: Bool[Array, "B *d"] | None = None
) -> Float[Array, " B"]:
    """The mean over the dimensions after B, or over the elements that count."""
    axes = tuple(range(1, values.ndim))
    if counted is None:
        return values.mean(axis=axes)
    total = jnp.where(counted, values, 0).sum(axis=axes)
    return total / jnp.maximum(counted.sum(axis=axes), 1).astype(values.dtype)
