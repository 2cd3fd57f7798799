import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jmtl
from jmtl.methods.go4align import cluster_centres
from tests.methods.scalarizers import PRECISIONS, VALUES, run, weights_of


def best_centres(values: np.ndarray, clusters: int) -> tuple[np.ndarray, float]:
    """By trying every assignment of values to clusters: centres, sum of squared distances."""
    best, least = values, np.inf
    for labels in itertools.product(range(clusters), repeat=len(values)):
        means = {c: values[np.equal(labels, c)].mean() for c in set(labels)}
        centres = np.asarray([means[c] for c in labels])
        spread = float(np.sum((values - centres) ** 2))
        if spread < least:
            best, least = centres, spread
    return best, least


def clustered(values: Any, clusters: int) -> Any:
    return cluster_centres(values, clusters, jnp.ones(len(values), bool))


_compiled = jax.jit(clustered, static_argnums=1)


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.lists(st.integers(-50, 50), min_size=5, max_size=5), st.integers(1, 4))
def test_clusters_are_the_best_of_all(values: list[int], clusters: int) -> None:
    points = np.asarray(values, np.float64)
    centres = np.asarray(_compiled(jnp.asarray(points, jnp.float32), clusters), np.float64)
    _, least = best_centres(points, clusters)
    assert len(np.unique(np.round(centres, 3))) <= clusters
    largest = max(1.0, np.abs(points).max())
    assert np.sum((points - centres) ** 2) <= least + 1e-4 * largest**2


def test_clusters_at_any_scale_in_any_order() -> None:
    values = np.asarray([5.0, 1.0, 5.5, 1.2, 30.0])
    expected = np.asarray([3.175, 3.175, 3.175, 3.175, 30.0])
    three = np.asarray([5.25, 1.1, 5.25, 1.1, 30.0])
    for scale in (1e-30, 1.0, 1e30):
        points = jnp.asarray(scale * values, jnp.float32)
        np.testing.assert_allclose(clustered(points, 2), scale * expected, rtol=1e-6)
        np.testing.assert_allclose(clustered(points, 3), scale * three, rtol=1e-6)
    np.testing.assert_array_equal(clustered(jnp.zeros(3), 2), 0.0)
    np.testing.assert_allclose(clustered(jnp.full(3, 0.1), 3), 0.1, rtol=1e-6)
    for bad in (np.nan, np.inf):
        assert np.isnan(clustered(jnp.asarray([1.0, bad, 2.0]), 2)).all()


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
def test_the_recurrence(dtype: Any, tolerance: float) -> None:
    with jax.enable_x64(dtype is np.float64):
        weights, state = run(jmtl.go4align(4, eta=0.3), VALUES, dtype)
    assert weights.dtype == dtype
    p = np.full(4, 0.25)
    for row, losses in zip(weights, VALUES, strict=True):
        p = p * np.exp(-0.3 * losses)
        p = p / p.sum()
        expected, _ = best_centres(p * losses.sum() / losses, 2)
        np.testing.assert_allclose(row, expected, rtol=10 * tolerance)
    np.testing.assert_allclose(np.exp(state.log_p), p, rtol=10 * tolerance)


def test_one_cluster_and_as_many_as_tasks() -> None:
    raw = VALUES[0].sum() / VALUES[0] / 4
    np.testing.assert_allclose(
        weights_of(jmtl.go4align(4, eta=0.0, clusters=4), VALUES[0]), raw, rtol=1e-5
    )
    np.testing.assert_allclose(
        weights_of(jmtl.go4align(4, eta=0.0, clusters=1), VALUES[0]), np.full(4, raw.mean()), 1e-5
    )


def test_a_task_without_a_loss_is_in_no_cluster() -> None:
    method = jmtl.go4align(5, eta=0.0, clusters=2)
    found = weights_of(method, [0.5, 0.0, 2.0, 0.45, 3.0])
    others = weights_of(jmtl.go4align(4, eta=0.0, clusters=2), [0.5, 2.0, 0.45, 3.0])
    np.testing.assert_allclose(found, np.insert(0.8 * others, 1, 0.0), rtol=1e-5)
    np.testing.assert_array_equal(weights_of(method, np.zeros(5)), 0.0)
    negative = weights_of(jmtl.go4align(3, eta=0.0, clusters=2), [0.0, -1.0, 3.0])
    np.testing.assert_allclose(negative, [0.0, -2 / 3, 2 / 9], rtol=1e-5)


def test_losses_that_are_not_finite_show_and_one_task_has_weight_one() -> None:
    assert np.isnan(weights_of(jmtl.go4align(3), [np.nan, 1.0, 2.0])).all()
    np.testing.assert_array_equal(weights_of(jmtl.go4align(1), [0.0]), 1.0)


@pytest.mark.parametrize("clusters", [0, 4, 1.0, True])
def test_a_number_of_clusters_that_does_not_fit_is_refused(clusters: Any) -> None:
    with pytest.raises(
        ValueError, match=f"clusters must be a whole number in 1 … 3, got {clusters}"
    ):
        jmtl.go4align(3, clusters=clusters)
