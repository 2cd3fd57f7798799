"""PCGrad on the Gramian against the paper's loop on explicit vectors, and how orders are drawn."""

import functools
import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

import jmtl
from jmtl.method import Seen
from jmtl.methods.pcgrad import project
from tests.methods.references import pcgrad as paper
from tests.solvers.families import gramian as exact_gramian
from tests.solvers.references import CASES, rows_of


def update_of(rows: Any, orders: Any) -> Any:
    """Σ_i of the projected gradients, through `project` on the Gramian of the rows."""
    gram = jmtl.gramian(rows)
    safe = jnp.where(gram.norms == 0, 1, gram.norms)
    coefficients = gram.norms[:, None] * project(gram, orders) / safe[None, :]
    weights = jnp.where(gram.norms == 0, 1, jnp.sum(coefficients, axis=0))
    return jmtl.combine(rows, weights)


project_all = jax.jit(jax.vmap(project, in_axes=(None, 0)))


def full_orders(k: int) -> np.ndarray:
    """`[k, (k-1)!, k]`: every order of the others for each task, itself in front."""
    return np.asarray(
        [
            [(i, *order) for order in itertools.permutations([j for j in range(k) if j != i])]
            for i in range(k)
        ]
    )


def every_combination(k: int) -> np.ndarray:
    """`[(k-1)!^k, k, k]`: every choice of an order for each task."""
    each = full_orders(k)
    choices = itertools.product(range(each.shape[1]), repeat=k)
    return np.asarray([[each[i, c] for i, c in enumerate(choice)] for choice in choices])


def jacobian(k: int, kind: str) -> np.ndarray:
    """Rows in a low dimension, so that nearly every pair conflicts somewhere on the way."""
    rows = np.random.default_rng(k).normal(size=(k, 3)) - 0.3
    if kind == "zero row":
        rows[1] = 0.0
    if kind == "ratios":
        rows *= np.geomspace(1e-3, 1e3, k)[:, None]
    if kind == "antiparallel":
        rows[-1] = -2 * rows[0]
    return rows.astype(np.float32).astype(np.float64)


@pytest.mark.parametrize("kind", ["plain", "zero row", "ratios", "antiparallel"])
@pytest.mark.parametrize("k", [2, 3, 4])
def test_all_orders_equal_the_paper(k: int, kind: str) -> None:
    rows = jacobian(k, kind)
    combinations = every_combination(k)
    gram = jmtl.gramian(jnp.asarray(rows, jnp.float32))
    units = rows / np.where(np.asarray(gram.norms) > 0, gram.norms, 1)[:, None]
    found = np.asarray(project_all(gram, combinations), np.float64)
    norms = np.asarray(gram.norms, np.float64)
    projected = norms[None, :, None] * (found @ units)
    # Task i's result depends on its own order alone: the paper's loop runs once for each.
    known: dict[tuple[int, tuple[int, ...]], np.ndarray] = {}
    for i, orders in enumerate(full_orders(k)):
        for order in orders:
            lone = np.tile(np.arange(k), (k, 1))
            lone[i] = order
            known[i, tuple(order)] = paper(rows, lone)[i]
    expected = np.asarray(
        [[known[i, tuple(order)] for i, order in enumerate(orders)] for orders in combinations]
    )
    error = np.abs(projected - expected).max(axis=(0, 2))
    assert np.all(error <= 3e-6 * np.maximum(norms, 1e-30)), error
    if (k, kind) != (2, "zero row"):
        assert np.abs(expected - rows).max() > 0.01, "nothing conflicts: the test shows nothing"


@pytest.mark.parametrize("kind", ["plain", "zero row", "ratios"])
def test_the_update_equals_the_paper(kind: str) -> None:
    rows = jacobian(4, kind)
    method = jmtl.pcgrad(4, order="fixed")
    leaf = jnp.asarray(rows, jnp.float32)
    answer, _ = method.update(Seen(jnp.ones(4), jmtl.gramian(leaf)), ())
    found = jmtl.combine(leaf, answer.weights)
    expected = paper(rows, np.tile(np.arange(4), (4, 1))).sum(0)
    largest = np.linalg.norm(rows, axis=1).max()
    np.testing.assert_allclose(found, expected, atol=3e-6 * largest)
    mean, _ = jmtl.pcgrad(4, order="fixed", reduce="mean").update(
        Seen(jnp.ones(4), jmtl.gramian(leaf)), ()
    )
    np.testing.assert_allclose(mean.weights, answer.weights / 4, rtol=1e-6)


@pytest.mark.parametrize("case", [name for name in CASES if name != "normal_8x200"])
def test_reference(case: str) -> None:
    check_reference(case)


def test_reference_of_eight_tasks() -> None:
    check_reference("normal_8x200")


