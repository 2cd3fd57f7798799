"""Equal angles and equal projections against float64 pseudo-inverses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmtl.solvers.equal_angles import at_angles, equal_projections
from tests.solvers.families import draw, fresh_seed, gramian, rounded_gramians
from tests.solvers.kept import Check

EPS = float(np.finfo(np.float32).eps)


@jax.jit
@jax.vmap
def solve(cosine, norms):
    return at_angles(cosine, jnp.ones_like(norms)), equal_projections(cosine, norms)


def clear_rank(rows):
    """The rank of the unit rows; None where digits decide which rank is seen."""
    values = np.linalg.svd(rows / np.linalg.norm(rows, axis=1)[:, None])[1]
    rank = int(np.sum(values > 1e-5 * values[0]))
    return rank if values[rank - 1] ** 2 > 20 * len(rows) * EPS * values[0] ** 2 else None


def judge(problem, answer):
    rows, (angles, projections) = problem["rows"], answer
    assert np.isfinite(projections.weights).all()
    rank, size = clear_rank(rows), len(rows)
    if rank is None:
        return
    norms = np.linalg.norm(rows, axis=1)
    units = rows / norms[:, None]
    values = np.linalg.svd(units)[1]
    assert angles.rank == rank
    mass = np.sum(np.abs(angles.point))
    fitted = units @ (np.linalg.pinv(units, rcond=1e-5) @ np.ones(size))
    found = units @ (angles.point.astype(np.float64) @ units)
    error = np.max(np.abs(found - fitted))
    assert error <= 20 * EPS * (mass + values[0] ** 2 / values[rank - 1] ** 2)
    claimed = np.max(np.abs(found - 1))
    assert abs(angles.residual - claimed) <= 1e-5 + 20 * EPS * mass
    weights = projections.weights.astype(np.float64)
    if rank == size:
        assert projections.residual <= 1e-5 + 20 * EPS * mass
        level = units @ (weights @ rows)
        total = np.abs(weights) @ norms
        assert np.ptp(level) <= 20 * EPS * total * np.sqrt(size)
        np.testing.assert_allclose(weights.sum(), 1, atol=EPS * 8 * np.abs(weights).sum())
    elif norms.max() < 100 * norms.min():
        expected = np.linalg.pinv(rows @ rows.T, rcond=1e-9) @ norms
        expected = expected / expected.sum()
        error = (weights - expected) @ rows
        spread = np.linalg.cond(rows @ np.linalg.svd(rows)[2][:rank].T)
        cancelled = np.abs(expected).sum()  # Σ w = 1, and the scale itself loses this
        limit = 50 * EPS * spread**2 * cancelled**2 * norms.max()
        assert np.linalg.norm(error) <= limit


CHECK = Check("equal_angles", lambda problems: solve(*rounded_gramians(problems)), judge)


@pytest.mark.parametrize("size", [3, 8])
def test_random(size):
    problems = draw(size, 48, fresh_seed())
    CHECK.over({"rows": problems.jacobians})
    assert sum(clear_rank(rows) is not None for rows in problems.jacobians) >= 24


def test_opposite_and_zero_rows():
    for rows, rank in (([[3.0, 0.0], [-3.0, 0.0]], 1), ([[1.0, 0.0], [0.0, 0.0]], 1)):
        cosine, norms = gramian(np.asarray(rows), np.float32)
        angles, projections = solve(cosine[None], norms[None])
        assert angles.rank[0] == rank
        if rows[1][0]:
            np.testing.assert_array_equal(angles.point[0], 0)
            np.testing.assert_array_equal(projections.weights[0], 0)
            assert angles.residual[0] == projections.residual[0] == 1
        else:
            np.testing.assert_allclose(angles.point[0], [1, 0], rtol=1e-6)
            np.testing.assert_allclose(projections.weights[0], [1, 0], rtol=1e-6)
            assert projections.residual[0] <= 1e-6


def test_a_bad_lane():
    problems = draw(3, 48, 7)
    norms = problems.norms.copy()
    norms[5, 0] = np.nan
    cosine = problems.cosine.copy()
    cosine[6, 0, 1] = np.inf
    plain, found = (
        jax.tree.map(np.asarray, solve(c, n)[1])
        for c, n in ((problems.cosine, problems.norms), (cosine, norms))
    )
    kept = ~np.isin(np.arange(48), (5, 6))
    np.testing.assert_array_equal(found.weights[kept], plain.weights[kept])
    assert np.all(np.isnan(found.weights[[5, 6]]))
    assert np.all(np.isnan(found.residual[[5, 6]]))
