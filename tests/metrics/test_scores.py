"""Histograms of scores: order, resolution, and scikit-learn's metrics of what they hold."""

import warnings

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics as sk

from jmtl import losses, metrics
from jmtl.metrics.scores import BINS, score_bins
from tests.metrics.sums import scorer

ROWS = 20
MANY, ONE = scorer(metrics.multi_label(4, losses.known)), scorer(metrics.binary())


def bin_values():
    """The smallest number above 0, or the largest below, of every bin in order."""
    exponents, steps = np.meshgrid(np.arange(-11, 5), np.arange(128), indexing="ij")
    sizes = ((1 + steps / 128) * 2.0**exponents).ravel()
    return np.concatenate([-sizes[::-1], sizes]).astype(np.float32)


def test_bins_are_numbers_of_eight_significant_bits_in_order():
    scores = bin_values()
    np.testing.assert_array_equal(score_bins(scores), np.arange(BINS))
    # What lies between is rounded towards 0, what lies outside joins the nearest.
    between = np.where(scores > 0, np.nextafter(np.roll(scores, -1), -np.inf), scores)[BINS // 2 :]
    np.testing.assert_array_equal(score_bins(between[:-1]), np.arange(BINS // 2, BINS - 1))
    odd = np.array([-np.inf, -1e9, -1e-30, -0.0, 0.0, 1e-30, 33.0, np.inf, np.nan], np.float32)
    half = BINS // 2
    expected = [0, 0, half - 1, half - 1, half - 1, half, BINS - 1, BINS - 1, 0]
    np.testing.assert_array_equal(score_bins(odd), expected)


def reference(y, scores):
    """Scikit-learn's metrics, label by label; `y` is -1 where unknown."""
    known = y >= 0
    options = {"average": "binary", "zero_division": 0}
    rows = [(y[k, i], scores[k, i]) for i, k in enumerate(known.T)]
    both = [row for row in rows if len(set(row[0])) == 2]
    some = [row for row in rows if row[0].any()]
    mean = lambda fun, of: np.mean([fun(*row) for row in of])
    at = lambda fun: mean(lambda y, s: fun(y, s > 0, **options), rows)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return {
            "accuracy": ((scores > 0) == y)[known].mean(),
            "precision": at(sk.precision_score),
            "recall": at(sk.recall_score),
            "f1": at(sk.f1_score),
            "average_precision": mean(sk.average_precision_score, some),
            "auc": mean(sk.roc_auc_score, both),
        }


@pytest.mark.parametrize("seed", range(3))
def test_multi_label_is_scikit_learns_for_scores_that_bins_hold(seed):
    rng = np.random.default_rng(seed)
    scores = rng.integers(-12, 12, (ROWS, 4)) / 8  # of few values: many ties
    y = np.where(rng.random((ROWS, 4)) < 0.8, rng.integers(0, 2, (ROWS, 4)), -1)
    y[:, 0] = np.minimum(y[:, 0], 0)  # a label that nobody has
    y[:, 1] = np.where(y[:, 1] == 0, 1, y[:, 1])  # one that everybody has
    present = rng.random(ROWS) < 0.9
    scores = scores.astype(np.float32)
    actual = MANY(scores, y, present, batches=4)
    expected = reference(y[present], scores[present])
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(actual[name], value, rtol=1e-5, atol=1e-7, err_msg=name)


def test_other_scores_are_ranked_as_rounded():
    rng = np.random.default_rng(3)
    y = rng.random(4_000) < 0.3
    scores = (rng.normal(size=y.size) + y).astype(np.float32)
    actual = ONE(scores[:, None], y, batches=2)
    bins = np.asarray(score_bins(scores))
    theirs = {"average_precision": sk.average_precision_score, "auc": sk.roc_auc_score}
    for name, expected in theirs.items():
        np.testing.assert_allclose(actual[name], expected(y, bins), rtol=1e-5, err_msg=name)
        np.testing.assert_allclose(actual[name], expected(y, scores), atol=1e-3, err_msg=name)
    np.testing.assert_allclose(actual["f1"], sk.f1_score(y, scores > 0), rtol=1e-6)


def test_without_both_answers_a_ranking_is_undefined():
    of = lambda *given: ONE(jnp.array([1.0, -1.0]), *given)
    for y, undefined in ((False, {"auc", "average_precision"}), (True, {"auc"})):
        found = of(np.full(2, y))
        assert {name for name, value in found.items() if np.isnan(value)} == undefined
    assert np.isnan(list(of(np.ones(2, bool), np.zeros(2, bool)).values())).all()


@pytest.mark.parametrize(
    ("metric", "output", "label", "message"),
    [
        (metrics.multi_label(2), (3, 2), (3, 3), r"2 labels take .* \(3, 2\) and \(3, 3\)"),
        (metrics.binary(), (3, 2), (3, 2), r"a binary label is \[B\], got \(3, 2\)"),
    ],
)
def test_shapes_that_do_not_fit_are_refused(metric, output, label, message):
    with pytest.raises(ValueError, match=message):
        metric.update(jnp.zeros(output), jnp.zeros(label, jnp.int32), jnp.ones(3, bool))
    with pytest.raises(ValueError, match="num_labels=0"):
        metrics.multi_label(0)
