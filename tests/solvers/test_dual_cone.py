"""Projections on the dual cone: reference values, closed forms, no conflict, odd input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmtl.solvers.dual_cone import project
from tests.solvers.families import (
    bar,
    conflict_of,
    draw,
    fresh_seed,
    gramian,
    rounded_gramians,
)
from tests.solvers.kept import Check
from tests.solvers.references import cases_with, exact, onto_dual_cone, rows_of


def both(cosine, norms):
    """UPGrad and DualProj from one call."""
    size = norms.shape[0]
    targets = jnp.concatenate([jnp.eye(size), jnp.ones((1, size))]).astype(norms.dtype) / size
    weights, residual = project(cosine, norms, targets)
    return (weights[:-1].sum(0), residual[:-1].max()), (weights[-1], residual[-1])


NAMES = ("UPGrad", "DualProj")
solve = jax.jit(both)
solve_many = jax.jit(jax.vmap(both))


def truth(rows, name):
    if name == "UPGrad":
        return np.sum([onto_dual_cone(rows, row / len(rows)) for row in rows], axis=0)
    return onto_dual_cone(rows, rows.mean(0))


def solve_rows(rows, dtype=np.float32):
    cosine, norms = gramian(np.asarray(rows, np.float64), dtype)
    with jax.enable_x64(dtype is np.float64):
        return jax.tree.map(np.asarray, solve(jnp.asarray(cosine), jnp.asarray(norms)))


@pytest.mark.parametrize("case", cases_with("UPGrad"))
def test_reference(case):
    rows = rows_of(case)
    largest = np.linalg.norm(rows, axis=1).max()
    for dtype, limit in ((np.float32, 1e-5), (np.float64, 1e-9)):
        for name, (weights, residual) in zip(NAMES, solve_rows(rows, dtype), strict=True):
            assert weights.dtype == dtype
            assert residual <= limit
            error = weights.astype(np.float64) @ rows - exact(case, name)
            assert np.linalg.norm(error) <= limit * largest, name


def judge(problem, answers):
    rows = problem["rows"]
    norms = np.linalg.norm(rows, axis=1)
    for name, (weights, residual) in zip(NAMES, answers, strict=True):
        assert residual <= 1e-5, name
        conflict, mass = conflict_of(rows, weights)
        assert conflict <= bar(mass), name
        if np.linalg.cond(rows / norms[:, None]) < 1e4:
            error = np.linalg.norm(weights.astype(np.float64) @ rows - truth(rows, name))
            assert error <= 1e-4 * norms.max(), name


CHECK = Check("dual_cone", lambda problems: solve_many(*rounded_gramians(problems)), judge)


def check_random(size, count):
    problems = draw(size, count, fresh_seed())
    answers = CHECK.over({"rows": problems.jacobians})
    for name, (weights, _) in zip(NAMES, answers, strict=True):
        pairs = zip(problems.jacobians, weights, strict=True)
        assert np.mean([conflict_of(*pair)[0] <= 1e-5 for pair in pairs]) >= 0.95, name


@pytest.mark.parametrize("size", [2, 3, 8, 40])
def test_random(size):
    check_random(size, 48 if size < 40 else 12)


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 3, 5, 8, 13, 20, 30, 40])
def test_random_many(size):
    check_random(size, 250)


def test_two_tasks_in_closed_form():
    rng = np.random.default_rng(1)
    for ratio in (1.0, 1e-3, 1e-6):
        rows = rng.normal(size=(2, 5)) * np.array([[1.0], [ratio]])
        rows[1] -= 2 * ratio * rows[0]  # conflict
        cross = rows @ rows.T
        assert cross[0, 1] < 0
        weights, _ = solve_rows(rows)[0]
        expected = 0.5 - 0.5 * cross[0, 1] / np.diag(cross)
        np.testing.assert_allclose(weights, expected, rtol=1e-5)


def test_small_row_beside_a_large_one():
    rows = np.array([[1.0, 0.0, 0.2], [-0.5, 1.0, 0.0], [-0.3, -0.2, 1.0]])
    rows[1] *= 1e-6
    for weights, residual in solve_rows(rows):
        conflict, _ = conflict_of(rows, weights)
        assert conflict <= 1e-6
        assert residual <= 1e-6


def test_without_conflict_the_targets_stay():
    for weights, residual in solve_rows([[1.0, 0.5], [0.5, 1.0], [1.0, 1.0]]):
        np.testing.assert_allclose(weights, np.full(3, 1 / 3), rtol=1e-6)
        assert residual == 0


def test_antiparallel_equal_and_zero_rows():
    for weights, residual in solve_rows([[3.0, 0.0], [-1.0, 0.0]]):
        np.testing.assert_allclose(weights @ np.array([3.0, -1.0]), 0.0, atol=1e-6)
        assert residual <= 1e-6
    for rows in ([[1.0, 2.0]] * 3, np.zeros((3, 2))):
        for weights, residual in solve_rows(rows):
            np.testing.assert_allclose(weights, np.full(3, 1 / 3), rtol=1e-6)
            assert residual == 0
    for weights, _ in solve_rows([[1.0, 0.0], [0.0, 0.0], [-1.0, 1.0]]):
        np.testing.assert_allclose(weights[1], 1 / 3, rtol=1e-6)
        assert np.all(np.isfinite(weights))


def test_one_task():
    for weights, residual in solve_rows([[3.0, 4.0]]):
        np.testing.assert_array_equal(weights, [1.0])
        assert residual == 0


def test_scale_free():
    problems = draw(8, 48, 7)
    plain = solve_many(problems.cosine, problems.norms)
    for scale in (2.0**-40, 2.0**40):
        scaled = solve_many(problems.cosine, problems.norms * np.float32(scale))
        jax.tree.map(np.testing.assert_array_equal, scaled, plain)


def test_indefinite_by_rounding_stays_finite():
    # A Gramian summed over millions of entries in float32 is off by far more than one rounding.
    rng = np.random.default_rng(2)
    problems = draw(8, 48, 9)
    noise = rng.uniform(-1, 1, size=problems.cosine.shape) * 3e-5
    noisy = problems.cosine + (noise + np.swapaxes(noise, 1, 2)).astype(np.float32)
    for weights, residual in solve_many(noisy, problems.norms):
        assert np.all(np.isfinite(weights))
        assert np.max(residual) <= 1e-3


def test_a_bad_lane_stops_at_once():
    problems = draw(8, 48, 3)
    plain = solve_many(problems.cosine, problems.norms)
    norms = problems.norms.copy()
    norms[5, 2] = np.inf
    for (weights, residual), (expected, _) in zip(
        solve_many(problems.cosine, norms), plain, strict=True
    ):
        kept = np.arange(48) != 5
        np.testing.assert_array_equal(np.asarray(weights)[kept], np.asarray(expected)[kept])
        assert np.all(np.isnan(weights[5]))
        assert np.isnan(residual[5])
