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
