"""The minimum-norm point: reference values, closed forms, random problems, odd input."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmtl.solvers.min_norm import min_norm
from tests.solvers.families import draw, fresh_seed, gramian, rounded_gramians
from tests.solvers.kept import Check
from tests.solvers.references import cases_with, exact, rows_of, shortest

solve = jax.jit(min_norm)
solve_many = jax.jit(jax.vmap(min_norm))


def solve_rows(rows, dtype=np.float32):
    cosine, norms = gramian(np.asarray(rows, np.float64), dtype)
    with jax.enable_x64(dtype is np.float64):
        return jax.tree.map(np.asarray, solve(jnp.asarray(cosine), jnp.asarray(norms)))


@pytest.mark.parametrize("case", cases_with("MGDA"))
def test_reference(case):
    rows = rows_of(case)
    largest = np.linalg.norm(rows, axis=1).max()
    for dtype, limit in ((np.float32, 1e-5), (np.float64, 1e-9)):
        weights, residual = solve_rows(rows, dtype)
        assert weights.dtype == dtype
        assert residual <= limit
        error = np.asarray(weights, np.float64) @ rows - exact(case, "MGDA")
        assert np.linalg.norm(error) <= limit * largest


def judge(problem, answer):
    rows, (weights, residual) = problem["rows"], answer
    assert residual <= 1e-5
    weights = weights.astype(np.float64)
    np.testing.assert_allclose(weights.sum(), 1.0, atol=1e-5)
    assert weights.min() >= 0
    largest = np.linalg.norm(rows, axis=1).max() ** 2
    found, best = weights @ rows, shortest(rows)
    assert abs(found @ found - best @ best) <= 1e-5 * largest


CHECK = Check("min_norm", lambda problems: solve_many(*rounded_gramians(problems)), judge)


def check_random(size, count):
    CHECK.over({"rows": draw(size, count, fresh_seed()).jacobians})


@pytest.mark.parametrize("size", [2, 3, 8, 40])
def test_random(size):
    check_random(size, 48)


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 3, 5, 8, 13, 20, 30, 40])
def test_random_many(size):
    check_random(size, 250)


def test_two_tasks_in_closed_form():
    rng = np.random.default_rng(0)
    for ratio in (1.0, 1e-3, 1e-6):
        rows = rng.normal(size=(2, 5)) * np.array([[1.0], [ratio]])
        rows[1] -= rows[0] * ratio  # so that neither end is the answer
        difference = rows[1] - rows[0]
        first = np.clip(difference @ rows[1] / (difference @ difference), 0.0, 1.0)
        weights, _ = solve_rows(rows)
        np.testing.assert_allclose(weights, [first, 1 - first], rtol=2e-5)


def test_antiparallel_rows():
    weights, residual = solve_rows([[3.0, 0.0], [-1.0, 0.0]])
    np.testing.assert_allclose(weights, [0.25, 0.75], rtol=1e-6)
    assert residual <= 1e-6


def test_equal_rows():
    weights, residual = solve_rows([[1.0, 2.0]] * 4)
    assert np.all(np.asarray(weights) >= 0)
    np.testing.assert_allclose(weights.sum(), 1.0, rtol=1e-6)
    assert residual <= 1e-6


def test_zero_rows_take_all_weight():
    weights, residual = solve_rows([[1.0, 2.0], [0.0, 0.0], [0.0, 3.0], [0.0, 0.0]])
    np.testing.assert_array_equal(weights, [0.0, 0.5, 0.0, 0.5])
    assert residual == 0
    weights, _ = solve_rows(np.zeros((3, 2)))
    np.testing.assert_allclose(weights, np.full(3, 1 / 3), rtol=1e-6)


def test_one_task():
    weights, residual = solve_rows([[3.0, 4.0]])
    np.testing.assert_array_equal(weights, [1.0])
    assert residual <= 1e-6


def test_scale_free():
    problems = draw(8, 48, 7)

    def update(weights):
        return np.einsum("bk,bkn->bn", np.asarray(weights, np.float64), problems.jacobians)

    weights, _ = solve_many(problems.cosine, problems.norms)
    # Where the hull holds 0 many weights give it, and rounding picks among them.
    lengths = np.linalg.norm(update(weights), axis=1)
    determined = lengths > 1e-4 * problems.norms.min(axis=1)
    assert 12 < determined.sum() < 48
    for scale in (1e-12, 1e12):  # rounds the norms
        scaled, residual = solve_many(problems.cosine, problems.norms * np.float32(scale))
        np.testing.assert_allclose(scaled[determined], weights[determined], rtol=0, atol=1e-5)
        moved = np.linalg.norm(update(scaled) - update(weights), axis=1)
        assert np.max(moved / problems.norms.max(axis=1)) <= 2e-6
        assert np.max(residual) <= 1e-5
    for scale in (2.0**-40, 2.0**40):  # does not
        scaled, _ = solve_many(problems.cosine, problems.norms * np.float32(scale))
        np.testing.assert_array_equal(scaled, weights)


def test_vmap_and_a_bad_lane():
    problems = draw(8, 48, 3)
    alone = [solve(c, n) for c, n in zip(problems.cosine, problems.norms, strict=True)]
    norms = problems.norms.copy()
    norms[5, 2] = np.nan
    weights, residual = solve_many(problems.cosine, norms)
    for lane in range(48):
        if lane == 5:
            assert np.all(np.isnan(weights[lane]))
            assert np.isnan(residual[lane])
        else:
            np.testing.assert_allclose(weights[lane], alone[lane].weights, rtol=1e-3, atol=1e-6)
            rows = problems.jacobians[lane]
            both = np.stack([weights[lane], alone[lane].weights]).astype(np.float64) @ rows
            np.testing.assert_allclose(both[0], both[1], atol=1e-6 * norms[lane].max())
