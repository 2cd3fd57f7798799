import itertools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.special import softmax

import jmtl
from jmtl.method import Seen
from tests.methods.scalarizers import PRECISIONS, VALUES, Adam, calls, weights_of


def pairs(
    method: jmtl.Method, losses: np.ndarray, dtype: Any = np.float32
) -> tuple[np.ndarray, np.ndarray]:
    """Weights and ξ after each step, the next row being the losses after the update."""
    state = method.init(jnp.ones(2, dtype))
    assert method.observe is not None
    weights, logits = [], []
    for before, after in itertools.pairwise(losses):
        answer, state = method.update(Seen(jnp.asarray(before, dtype)), state)
        state = method.observe(jnp.asarray(before, dtype), jnp.asarray(after, dtype), state)
        weights.append(np.asarray(answer.weights))
        logits.append(np.asarray(state.xi))
    return np.stack(weights), np.stack(logits)


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
def test_the_reference(dtype: Any, tolerance: float) -> None:
    with jax.enable_x64(dtype is np.float64):
        weights, logits = pairs(jmtl.famo(4), VALUES, dtype)
    assert weights.dtype == logits.dtype == dtype
    np.testing.assert_allclose(weights, calls("FAMO", "grad"), rtol=10 * tolerance)
    np.testing.assert_allclose(logits, calls("FAMO", "w_after_update"), atol=tolerance)


def test_the_recurrence_with_a_decay_inside_the_gradient() -> None:
    """γ large enough to tell Adam's decay from AdamW's, and lower bounds below the losses."""
    bounds, epsilon, gamma, rate = np.asarray([-1.0, 0.0, 0.1, 0.15]), 0.05, 0.5, 0.1
    method = jmtl.famo(4, learning_rate=rate, gamma=gamma, bounds=bounds, epsilon=epsilon)
    weights, logits = pairs(method, VALUES)
    xi, adam = np.zeros(4), Adam()
    gaps = VALUES - bounds + epsilon
    for t in range(len(VALUES) - 1):
        z = softmax(xi)
        np.testing.assert_allclose(weights[t], z / gaps[t] / np.sum(z / gaps[t]), rtol=1e-4)
        jacobian = np.diag(z) - np.outer(z, z)
        slope = jacobian.T @ (np.log(gaps[t]) - np.log(gaps[t + 1])) + gamma * xi
        change, adam = adam.step(slope, rate)
        xi = xi + change
        np.testing.assert_allclose(logits[t], xi, atol=1e-5)


def test_weights_are_the_slopes_of_the_objective() -> None:
    z = softmax([0.3, -0.2, 0.0])
    losses = jnp.asarray([0.2, 3.0, 1.0])
    method = jmtl.famo(3)
    state = method.init(jnp.ones(2))._replace(xi=jnp.log(z))

    def objective(values: jax.Array) -> jax.Array:
        gaps = values + 1e-8
        c = jax.lax.stop_gradient(1 / jnp.sum(z / gaps))
        return c * jnp.sum(z * jnp.log(gaps))

    weights = method.update(Seen(losses), state)[0].weights
    np.testing.assert_allclose(weights, jax.grad(objective)(losses), rtol=1e-5)
    np.testing.assert_allclose(jnp.sum(weights), 1, rtol=1e-6)


def test_losses_at_and_below_their_bounds() -> None:
    method = jmtl.famo(2)
    np.testing.assert_allclose(weights_of(method, [0.0, 1.0]), [1, 1e-8], rtol=1e-5)
    np.testing.assert_array_equal(weights_of(method, [-1.0, 1.0]), np.nan)
    np.testing.assert_array_equal(weights_of(method, [np.nan, 1.0]), np.nan)
    np.testing.assert_allclose(
        weights_of(jmtl.famo(2, bounds=-2.0), [-1.0, 1.0]), [0.75, 0.25], rtol=1e-5
    )


SCALES = np.asarray([1.0, 1e-3])


def losses_of(x: jax.Array) -> jax.Array:
    """Two tasks whose minima differ, 1,000 times apart in scale."""
    return SCALES * jnp.stack([1 + jnp.sum((x - 1) ** 2), 1 + 4 * jnp.sum((x + 1) ** 2)])


def loop(x: jax.Array, rate: float, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Losses before, optax's update, losses after: x and ξ after each step."""
    method, optimizer = jmtl.famo(2, gamma=0.01), optax.sgd(rate)
    assert method.observe is not None
    observe = method.observe

    @jax.jit
    def step(x: jax.Array, state: Any, moments: Any) -> Any:
        result = jmtl.value_and_grads(losses_of, method)(state, x)
        change, moments = optimizer.update(result.gradient, moments, x)
        x = optax.apply_updates(x, change)
        return x, observe(result.losses, losses_of(x), result.state), moments

    state, moments = method.init(x), optimizer.init(x)
    seen = []
    for _ in range(steps):
        x, state, moments = step(x, state, moments)
        seen.append((np.asarray(x), np.asarray(state.xi)))
    path, logits = zip(*seen, strict=True)
    return np.stack(path), np.stack(logits)


def test_the_closed_loop_by_hand() -> None:
    """The loop of a caller's own, against algorithm 1 written out in NumPy."""
    start = np.asarray([0.5, -0.2, 2.0])
    with jax.enable_x64(True):
        path, logits = loop(jnp.asarray(start), 0.02, 40)
    values = lambda y: SCALES * [1 + np.sum((y - 1) ** 2), 1 + 4 * np.sum((y + 1) ** 2)]
    slopes = lambda y: 2 * (SCALES * [1, 4])[:, None] * np.stack([y - 1, y + 1])
    y, xi, adam = start, np.zeros(2), Adam()
    for x, logit in zip(path, logits, strict=True):
        z, before = softmax(xi), values(y) + 1e-8
        weights = z / before / np.sum(z / before)
        y = y - 0.02 * weights @ slopes(y)
        delta = np.log(before) - np.log(values(y) + 1e-8)
        change, adam = adam.step(z * (delta - z @ delta) + 0.01 * xi, 0.025)
        xi = xi + change
        np.testing.assert_allclose(x, y, rtol=1e-9)
        np.testing.assert_allclose(logit, xi, rtol=1e-7, atol=1e-12)
    assert np.ptp(logits, axis=1).max() > 0.03


def test_the_task_that_improves_less_gains_and_without_observe_nothing_moves() -> None:
    method = jmtl.famo(2)
    assert method.observe is not None
    start = method.init(jnp.ones(2))
    answer, state = method.update(Seen(jnp.asarray([1.0, 1.0])), start)
    np.testing.assert_array_equal(state.xi, 0.0)
    np.testing.assert_allclose(answer.weights, 0.5)
    state = method.observe(jnp.asarray([1.0, 1.0]), jnp.asarray([0.9, 0.5]), state)
    np.testing.assert_allclose(state.xi, [0.025, -0.025], rtol=1e-4)


def test_a_chain_passes_the_second_losses_on() -> None:
    chained = jmtl.chain(jmtl.famo(2), jmtl.pcgrad(2))
    assert chained.observe is not None
    state = chained.init(jnp.ones(2))
    state = chained.observe(jnp.asarray([1.0, 1.0]), jnp.asarray([0.9, 0.5]), state)
    np.testing.assert_allclose(state[0].xi, [0.025, -0.025], rtol=1e-4)
