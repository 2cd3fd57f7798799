"""Spectral balancing: reference values, float64 eigenpairs, odd input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmtl.solvers.spectral import balance
from tests.solvers.families import draw, fresh_seed, gramian, rounded_gramians
from tests.solvers.kept import Check
from tests.solvers.references import CASES, cases_with, rows_of

SCALES = ("min", "median", "rmse")


@jax.jit
def solve(cosine, norms, preference):
    return [balance(cosine, norms, preference, scale) for scale in SCALES]


solve_many = jax.jit(jax.vmap(lambda c, n: balance(c, n, jnp.ones_like(n) / n.shape[0])))


def solve_rows(rows, preference=None, dtype=np.float32):
    rows = np.asarray(rows, np.float64)
    cosine, norms = gramian(rows, dtype)
    if preference is None:
        preference = np.full(len(rows), 1 / len(rows))
    with jax.enable_x64(dtype is np.float64):
        found = solve(jnp.asarray(cosine), jnp.asarray(norms), jnp.asarray(preference, dtype))
        return jax.tree.map(np.asarray, found)


@pytest.mark.parametrize("case", cases_with("AlignedMTL", "deterministic"))
def test_reference(case):
    rows, values = rows_of(case), CASES[case]["deterministic"]
    largest = np.linalg.norm(rows, axis=1).max()
    names = ("AlignedMTL", "AlignedMTL_median", "AlignedMTL_rmse")
    for dtype, limit in ((np.float32, 1e-5), (np.float64, 1e-9)):
        for name, (weights, residual) in zip(names, solve_rows(rows, dtype=dtype), strict=True):
            assert weights.dtype == dtype
            assert residual <= limit
            error = weights.astype(np.float64) @ rows - np.asarray(values[name]["vector"])
            assert np.linalg.norm(error) <= limit * largest, name
        preferred = values["AlignedMTL_pref"]
        weights, _ = solve_rows(rows, preferred["params"]["pref_vector"], dtype)[0]
        error = weights.astype(np.float64) @ rows - np.asarray(preferred["vector"])
        assert np.linalg.norm(error) <= limit * largest


def test_balanced_rows_are_orthogonal_and_equally_long():
    rows = np.random.default_rng(0).normal(size=(4, 9)) * np.array([[1.0], [3.0], [0.1], [2.0]])
    balanced = np.stack([solve_rows(rows, unit)[0][0] for unit in np.eye(4)]) @ rows
    largest, *_, smallest = np.linalg.svd(rows)[1]
    # A float32 Gramian knows its smallest eigenvalue to eps times the largest.
    limit = np.finfo(np.float32).eps * largest**2
    assert limit < 0.01 * smallest**2
    np.testing.assert_allclose(balanced @ balanced.T, np.eye(4) * smallest**2, atol=limit)


def judge(problem, answer):
    rows, (weights, residual) = problem["rows"], answer
    assert residual <= 1e-5
    left, values, _ = np.linalg.svd(rows, full_matrices=False)
    if values[0] < 50 * values[-1]:  # elsewhere eigenvalues lie near the cut, and digits decide
        target = left.T @ np.full(len(rows), 1 / len(rows))
        error = (weights.astype(np.float64) - left @ (values[-1] / values * target)) @ rows
        assert np.linalg.norm(error) <= 1e-3 * np.linalg.norm(rows, axis=1).max()


CHECK = Check("spectral", lambda problems: solve_many(*rounded_gramians(problems)), judge)


@pytest.mark.parametrize("size", [2, 8, 40])
def test_random(size):
    CHECK.over({"rows": draw(size, 48, fresh_seed()).jacobians})


def test_odd_input():
    for weights, residual in solve_rows(np.zeros((3, 2))):
        np.testing.assert_allclose(weights, np.full(3, 1 / 3), rtol=1e-6)
        assert residual == 0
    for weights, _ in solve_rows([[3.0, 4.0]]):
        np.testing.assert_allclose(weights, [1.0], rtol=1e-6)
    for rows in ([[1.0, 2.0]] * 3, [[3.0, 0.0], [-1.0, 0.0]], [[1.0, 0.0], [0.0, 0.0]]):
        for weights, residual in solve_rows(rows):
            assert np.all(np.isfinite(weights))
            assert residual <= 1e-6


def test_scale_free_and_a_bad_lane():
    problems = draw(8, 48, 7)
    plain = solve_many(problems.cosine, problems.norms)
    for scale in (2.0**-40, 2.0**40):
        scaled = solve_many(problems.cosine, problems.norms * np.float32(scale))
        jax.tree.map(np.testing.assert_array_equal, scaled, plain)
    norms = problems.norms.copy()
    norms[5, 0] = np.nan
    weights, residual = solve_many(problems.cosine, norms)
    kept = np.arange(48) != 5
    np.testing.assert_array_equal(np.asarray(weights)[kept], np.asarray(plain.weights)[kept])
    assert np.all(np.isnan(weights[5]))
    assert np.isnan(residual[5])


def test_unknown_scale_is_refused():
    with pytest.raises(ValueError, match="'max'; choose one of min, median, rmse"):
        balance(jnp.eye(2), jnp.ones(2), jnp.ones(2), "max")  # type: ignore[arg-type]
