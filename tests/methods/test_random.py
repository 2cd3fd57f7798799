from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jmtl
from jmtl.method import Seen
from tests.methods.scalarizers import PRECISIONS, REFERENCE, run


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
def test_the_reference_for_given_draws(
    dtype: Any, tolerance: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    with jax.enable_x64(dtype is np.float64):
        for case in REFERENCE["cases"].values():
            given = case["stochastic"]["Random"]
            rows = np.asarray(case["J"])
            draw = jnp.asarray(given["z"], dtype)
            monkeypatch.setattr(jax.random, "normal", lambda key, shape, z=draw: z)
            transform = jmtl.aggregator(jmtl.random(len(rows), key=jax.random.key(0)))
            stack = jnp.asarray(rows, dtype)
            update, state = transform.update(stack, transform.init(stack[0]))
            largest = np.linalg.norm(rows, axis=1).max()
            np.testing.assert_allclose(update, given["vector"], atol=tolerance * largest)
            np.testing.assert_allclose(jnp.sum(state.weights), 1, atol=tolerance)


def draws(distribution: Any, steps: int, k: int = 3) -> np.ndarray:
    method = jmtl.random(k, key=jax.random.key(3), distribution=distribution)

    def step(state: Any, _: None) -> Any:
        answer, state = method.update(Seen(None), state)
        return state, answer.weights

    start = method.init(jnp.ones(2))
    return np.asarray(jax.jit(lambda: jax.lax.scan(step, start, None, length=steps))()[1])


def test_dirichlet_is_uniform_on_the_simplex() -> None:
    """Each weight of K is Beta(1, K − 1): 1 − (1 − w)^{K−1} is uniform in [0, 1]."""
    weights = draws("dirichlet", 4000)
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-5)
    uniform = np.sort(1 - (1 - weights) ** 2, axis=0)
    gap = np.abs(uniform - np.linspace(0, 1, len(uniform))[:, None]).max()
    assert gap < 1.95 / np.sqrt(len(uniform))  # Kolmogorov's bound at 0.1 %


def test_normal_is_a_softmax_of_normals() -> None:
    """log(w_i / w_j) is normal with variance 2."""
    weights = draws("normal", 4000)
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=1e-5)
    ratio = np.log(weights[:, 0] / weights[:, 1])
    assert abs(ratio.mean()) < 4 * np.sqrt(2 / len(ratio))
    assert abs(ratio.var() - 2) < 4 * 2 * np.sqrt(2 / len(ratio))


def test_steps_differ_and_repeat_with_the_key() -> None:
    losses = np.ones((3, 4))
    one, _ = run(jmtl.random(4, key=jax.random.key(1)), losses)
    same, _ = run(jmtl.random(4, key=jax.random.key(1)), losses)
    other, _ = run(jmtl.random(4, key=jax.random.key(2)), losses)
    np.testing.assert_array_equal(one, same)
    assert len(np.unique(np.concatenate([one, other])[:, 0])) == 6


def test_a_key_is_needed() -> None:
    with pytest.raises(ValueError, match=r"random needs a key, as key=jax\.random\.key"):
        jmtl.random(2)
    with pytest.raises(ValueError, match="distribution must be one of normal, dirichlet"):
        jmtl.random(2, key=jax.random.key(0), distribution="uniform")  # type: ignore[arg-type]
