"""Metrics of yes-or-no answers, from histograms of the scores: thresholds, AUC, precision.

A ranking metric needs the order of all scores of a split, which no sum of fixed size holds. What
adds is a histogram of the scores, and so these are *exactly the metric of the scores rounded down
to 8 significant bits*: two scores that differ by less than 0.4 to 0.8 % may tie. Scores nearer to 0
than 2⁻¹¹ (0.0005) tie with one another, and so do those beyond 32, on either side; read as
log-odds, these are probabilities within 0.0001 of a half, and within 1e-14 of 0 or 1. The sign is
kept, so that what counts answers above 0 is exact.
"""

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jmtl.losses import Valid, aligned
from jmtl.metrics.metric import Metric, defined, ratio

BINS = 4_096
"""Of a histogram of scores: both signs of 16 powers of two, 128 steps each."""

_HALF = BINS // 2
_NAMES = ("accuracy", "precision", "recall", "f1", "average_precision", "auc")


def score_bins(scores: Float[Array, "*d"]) -> Int[Array, "*d"]:
    """The place of each score among `BINS` bins: in the scores' order, the upper half above 0.

    Args:
        scores: any numbers; NaN is taken to be the lowest.

    Returns:
        int32 in 0 .. BINS - 1.
    """
    scores = jnp.asarray(scores, jnp.float32)
    # A float's bits without the last 16 are its exponent and 7 bits of its fraction, in order.
    bits = lax.bitcast_convert_type(jnp.abs(scores), jnp.int32) >> 16
    lowest = (127 - 11) << 7
    level = jnp.clip(bits - lowest, 0, _HALF - 1)
    return jnp.where(scores > 0, _HALF + level, _HALF - 1 - level)


def binary() -> Metric:
    """The metrics of `multi_label` for one label: outputs `[B, 1]` or `[B]`, labels `[B]`."""
    many = multi_label(1)

    def update(
        output: Float[Array, "B *one"], label: Int[Array, " B"], present: Bool[Array, " B"]
    ) -> Int[Array, "1 2 bins"]:
        output, label = aligned(output, label)
        if label.ndim != 1:
            raise ValueError(f"a binary label is [B], got {label.shape}")
        return many.update(output[:, None], label[:, None], present)

    return many._replace(update=update)


def multi_label(num_labels: int, valid: Valid | None = None) -> Metric:
    """Accuracy, precision, recall and F1 of answers above 0, average precision and AUC.

    Accuracy is over all elements. The others are means over labels: of precision, recall and F1 of
    yes, where nothing to divide by counts as 0 (scikit-learn's `average="macro", zero_division=0`);
    of average precision over the labels that some example has, and of the area under the ROC curve
    over those that some example has and another has not (scikit-learn's, of the rounded scores: see
    above). NaN where there is none.

    Args:
        num_labels: L, at least 1.
        valid: Which of the labels 0 and 1 count. Default: all; others never do.

    Returns:
        `update` takes outputs `[B, L]` and labels `[B, L]`, 0 or 1, and gives `[L, 2, BINS]` int32
        counts: by label, true answer, score. `compute` gives `accuracy`, `precision`, `recall`,
        `f1`, `average_precision` and `auc`, in [0, 1].

    Raises:
        ValueError: If `num_labels` is below 1; from `update`, if the shapes do not fit.
    """
    if num_labels < 1:
        raise ValueError(f"a multi-label task has at least 1 label, got num_labels={num_labels}")

    def update(
        output: Float[Array, "B L"], label: Int[Array, "B L"], present: Bool[Array, " B"]
    ) -> Int[Array, "L 2 bins"]:
        label = jnp.asarray(label)
        if output.shape != label.shape or label.shape[1:] != (num_labels,):
            raise ValueError(
                f"metrics of {num_labels} labels take outputs and labels [B, {num_labels}], "
                f"got {output.shape} and {label.shape}"
            )
        counted = present[:, None] & ((label == 0) | (label == 1))
        counted = counted if valid is None else counted & valid(label)
        rows = jnp.arange(num_labels)[None] * 2 + jnp.where(counted, label, 0).astype(jnp.int32)
        cells = jnp.where(counted, rows * BINS + score_bins(output), num_labels * 2 * BINS)
        counts = jnp.bincount(cells.ravel(), length=num_labels * 2 * BINS + 1)
        return counts[:-1].reshape(num_labels, 2, BINS)

    def compute(counts: Int[Array, "L 2 bins"]) -> dict[str, Float[Array, ""]]:
        counts = jnp.asarray(counts)
        no, yes = counts[:, 0], counts[:, 1]
        positives, negatives = yes.sum(1), no.sum(1)
        hits, misses = yes[:, _HALF:].sum(1), no[:, _HALF:].sum(1)
        right = hits + negatives - misses
        scores = {
            "accuracy": ratio(right.sum(), counts.sum()),
            "precision": ratio(hits, hits + misses).mean(),
            "recall": ratio(hits, positives).mean(),
            "f1": ratio(2 * hits, hits + misses + positives).mean(),
            "average_precision": _mean_over(_average_precision(no, yes), positives > 0),
            "auc": _mean_over(_auc(no, yes), (positives > 0) & (negatives > 0)),
        }
        return defined(scores, counts.sum())

    return Metric(update, compute, dict.fromkeys(_NAMES, True))


def _average_precision(no: Int[Array, "L bins"], yes: Int[Array, "L bins"]) -> Float[Array, " L"]:
    """Precision at each score that some positive has, by the share of positives that have it."""
    hits, misses = (lax.cumsum(x, axis=1, reverse=True) for x in (yes, no))
    return (ratio(yes, yes.sum(1, keepdims=True)) * ratio(hits, hits + misses)).sum(1)


def _auc(no: Int[Array, "L bins"], yes: Int[Array, "L bins"]) -> Float[Array, " L"]:
    """The share of pairs of a positive and a negative in order; a tie is half a pair."""
    below = jnp.cumsum(no, axis=1) - no
    share = ratio(below + 0.5 * no, no.sum(1, keepdims=True))
    return (ratio(yes, yes.sum(1, keepdims=True)) * share).sum(1)


def _mean_over(values: Float[Array, " L"], chosen: Bool[Array, " L"]) -> Float[Array, ""]:
    mean = ratio(jnp.where(chosen, values, 0).sum(), chosen.sum())
    return jnp.where(chosen.any(), mean, jnp.nan)
