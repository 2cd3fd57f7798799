"""CAGrad's problem: reference values, its dual by nnls, stationarity, odd input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jmtl
from jmtl.solvers.cagrad import conflict_averse
from tests.solvers.families import (
    bar,
    conflict_of,
    draw,
    fresh_seed,
    gramian,
    rounded_gramians,
)
from tests.solvers.kept import Check
from tests.solvers.references import cases_with, exact, most_served, rows_of

RADII = (0.2, 0.4, 0.5, 1.0)
EPS = float(np.finfo(np.float32).eps)
SPREAD = np.asarray((0.2, 0.5, 1.0, 3.0), np.float32)
solve = jax.jit(jax.vmap(conflict_averse, in_axes=(None, None, 0)))
solve_many = jax.jit(jax.vmap(jax.vmap(conflict_averse, in_axes=(None, None, 0)), (0, 0, None)))


def solve_rows(rows, radii=RADII, dtype=np.float32):
    cosine, norms = gramian(np.asarray(rows, np.float64), dtype)
    with jax.enable_x64(dtype is np.float64):
        found = solve(jnp.asarray(cosine), jnp.asarray(norms), jnp.asarray(radii, dtype))
        return jax.tree.map(np.asarray, found)


@pytest.mark.parametrize("case", cases_with("CAGrad_c0.5"))
def test_reference(case):
    rows = rows_of(case)
    largest = np.linalg.norm(rows, axis=1).max()
    for dtype, limit in ((np.float32, 1e-5), (np.float64, 1e-9)):
        weights, residual = solve_rows(rows, dtype=dtype)
        assert weights.dtype == dtype
        assert np.max(residual) <= limit
        for c, row_weights in zip(RADII, weights, strict=True):
            error = row_weights.astype(np.float64) @ rows - exact(case, f"CAGrad_c{c:g}")
            assert np.linalg.norm(error) <= limit * largest, c


def judge(problem, answer):
    rows, (all_weights, residuals) = problem["rows"], answer
    norms = np.linalg.norm(rows, axis=1)
    mean = rows.mean(0)
    all_weights = all_weights.astype(np.float64)
    for c, row_weights, residual in zip(SPREAD.astype(float), all_weights, residuals, strict=True):
        assert residual <= 1e-5, c
        update = row_weights @ rows
        best, _ = most_served(rows, c)
        conflict, mass = conflict_of(rows, row_weights)
        limit = bar(mass)
        served = np.min(rows @ update)
        assert abs(served - best) <= limit * norms.max() ** 2, c
        radius = c * np.linalg.norm(mean) / norms.max()
        excess = np.linalg.norm(update - mean) / norms.max() - radius
        # Where weights cancel, a square of the radius has the digits of a square of their mass.
        assert excess <= max(limit, 3 * EPS * mass**2 / radius if mass > 2 else 0), c
        if c >= 1:
            assert conflict <= limit, c


CHECK = Check("cagrad", lambda problems: solve_many(*rounded_gramians(problems), SPREAD), judge)


def check_random(size, count):
    CHECK.over({"rows": draw(size, count, fresh_seed()).jacobians})


@pytest.mark.parametrize("size", [2, 3, 8, 40])
def test_random(size):
    check_random(size, 48 if size < 40 else 12)


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 3, 5, 8, 13, 20, 30, 40])
def test_random_many(size):
    check_random(size, 250 if size < 30 else 100)


def test_radius_zero_is_the_mean():
    weights, residual = solve_rows([[1.0, 0.3], [-0.8, 0.4]], radii=(0.0,))
    np.testing.assert_array_equal(weights[0], [0.5, 0.5])
    assert residual[0] == 0


def test_radius_without_bound_turns_to_the_minimum_norm():
    rows = np.array([[1.0, 0.3, 0.0], [-0.8, 0.4, 0.1], [0.1, 0.5, -0.6]])
    update = solve_rows(rows, radii=(1e4,))[0][0] @ rows
    along = rows @ (update / np.linalg.norm(update))
    np.testing.assert_allclose(along[along < along.min() + 1e-2], along.min(), rtol=1e-3)


def test_one_task_and_equal_rows():
    weights, residual = solve_rows([[3.0, 4.0]])
    np.testing.assert_allclose(weights[:, 0], 1 + np.asarray(RADII), rtol=1e-6)
    assert np.max(residual) <= 1e-6
    weights, _ = solve_rows([[3.0, 4.0]] * 3)
    np.testing.assert_allclose(weights.sum(1), 1 + np.asarray(RADII), rtol=1e-6)


def test_zero_in_the_hull():
    # c < 1 cannot reach a gain of 0 here and goes a way; c = 1 gives the nearest without conflict.
    rows = np.array([[3.0, 0.0], [-1.0, 0.0]])
    weights, residual = solve_rows(rows)
    updates = weights @ rows
    np.testing.assert_allclose(updates[:, 0], 1 - np.asarray(RADII), atol=1e-6)
    assert np.max(residual) <= 1e-6
    # A zero row: μ ≤ 0, so the mean stays where it does not conflict.
    weights, _ = solve_rows([[1.0, 0.0], [0.0, 0.0], [1.0, 1.0]])
    np.testing.assert_allclose(weights, np.full((4, 3), 1 / 3), rtol=1e-6)
    weights, residual = solve_rows(np.zeros((3, 2)))
    np.testing.assert_allclose(weights, np.full((4, 3), 1 / 3), rtol=1e-6)
    assert np.max(residual) == 0


def test_scale_free_and_a_bad_lane():
    problems = draw(8, 48, 7)
    plain = solve_many(problems.cosine, problems.norms, SPREAD)
    for scale in (2.0**-40, 2.0**40):
        scaled = solve_many(problems.cosine, problems.norms * np.float32(scale), SPREAD)
        jax.tree.map(np.testing.assert_array_equal, scaled, plain)
    cosine = problems.cosine.copy()
    cosine[5, 0, 1] = np.nan
    weights, residual = solve_many(cosine, problems.norms, SPREAD)
    kept = np.arange(48) != 5
    np.testing.assert_array_equal(np.asarray(weights)[kept], np.asarray(plain.weights)[kept])
    assert np.all(np.isnan(weights[5]))
    assert np.all(np.isnan(residual[5]))


def test_hull_through_zero_on_large_tasks_alone():
    # The minimum-norm point rested on large tasks, and rounding hid the small ones: g₀ came back.
    # It takes all of these tasks, and the rounding of the Gramian in float32.
    rows = draw(40, 24, 846201597).jacobians[22]
    seen = jmtl.gramian(jnp.asarray(rows, jnp.float32))
    weights, residual = jax.jit(conflict_averse)(*seen, 1.0)
    conflict, mass = conflict_of(rows, np.asarray(weights, np.float64))
    assert residual <= 1e-5
    assert conflict <= bar(mass)
