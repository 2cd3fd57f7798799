from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jmtl
from jmtl.method import Seen
from tests.methods.scalarizers import PRECISIONS, VALUES, Adam, calls, run, weights_of


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
def test_the_reference_whose_s_stays_at_zero(dtype: Any, tolerance: float) -> None:
    with jax.enable_x64(dtype is np.float64):
        weights, _ = run(jmtl.imtl_l(4, learning_rate=0.0), VALUES[:3], dtype)
    assert weights.dtype == dtype
    np.testing.assert_allclose(weights, calls("IMTLL", "grad"), rtol=tolerance)
    np.testing.assert_allclose(
        np.sum(weights * VALUES[:3], axis=1), calls("IMTLL", "out"), rtol=tolerance
    )


def test_the_recurrence_of_adam_on_the_written_slope() -> None:
    weights, state = run(jmtl.imtl_l(4, s0=-0.3, learning_rate=0.1), VALUES)
    s, adam = np.full(4, -0.3), Adam()
    for row, losses in zip(weights, VALUES, strict=True):
        np.testing.assert_allclose(row, np.exp(s), rtol=1e-5)
        change, adam = adam.step(np.exp(s) * losses - 1, 0.1)
        s = s + change
    np.testing.assert_allclose(state.s, s, atol=1e-5)
    assert np.ptp(s) > 0.1


def test_the_slope_is_that_of_the_objective() -> None:
    """Weights are ∂/∂L of Σ e^s L − s, and the first Adam step has the sign of −∂/∂s."""
    losses = jnp.asarray([0.2, 0.9, 3.0])
    objective = lambda s, losses: jnp.sum(jnp.exp(s) * losses - s)
    in_s, in_losses = jax.grad(objective, argnums=(0, 1))(jnp.full(3, 0.1), losses)
    weights, state = run(jmtl.imtl_l(3, s0=0.1), [losses])
    np.testing.assert_allclose(weights[0], in_losses, rtol=1e-6)
    np.testing.assert_allclose(state.s, 0.1 - 0.025 * np.sign(in_s), rtol=1e-5)


def test_it_settles_where_weighted_losses_are_one() -> None:
    losses = jnp.asarray([0.05, 1.0, 20.0])
    method = jmtl.imtl_l(3, learning_rate=0.05)
    step = lambda state, _: (method.update(Seen(losses), state)[1], None)
    start = method.init(jnp.ones(2))
    state, _ = jax.jit(lambda: jax.lax.scan(step, start, None, length=1000))()
    np.testing.assert_allclose(jnp.exp(state.s) * losses, 1, rtol=1e-3)


def test_a_loss_that_is_nan_shows() -> None:
    _, state = run(jmtl.imtl_l(2), [[np.nan, 1.0]])
    np.testing.assert_array_equal(np.isnan(state.s), [True, False])
    assert np.isfinite(weights_of(jmtl.imtl_l(2), [0.0, -1.0])).all()
