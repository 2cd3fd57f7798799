"""The trimmed mean and Krum against plain NumPy, the reference, and at the edges."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import trim_mean

import jmtl
from jmtl.method import Seen
from jmtl.methods.trimmed_mean import NETWORK, sorting_network
from tests.solvers.references import CASES, cases_with, rows_of


def trimmed(rows: Any, trim: int) -> Any:
    rows = jnp.asarray(rows)
    method = jmtl.trimmed_mean(len(rows), trim)
    answer, _ = method.update(Seen(jnp.ones(len(rows)), gradients=rows), ())
    assert np.isnan(answer.weights).all()
    assert answer.weights.shape == (len(rows),)
    return answer.gradient


@pytest.mark.parametrize("case", cases_with("TrimmedMean_1", "deterministic"))
def test_trimmed_mean_is_the_reference(case: str) -> None:
    rows, vector = rows_of(case), CASES[case]["deterministic"]["TrimmedMean_1"]["vector"]
    single = trimmed(rows.astype(np.float32), 1)
    np.testing.assert_allclose(single, vector, atol=1e-6 * np.abs(rows).max())
    with jax.enable_x64(True):
        np.testing.assert_allclose(trimmed(rows, 1), vector, atol=1e-14 * np.abs(rows).max())


@settings(max_examples=15, deadline=None, derandomize=True)
@given(trim=st.integers(0, 3), seed=st.integers(0, 1000))
def test_trimmed_mean_is_scipys(trim: int, seed: int) -> None:
    rows = np.random.default_rng(seed).standard_cauchy((8, 5)).astype(np.float32)
    expected = trim_mean(rows.astype(np.float64), trim / 8, axis=0)
    np.testing.assert_allclose(trimmed(rows, trim), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("k", [*range(1, 11), NETWORK])
def test_sorting_networks_sort(k: int) -> None:
    """What sorts all zeros and ones sorts everything: Knuth, vol. 3, theorem 5.3.4Z."""
    if k <= 10:
        rows = np.arange(2**k) >> np.arange(k)[:, None] & 1
    else:
        draw = np.random.default_rng(0)
        rows = (draw.random((k, 20_000)) < draw.random(20_000)).astype(int)
    for i, j in sorting_network(k):
        assert i < j
        rows[i], rows[j] = np.minimum(rows[i], rows[j]), np.maximum(rows[i], rows[j])
    assert (np.diff(rows, axis=0) >= 0).all()


@pytest.mark.parametrize("k", [2, 3, 7, NETWORK, NETWORK + 1])
def test_trimmed_mean_is_that_of_sorted_rows(k: int) -> None:
    draw = np.random.default_rng(k)
    rows = draw.integers(-3, 4, (k, 60)).astype(np.float32)  # ties
    rows[:, :20] = draw.standard_cauchy((k, 20))
    rows[0, 40:50], rows[-1, 45:55] = np.inf, -np.inf
    rows[np.arange(k), np.arange(k) % 5 + 55] = np.nan  # in every row
    for trim in {0, 1, (k - 1) // 2} - {k // 2}:
        with np.errstate(invalid="ignore"):
            kept = np.sort(rows.astype(np.float64), axis=0)[trim : k - trim]
            expected = np.where(np.isnan(rows).any(axis=0), np.nan, kept.mean(axis=0))
        found = trimmed(rows, trim)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
        again = trimmed(rows[draw.permutation(k)], trim)
        np.testing.assert_array_equal(found, again)  # sums run in the values' order


def test_trimmed_mean_at_the_edges() -> None:
    rows = np.asarray([[1.0, np.nan], [2.0, 1.0], [np.inf, 1.0], [4.0, 1.0]], np.float32)
    np.testing.assert_array_equal(trimmed(rows, 1), [3.0, np.nan])
    half = trimmed(jnp.asarray([[1.0], [2.0], [300.0], [2.03125]], jnp.bfloat16), 1)
    assert half.dtype == jnp.bfloat16
    np.testing.assert_array_equal(half.astype(jnp.float32), [2.015625])
    np.testing.assert_array_equal(trimmed([[3.0, -4.0]], 0), [3.0, -4.0])
    with pytest.raises(ValueError, match="trim=1 drops 2 of num_tasks=2 values and leaves none"):
        jmtl.trimmed_mean(2)
    with pytest.raises(ValueError, match=r"trim must be a whole number >= 0, got 0\.5"):
        jmtl.trimmed_mean(4, trim=0.5)  # type: ignore[arg-type]


def krum_weights(rows: Any, **options: int) -> np.ndarray:
    rows = jnp.asarray(rows)
    method = jmtl.krum(len(rows), **options)
    weigh = jax.jit(lambda r: method.update(Seen(jnp.ones(len(r)), jmtl.gramian(r)), ())[0].weights)
    return np.asarray(weigh(rows))


def plain_scores(rows: np.ndarray, neighbours: int) -> np.ndarray:
    squares = np.sum((rows[:, None] - rows[None]) ** 2, axis=2)
    return np.asarray(
        [np.sort(np.delete(line, i))[:neighbours].sum() for i, line in enumerate(squares)]
    )


@pytest.mark.parametrize(("byzantine", "selected"), [(0, 1), (1, 2), (3, 3)])
def test_krum_is_the_papers_score(byzantine: int, selected: int) -> None:
    k = 6
    draw = np.random.default_rng(byzantine)
    rows = draw.normal(size=(100, k, 4)) * np.geomspace(0.3, 3, k)[:, None]
    expected = np.zeros((100, k))
    clear = np.zeros(100, bool)
    for i, one in enumerate(rows):
        plain = plain_scores(one, k - byzantine - 2)
        order = np.argsort(plain)
        expected[i, order[:selected]] = 1 / selected
        # Neighbours are mutual, so with one of them the two best scores tie.
        clear[i] = plain[order[selected]] - plain[order[selected - 1]] > 1e-4 * plain.max()
    assert clear.sum() > 50
    method = jmtl.krum(k, byzantine, selected)
    weigh = jax.jit(
        jax.vmap(lambda r: method.update(Seen(jnp.ones(k), jmtl.gramian(r)), ())[0].weights)
    )
    for scale in (1e-25, 1e-12, 1.0, 1e12, 1e25):
        found = np.asarray(weigh((scale * rows).astype(np.float32)))
        np.testing.assert_allclose(found[clear], expected[clear], rtol=1e-6)


def test_krum_leaves_the_outlier() -> None:
    rows = np.asarray([[1.0, 0.0], [1e6, 1e6], [1.0, 0.1], [0.9, 0.0]], np.float32)
    weights = krum_weights(rows, byzantine=1, selected=3)
    np.testing.assert_allclose(weights, [1 / 3, 0, 1 / 3, 1 / 3], rtol=1e-6)
    # Small rows are told apart beside one that is 1e30 times as long.
    rows = np.asarray([[5e-30, 0], [0, 5e-30], [4e-30, 1e-30], [1.0, 0]], np.float32)
    np.testing.assert_array_equal(krum_weights(rows, byzantine=1), [1, 0, 0, 0])


def test_krum_at_the_edges() -> None:
    np.testing.assert_array_equal(krum_weights(np.zeros((4, 2), np.float32)), [1, 0, 0, 0])
    np.testing.assert_array_equal(krum_weights(np.ones((4, 2), np.float32)), [1, 0, 0, 0])
    rows = np.ones((4, 2), np.float32)
    rows[2, 1] = np.nan
    assert np.isnan(krum_weights(rows)).all()
    with pytest.raises(ValueError, match="krum: byzantine=1 needs num_tasks >= 4, got 3"):
        jmtl.krum(3, byzantine=1)
    with pytest.raises(ValueError, match="krum: selected=4 of num_tasks=3 rows: give at most 3"):
        jmtl.krum(3, selected=4)
    with pytest.raises(ValueError, match="krum: selected must be a whole number >= 1, got 0"):
        jmtl.krum(3, selected=0)
    with pytest.raises(ValueError, match="krum: byzantine must be a whole number >= 0, got True"):
        jmtl.krum(5, byzantine=True)


def test_krum_under_vmap_and_permutation() -> None:
    rows = np.random.default_rng(3).normal(size=(5, 5, 6)).astype(np.float32)
    method = jmtl.krum(5)
    weigh = lambda r: method.update(Seen(jnp.ones(5), jmtl.gramian(r)), ())[0].weights
    together, alone = jax.jit(jax.vmap(weigh)), jax.jit(weigh)
    found = together(rows)
    np.testing.assert_array_equal(found, [alone(r) for r in rows])
    order = np.asarray([2, 0, 3, 1, 4])
    np.testing.assert_array_equal(together(rows[:, order]), np.asarray(found)[:, order])
