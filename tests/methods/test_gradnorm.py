"""GradNorm against the paper's recurrence in numpy."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jmtl
from jmtl.method import Seen, respond
from tests.methods.recurrences import problem, runner


def paper(grads: np.ndarray, losses: np.ndarray, alpha: float, rate: float) -> Iterator[np.ndarray]:
    """Yields the weights before each step's Adam update of equation 2, divided by mean(d)."""
    k = grads.shape[1]
    weights, first, second = np.ones(k), np.zeros(k), np.zeros(k)
    for t, (g, loss) in enumerate(zip(grads, losses, strict=True), start=1):
        yield weights
        norms = np.linalg.norm(g, axis=1)
        progress = loss / losses[0]
        goal = np.mean(weights * norms) * (progress / progress.mean()) ** alpha
        slope = norms / norms.mean() * np.sign(weights * norms - goal)
        first = 0.9 * first + 0.1 * slope
        second = 0.999 * second + 0.001 * slope**2
        step = first / (1 - 0.9**t) / (np.sqrt(second / (1 - 0.999**t)) + 1e-8)
        weights = np.maximum(weights - rate * step, 0)
        weights = k * weights / weights.sum()


@pytest.mark.parametrize("scale", [1e-15, 1.0, 1e15])
def test_recurrence(scale: float) -> None:
    """The scale of the gradients does not reach Adam's epsilon."""
    grads, losses = problem(steps=8)
    run = runner(jmtl.gradnorm(3, alpha=1.5, learning_rate=0.1))
    expected = np.asarray(list(paper(grads, losses, 1.5, 0.1)))
    updates, states = run(grads * scale, losses)
    np.testing.assert_allclose(states.weights, expected, rtol=1e-4)
    total = np.einsum("tk,tkn->tn", expected, grads * scale)
    np.testing.assert_allclose(updates, total, rtol=1e-3, atol=1e-3 * scale)
    assert np.ptp(expected[-1]) > 0.3, "nothing was learned"


def test_in_float64() -> None:
    grads, losses = problem(steps=6)
    expected = np.asarray(list(paper(grads, losses, 0.5, 0.025)))
    with jax.enable_x64(True):
        _, states = runner(jmtl.gradnorm(3, alpha=0.5))(grads, losses)
        assert states.weights.dtype == np.float64
        np.testing.assert_allclose(states.weights, expected, rtol=1e-9)


def test_norms_become_equal_where_rates_are() -> None:
    """With losses in step, w d is driven to one value: w ∝ 1/d, summing to K."""
    norms = np.asarray([1.0, 2.0, 4.0])
    grads = np.tile(norms[:, None] / np.sqrt(7), (400, 1, 7))
    _, states = runner(jmtl.gradnorm(3))(grads, np.ones((400, 3)))
    expected = 3 / norms / np.sum(1 / norms)
    np.testing.assert_allclose(states.weights[-1], expected, atol=0.06)


def test_weights_are_not_negative_and_absent_tasks_do_no_harm() -> None:
    method = jmtl.gradnorm(3, learning_rate=2.0)
    step = jax.jit(lambda seen, state: respond(method, seen, state))
    rows = jnp.eye(3).at[1].set(0)
    losses = jnp.asarray([1.0, 0.0, 3.0])
    state = method.init(rows[0])
    for _ in range(4):
        answer, state = step(Seen(losses, jmtl.gramian(rows)), state)
        assert np.all(np.asarray(answer.weights) >= 0)
        np.testing.assert_allclose(np.sum(answer.weights), 3, rtol=1e-5)
    assert answer.heads is not None
    np.testing.assert_array_equal(answer.heads, answer.weights)
    # The absent task's first loss is its first that is not 0.
    _, state = step(Seen(jnp.asarray([1.0, 5.0, 3.0]), jmtl.gramian(jnp.eye(3))), state)
    np.testing.assert_array_equal(state.first, [1, 5, 3])


def test_what_is_not_finite_shows() -> None:
    method = jmtl.gradnorm(3)
    seen = Seen(jnp.asarray([1.0, jnp.nan, 1.0]), jmtl.gramian(jnp.eye(3)))
    _, state = method.update(seen, method.init(jnp.zeros(3)))
    assert np.isnan(state.weights).any()
    rows = jnp.eye(3).at[0, 0].set(jnp.nan)
    _, state = method.update(Seen(jnp.ones(3), jmtl.gramian(rows)), method.init(jnp.zeros(3)))
    assert np.isnan(state.weights).any()


def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match="gradnorm: alpha must be a finite number >= 0"):
        jmtl.gradnorm(3, alpha=-1)
    with pytest.raises(ValueError, match="gradnorm: learning_rate must be a finite number >= 0"):
        jmtl.gradnorm(3, learning_rate=-0.1)
    assert jmtl.gradnorm(3).uses_losses
    assert jmtl.gradnorm(3).scales_heads
