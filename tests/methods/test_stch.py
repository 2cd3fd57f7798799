from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import logsumexp, softmax

import jmtl
from jmtl.methods.stch import relative_weights
from tests.methods.scalarizers import PRECISIONS, VALUES, calls, run, weights_of


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
def test_the_reference(dtype: Any, tolerance: float) -> None:
    with jax.enable_x64(dtype is np.float64):
        weights, _ = run(jmtl.stch(4, mu=0.5), VALUES[:3], dtype)
    assert weights.dtype == dtype
    np.testing.assert_allclose(weights, calls("STCH", "grad"), rtol=tolerance)
    # The reference's values are those of the formula whose slopes were just compared.
    values = 0.5 * logsumexp(VALUES[:3] / 4 / 0.5, axis=1)
    np.testing.assert_allclose(values, calls("STCH", "out"), rtol=1e-9)


def test_preference_and_ideal_of_the_papers_form() -> None:
    preference, ideal, mu = np.asarray([0.2, 0.0, 3.0]), np.asarray([-1.0, 0.5, 0.1]), 0.3
    losses = np.asarray([0.5, -2.0, 0.3])
    weights = weights_of(jmtl.stch(3, mu=mu, preference=preference, ideal=ideal), losses)
    objective = lambda L: mu * jax.nn.logsumexp(preference * (L - ideal) / mu)
    np.testing.assert_allclose(weights, jax.grad(objective)(jnp.asarray(losses)), rtol=1e-5)
    assert weights[1] == 0


def test_a_small_mu_leaves_the_largest_and_does_not_overflow() -> None:
    np.testing.assert_allclose(weights_of(jmtl.stch(3, mu=1e-6), [1.0, 9.0, 2.0]), [0, 1 / 3, 0])
    large = weights_of(jmtl.stch(3, form="code", mu=1e-3, warmup=1), [1.0, 9.0, 2.0])
    np.testing.assert_allclose(large, 1 / np.asarray([1.0, 9.0, 2.0]), rtol=1e-6)
    late, _ = run(jmtl.stch(3, form="code", mu=1e-3, warmup=1), [[1.0, 9.0, 2.0], [1.0, 10.0, 1.0]])
    np.testing.assert_allclose(late[1], [0, 3 / 10, 0], rtol=1e-5)


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
@pytest.mark.parametrize("mu", [0.25, 1.0, 3.0])
def test_the_codes_form(mu: float, dtype: Any, tolerance: float) -> None:
    """Warm-up of 4 steps, of which the last 2 give n; then the slopes of K μ log Σ e^{…}."""
    with jax.enable_x64(dtype is np.float64):
        method = jmtl.stch(4, form="code", mu=mu, warmup=4, window=2)
        weights, _ = run(method, VALUES, dtype)
    assert weights.dtype == dtype
    np.testing.assert_allclose(weights[:4], 1 / VALUES[:4], rtol=tolerance)
    nadir = VALUES[2:4].mean(axis=0)
    for row, losses in zip(weights[4:], VALUES[4:], strict=True):
        expected = 4 * softmax(np.log(losses / nadir) / mu) / losses
        np.testing.assert_allclose(row, expected, rtol=10 * tolerance)


def test_the_codes_window_is_a_fifth_of_the_warmup() -> None:
    losses = np.linspace(1.0, 3.0, 11)[:, None] * [1.0, 2.0]
    weights, state = run(jmtl.stch(2, form="code", warmup=10), losses)
    np.testing.assert_allclose(state.total, losses[8:10].sum(axis=0), rtol=1e-6)
    assert state.step == 10
    np.testing.assert_allclose(weights[10], 1 / losses[10], rtol=1e-5)


def test_the_codes_form_is_invariant_to_the_scale_of_a_task() -> None:
    scales = np.asarray([1e-6, 1.0, 1e6, 1e3])
    method = jmtl.stch(4, form="code", mu=0.5, warmup=3)
    plain, _ = run(method, VALUES)
    scaled, _ = run(method, VALUES * scales)
    np.testing.assert_allclose(scaled * scales, plain, rtol=1e-4)


def test_losses_of_zero_and_below_in_the_codes_form() -> None:
    ones = jnp.ones(2)
    zero = jnp.asarray([0.0, 1.0])
    # μ < 1: the slope at 0 is 0; μ = 1: that of K log Σ L/n; μ > 1: infinite, and left out.
    np.testing.assert_allclose(relative_weights(zero, ones, 0.5), [0.0, 2.0])
    np.testing.assert_allclose(relative_weights(zero, ones, 1.0), [2.0, 2.0])
    np.testing.assert_array_equal(relative_weights(zero, ones, 2.0), [0.0, 2.0])
    for mu in (0.5, 1.0, 2.0):
        np.testing.assert_array_equal(relative_weights(jnp.zeros(2), ones, mu), 0.0)
    assert np.isnan(relative_weights(jnp.asarray([-1.0, 2.0]), ones, 1.0)).all()
    assert np.isnan(relative_weights(jnp.asarray([-1.0, 0.0]), ones, 1.0)).any()
    assert np.isnan(relative_weights(jnp.asarray([np.nan, 2.0]), ones, 1.0)).all()
    warm = weights_of(jmtl.stch(3, form="code"), [0.0, -1.0, 2.0])
    np.testing.assert_array_equal(warm, [0.0, np.nan, 0.5])


def test_a_task_without_labels_does_not_count_in_the_codes_warmup() -> None:
    losses = [[4.0, 2.0, 0.0], [0.0, 6.0, 0.0], [2.0, 4.0, 0.0], [2.0, 4.0, 5.0], [2.0, 4.0, 2.5]]
    weights, state = run(jmtl.stch(3, form="code", warmup=2, window=2), losses)
    np.testing.assert_allclose(weights[:2], [[1 / 4, 1 / 2, 0], [0, 1 / 6, 0]], rtol=1e-6)
    np.testing.assert_allclose(state.total / state.counts, [4.0, 4.0, 5.0], rtol=1e-6)
    for row, now in zip(weights[2:], np.asarray(losses)[2:], strict=True):
        ratio = now / [4.0, 4.0, 5.0]
        expected = 3 / np.asarray([4.0, 4.0, 5.0]) / ratio.sum()
        np.testing.assert_allclose(row[now > 0], expected[now > 0], rtol=1e-5)
        assert np.isfinite(row).all()


def test_one_task_has_its_own_gradient() -> None:
    assert weights_of(jmtl.stch(1), [-3.0]) == 1.0
    weights, _ = run(jmtl.stch(1, form="code", warmup=1), [[2.0], [5.0]])
    np.testing.assert_allclose(weights[:, 0], [1 / 2, 1 / 5], rtol=1e-6)


def test_warmup_may_be_traced() -> None:
    def second(warmup: jax.Array) -> jax.Array:
        method = jmtl.stch(2, form="code", warmup=warmup)  # type: ignore[arg-type]
        seen = jmtl.Seen(jnp.asarray([1.0, 2.0]))
        _, state = method.update(seen, method.init(jnp.ones(2)))
        return method.update(jmtl.Seen(jnp.asarray([4.0, 2.0])), state)[0].weights

    weights = jax.jit(jax.vmap(second))(jnp.asarray([1, 2]))
    np.testing.assert_allclose(weights, [[2 / 5, 1 / 5], [1 / 4, 1 / 2]], rtol=1e-6)
