"""The fair weights: reference values, the equation itself, stationarity, odd input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmtl.solvers.power_root import power_root
from tests.solvers.families import draw, fresh_seed, gramian, rounded_gramians
from tests.solvers.kept import Check
from tests.solvers.references import CASES, cases_with, rows_of, shortest

EXPONENTS = (1.0, 2.0)
EPS = float(np.finfo(np.float32).eps)
solve = jax.jit(jax.vmap(power_root, in_axes=(None, None, 0)))
solve_many = jax.jit(jax.vmap(jax.vmap(power_root, in_axes=(None, None, 0)), (0, 0, None)))


def solve_rows(rows, exponents=EXPONENTS, dtype=np.float32):
    cosine, norms = gramian(np.asarray(rows, np.float64), dtype)
    with jax.enable_x64(dtype is np.float64):
        found = solve(jnp.asarray(cosine), jnp.asarray(norms), jnp.asarray(exponents, dtype))
        return jax.tree.map(np.asarray, found)


@pytest.mark.parametrize("case", cases_with("FairGrad_a1", "deterministic"))
def test_reference(case):
    rows = rows_of(case)
    largest = np.linalg.norm(rows, axis=1).max()
    for dtype, limit in ((np.float32, 1e-5), (np.float64, 1e-9)):
        weights, residual = solve_rows(rows, dtype=dtype)
        assert weights.dtype == dtype
        assert np.max(residual) <= 1e-4
        for name, row_weights in zip(("FairGrad_a1", "FairGrad_a2"), weights, strict=True):
            expected = np.asarray(CASES[case]["deterministic"][name]["vector"])
            error = row_weights.astype(np.float64) @ rows - expected
            assert np.linalg.norm(error) <= limit * largest, name


def judge(problem, answer):
    rows = problem["rows"]
    norms = np.linalg.norm(rows, axis=1)
    depth = np.linalg.norm(shortest(rows / norms[:, None]))
    product = rows @ rows.T
    assert np.all(answer.weights > 0)
    all_weights = answer.weights.astype(np.float64)
    for exponent, alpha, claimed in zip(EXPONENTS, all_weights, answer.residual, strict=True):
        root = alpha ** (1 / exponent)
        error = np.max(np.abs((product @ alpha) * root - 1))
        # The terms of one sum over the sum: α in float32 keeps the equation to EPS times this.
        cancelled = np.max((np.abs(product) @ alpha) * root)
        if depth > 1e-3:
            assert error <= max(1e-4, 8 * EPS * cancelled), (exponent, depth)
            assert abs(claimed - error) <= max(1e-5, 8 * EPS * cancelled)
        elif depth < 1e-6:
            # No solution exists: the answer says so, and its update is that of none.
            assert claimed >= 0.5
            if exponent == 1:
                assert np.linalg.norm(alpha @ rows) <= np.sqrt(len(rows))
        if exponent == 1 and depth > 0.05:
            assert error <= 1e-4, depth


CHECK = Check(
    "power_root",
    lambda problems: solve_many(*rounded_gramians(problems), np.asarray(EXPONENTS, np.float32)),
    judge,
)


def check_random(size, count):
    CHECK.over({"rows": draw(size, count, fresh_seed()).jacobians})


@pytest.mark.parametrize("size", [2, 3, 8, 40])
def test_random(size):
    check_random(size, 48)


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 3, 5, 8, 13, 20, 30, 40])
def test_random_many(size):
    check_random(size, 250)


def test_orthogonal_rows_in_closed_form():
    rows = np.diag([1e-6, 1.0, 30.0])
    weights, residual = solve_rows(rows, exponents=(0.5, 1.0, 2.0, 8.0))
    for exponent, alpha in zip((0.5, 1.0, 2.0, 8.0), weights, strict=True):
        power = 1 / exponent
        np.testing.assert_allclose(alpha, np.diag(rows) ** (-2 / (1 + power)), rtol=2e-5)
    assert np.max(residual) <= 1e-4


def test_two_tasks_follow_the_bisector():
    rows = np.array([[1.0, 0.2, 0.0], [-30.0, 40.0, 7.0]])
    update = solve_rows(rows)[0][0] @ rows
    bisector = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).sum(0)
    np.testing.assert_allclose(
        update / np.linalg.norm(update), bisector / np.linalg.norm(bisector), atol=1e-6
    )


def test_one_task_and_equal_rows():
    weights, residual = solve_rows([[3.0, 4.0]], exponents=(1.0,))
    np.testing.assert_allclose(weights, [[0.2]], rtol=1e-6)
    assert residual[0] <= 1e-6
    weights, _ = solve_rows([[3.0, 4.0]] * 4, exponents=(1.0,))
    np.testing.assert_allclose(weights, np.full((1, 4), 0.1), rtol=1e-5)


def test_zero_rows_weigh_nothing():
    weights, residual = solve_rows([[3.0, 4.0], [0.0, 0.0]], exponents=(1.0,))
    np.testing.assert_allclose(weights, [[0.2, 0.0]], rtol=1e-6)
    assert residual[0] >= 1
    weights, residual = solve_rows(np.zeros((3, 2)))
    np.testing.assert_array_equal(weights, np.zeros((2, 3)))
    assert np.all(residual >= 1)


def test_antiparallel_rows_have_no_solution():
    rows = np.array([[3.0, 0.0], [-1.0, 0.0]])
    weights, residual = solve_rows(rows)
    assert np.all(np.isfinite(weights))
    assert np.all(residual >= 0.5)
    assert np.all(np.abs(weights @ rows) <= 0.1)


def test_scale_free_and_a_bad_lane():
    problems = draw(8, 48, 7)
    exponents = np.asarray(EXPONENTS, np.float32)
    plain = solve_many(problems.cosine, problems.norms, exponents)
    for scale in (2.0**-40, 2.0**40):
        scaled = solve_many(problems.cosine, problems.norms * np.float32(scale), exponents)
        shrink = np.float32(scale) ** (-2 / (1 + 1 / exponents))
        np.testing.assert_allclose(scaled.weights / shrink[None, :, None], plain.weights, rtol=1e-5)
    norms = problems.norms.copy()
    norms[5, 0] = np.nan
    weights, residual = solve_many(problems.cosine, norms, exponents)
    kept = np.arange(48) != 5
    np.testing.assert_array_equal(np.asarray(weights)[kept], np.asarray(plain.weights)[kept])
    assert np.all(np.isnan(weights[5]))
    assert np.all(np.isnan(residual[5]))
