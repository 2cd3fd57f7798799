"""Measures of conflict, against their definitions on explicit vectors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jmtl
from jmtl import conflict

conflict_rate = jax.jit(conflict.conflict_rate)
magnitude_similarity = jax.jit(conflict.magnitude_similarity)


def of(rows: object) -> jmtl.Gramian:
    return jmtl.gramian(jnp.asarray(rows, jnp.float32))


def test_cosine() -> None:
    np.testing.assert_allclose(
        conflict.cosine(of([[1, 0], [1, 1], [0, 0]])),
        [[1, 0.5**0.5, 0], [0.5**0.5, 1, 0], [0, 0, 0]],
        atol=1e-7,
    )


@pytest.mark.parametrize(
    ("rows", "rate"),
    [
        ([[1.0, 0.0], [-1.0, 1.0], [0.0, 1.0]], 1 / 3),
        ([[1.0, 0.0], [-1.0, 0.0], [0.0, 0.0]], 1 / 3),
        ([[1.0, 0.0], [0.0, 1.0]], 0.0),
        ([[1e-20, 0.0], [-1e20, 0.0]], 1.0),
        ([[3.0, 1.0]], 0.0),
    ],
)
def test_conflict_rate(rows: list[list[float]], rate: float) -> None:
    np.testing.assert_allclose(conflict_rate(of(rows)), rate, rtol=1e-6)


def test_nan_shows() -> None:
    gram = of([[np.nan, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert np.isnan(conflict_rate(gram))
    similarity = np.asarray(magnitude_similarity(gram))
    np.testing.assert_array_equal(np.isnan(similarity[0]), True)
    assert np.isfinite(similarity[1:, 1:]).all()


def test_magnitude_similarity() -> None:
    found = magnitude_similarity(of([[3.0, 0.0], [0.0, 4.0], [0.0, 0.0], [0.0, 0.0]]))
    ratio = 24 / 25
    expected = np.asarray([[1, ratio, 0, 0], [ratio, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]])
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    # Where the squares of the definition would over- or underflow.
    for scale in (1e-30, 1e30):
        found = magnitude_similarity(of([[3 * scale, 0.0], [0.0, 4 * scale]]))
        np.testing.assert_allclose(found[0, 1], ratio, rtol=1e-6)


def test_condition_number_is_that_of_the_jacobian():
    rows = np.random.default_rng(0).normal(size=(4, 9)) * np.array([[1], [3], [0.2], [10]])
    found = jmtl.conflict.condition_number(jmtl.gramian(jnp.asarray(rows * 1e-15, jnp.float32)))
    np.testing.assert_allclose(found, np.linalg.cond(rows), rtol=1e-4)
    assert jmtl.conflict.condition_number(jmtl.gramian(jnp.ones((2, 3)))) == np.inf
    assert jmtl.conflict.condition_number(jmtl.gramian(jnp.ones((1, 3)))) == 1


def test_layer_conflicts_count_pairs_below_the_threshold_in_each_layer():
    grads = {
        "a": {"kernel": jnp.array([[1.0, 0], [-1, 0], [1, 0]]), "bias": jnp.zeros((3, 1))},
        "b": {"kernel": jnp.array([[1.0, 0], [-0.05, 1], [1, 0]]), "bias": jnp.zeros((3, 1))},
    }
    counts = {k: int(v) for k, v in jmtl.conflict.layer_conflicts(grads).items()}
    assert counts == {"['a']": 2, "['b']": 2}
    counts = {k: int(v) for k, v in jmtl.conflict.layer_conflicts(grads, -0.1).items()}
    assert counts == {"['a']": 2, "['b']": 0}


def test_curvature_of_cubics_in_closed_form():
    # L = Σ x³ has the Hessian diag(6x), so the integrand is linear on the way.
    def losses(x):
        return jnp.stack([x[0] ** 3, x[1] ** 3])

    old, new = jnp.array([1.0, -2.0]), jnp.array([3.0, 0.5])
    gradient, middle = 3 * old**2, (old + new) / 2
    found = jax.jit(lambda a, b: jmtl.conflict.curvature(losses, a, b, points=2))(old, new)
    np.testing.assert_allclose(found, jnp.sum(6 * middle * gradient**2), rtol=1e-5)


def test_affinity_of_quadratics_in_closed_form():
    # L_i = ½‖x − c_i‖²: a step of task i moves x by −η(x − c_i).
    centres = np.array([[0.0, 0], [1, 0], [5, 5]])
    x, rate = np.array([2.0, 1.0]), 0.1

    def losses(shared, tasks):
        return tuple(0.5 * jnp.sum((shared - c) ** 2) for c in tasks)

    found = jmtl.conflict.affinity(losses, jnp.asarray(x), jnp.asarray(centres), learning_rate=rate)
    value = lambda x: 0.5 * ((x - centres) ** 2).sum(1)
    expected = [1 - value(x - rate * (x - c)) / value(x) for c in centres]
    np.testing.assert_allclose(found, expected, rtol=1e-5)
