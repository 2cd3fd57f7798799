"""The projection on the simplex against bisection in float64, and at its edges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmtl.solvers.simplex import project_on_simplex
from tests.methods.recurrences import on_simplex

project = jax.jit(project_on_simplex)
many = jax.jit(jax.vmap(project_on_simplex))


@pytest.mark.parametrize("scale", [1e-6, 0.1, 1.0, 30.0])
def test_random_points(scale: float) -> None:
    points = scale * np.random.default_rng(0).normal(size=(200, 7))
    found = many(jnp.asarray(points, jnp.float32))
    np.testing.assert_allclose(found, [on_simplex(p) for p in points], atol=1e-6 * max(1, scale))
    np.testing.assert_allclose(np.sum(found, axis=1), 1, atol=1e-6)
    assert np.min(found) >= 0
    np.testing.assert_allclose(found[3], project(jnp.asarray(points[3], jnp.float32)), atol=1e-7)


def test_in_double_precision() -> None:
    points = np.random.default_rng(1).normal(size=(50, 5))
    with jax.enable_x64(True):
        found = many(jnp.asarray(points))
        assert found.dtype == jnp.float64
    np.testing.assert_allclose(found, [on_simplex(p) for p in points], atol=1e-14)


@pytest.mark.parametrize(
    ("point", "expected"),
    [
        ([5.0], [1.0]),
        ([0.2, 0.3, 0.5], [0.2, 0.3, 0.5]),
        ([1e10, 1e10, 1e10], [1 / 3, 1 / 3, 1 / 3]),
        ([-3e7, -3e7, -3e7, -4e7, -3e7, -5e7, -3e7], [0.2, 0.2, 0.2, 0, 0.2, 0, 0.2]),
        ([1e30, 0.0, -1e30], [1.0, 0.0, 0.0]),
        ([0.5, -np.inf, 0.1], [0.7, 0.0, 0.3]),
    ],
)
def test_closed_forms(point: list[float], expected: list[float]) -> None:
    np.testing.assert_allclose(project(jnp.asarray(point)), expected, rtol=1e-6, atol=1e-7)


def test_nan_shows() -> None:
    assert np.isnan(project(jnp.asarray([0.1, np.nan, 0.2]))).all()
    assert np.isnan(project(jnp.asarray([0.1, np.inf, 0.2]))).any()