def check_reference(case: str) -> None:
    rows, block = rows_of(case), CASES[case]["stochastic"]["PCGrad"]
    k = len(rows)
    largest = np.linalg.norm(rows, axis=1).max()
    for dtype, limit in ((np.float32, 1e-5), (np.float64, 1e-9)):
        with jax.enable_x64(dtype is np.float64):
            update = jax.jit(update_of)
            for name in ("ascending", "descending"):
                orders = [[i, *order] for i, order in enumerate(block[name]["orders"])]
                found = update(jnp.asarray(rows, dtype), jnp.asarray(orders, int).reshape(k, k))
                assert found.dtype == dtype
                error = np.asarray(found, np.float64) - np.asarray(block[name]["vector"])
                assert np.linalg.norm(error) <= limit * largest, (name, dtype)


@functools.cache
def compiled(k: int, order: Any, steps: int) -> Any:
    """A scan of pcgrad's updates on one Gramian; the state, which holds the key, is an argument."""
    method = jmtl.pcgrad(k, jax.random.key(0), order=order)

    @jax.jit
    def run(rows: jax.Array, state: Any) -> jax.Array:
        given = Seen(jnp.ones(k), jmtl.gramian(rows))

        def step(state: Any, _: None) -> Any:
            answer, state = method.update(given, state)
            return state, answer.weights

        return jax.lax.scan(step, state, None, length=steps)[1]

    return run


def run(rows: Any, steps: int = 1, seed: int | None = None) -> np.ndarray:
    """Weights `[steps, K]` on the same gradients; a fixed order without a seed."""
    k, order = len(rows), "fixed" if seed is None else "random"
    key = None if seed is None else jax.random.key(seed)
    state = jmtl.pcgrad(k, key, order=order).init(None)  # type: ignore[arg-type]
    return np.asarray(compiled(k, order, steps)(jnp.asarray(rows, jnp.float32), state))


def distinguishing_rows() -> np.ndarray:
    """Three tasks where the order of the two others matters for every one of them."""
    angles = np.deg2rad([0.0, 125.0, 236.0])
    return np.stack([np.cos(angles), np.sin(angles)], 1)


def test_orders_are_uniform_and_independent_between_tasks_and_steps() -> None:
    """Eight combinations of two orders for each of three tasks, all as likely, at every step."""
    rows = distinguishing_rows()
    combinations = every_combination(3)
    gram = jmtl.gramian(jnp.asarray(rows, jnp.float32))
    possible = np.asarray(project_all(gram, combinations)).sum(1) * 1.0
    gaps = np.abs(possible[:, None] - possible[None]).max(-1) + 10 * np.eye(len(possible))
    assert gaps.min() > 1e-3, "two combinations give one answer"
    steps = 4000
    weights = run(rows, steps, seed=5)
    distance = np.abs(weights[:, None] - possible[None]).max(-1)
    drawn = distance.argmin(1)
    assert distance.min(1).max() < 1e-5
    assert stats.chisquare(np.bincount(drawn, minlength=8)).pvalue > 1e-3
    pairs = np.bincount(8 * drawn[:-1] + drawn[1:], minlength=64)
    assert stats.chisquare(pairs).pvalue > 1e-3


def test_the_key_decides_the_bits() -> None:
    rows = distinguishing_rows()
    first, again, other = (run(rows, 20, seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    fixed = run(rows, 3)
    np.testing.assert_array_equal(fixed, fixed[:1].repeat(3, 0))


def test_without_conflict_it_is_the_sum() -> None:
    rows = np.abs(np.random.default_rng(0).normal(size=(5, 7)))
    np.testing.assert_array_equal(run(rows, 2, seed=0), 1.0)
    np.testing.assert_array_equal(run([[-2.0, 1.0]]), 1.0)


def test_two_opposed_tasks_in_closed_form() -> None:
    for ratio in (1.0, 1e6, 1e-6):
        rows = np.asarray([[1.0, 0.0], [-0.6, 0.8]]) * [[1.0], [ratio]]
        found = run(rows)[0]
        np.testing.assert_allclose(found, [1 + 0.6 * ratio, 1 + 0.6 / ratio], rtol=1e-6)


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1e12, 1e30])
def test_the_scale_of_all_gradients_does_not_matter(scale: float) -> None:
    rows = distinguishing_rows()
    np.testing.assert_allclose(run(rows * scale), run(rows), rtol=1e-5)


def test_nan_shows() -> None:
    rows = distinguishing_rows()
    rows[1, 0] = np.nan
    assert np.isnan(run(rows)[0, 1])


def test_project_does_not_depend_on_norms() -> None:
    cosine, norms = map(jnp.asarray, exact_gramian(distinguishing_rows(), np.float32))
    orders = jnp.tile(jnp.arange(3), (3, 1))
    one, other = (project(jmtl.Gramian(cosine, n), orders) for n in (norms, 1e3 * norms))
    np.testing.assert_array_equal(one, other)


def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match=r"needs a key, as key=jax.random.key\(0\)"):
        jmtl.pcgrad(3)
    with pytest.raises(ValueError, match="reduce must be one of sum, mean; got 'max'"):
        jmtl.pcgrad(2, reduce="max")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="order must be one of random, fixed; got 'sorted'"):
        jmtl.pcgrad(2, order="sorted")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"key must be one of jax.random.key\(seed\), got 7"):
        jmtl.pcgrad(3, key=7)  # type: ignore[arg-type]
