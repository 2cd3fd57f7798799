from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jmtl
from tests.methods.scalarizers import PRECISIONS, VALUES, calls, run, weights_of


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
def test_the_reference_whose_epochs_are_windows_of_two(dtype: Any, tolerance: float) -> None:
    with jax.enable_x64(dtype is np.float64):
        weights, _ = run(jmtl.dwa(4, temperature=2.0, window=2), VALUES, dtype)
    assert weights.dtype == dtype
    np.testing.assert_allclose(weights, calls("DWA", "grad"), rtol=tolerance)
    np.testing.assert_allclose(
        np.sum(weights * VALUES, axis=1), calls("DWA", "out"), rtol=tolerance
    )


def test_the_formula_over_windows() -> None:
    rng = np.random.default_rng(0)
    losses = rng.uniform(0.1, 3.0, size=(17, 3))
    weights, _ = run(jmtl.dwa(3, temperature=0.7, window=4), losses)
    means = losses[:16].reshape(4, 4, 3).mean(axis=1)
    np.testing.assert_array_equal(weights[:8], 1.0)
    for start in (8, 12, 16):
        now = start // 4
        powers = np.exp(means[now - 1] / means[now - 2] / 0.7)
        expected = np.broadcast_to(3 * powers / powers.sum(), weights[start : start + 4].shape)
        np.testing.assert_allclose(weights[start : start + 4], expected, rtol=1e-5)


def test_the_slow_task_gets_more_whatever_its_scale() -> None:
    fall = np.asarray([0.9, 0.5]) ** np.arange(6)[:, None]
    weights, _ = run(jmtl.dwa(2, window=1), fall)
    scaled, _ = run(jmtl.dwa(2, window=1), fall * [1e-6, 1e6])
    assert (weights[2:, 0] > 1.05).all()
    np.testing.assert_allclose(scaled, weights, rtol=1e-4)


def test_a_loss_of_zero_for_a_window_shows() -> None:
    weights, _ = run(jmtl.dwa(2, window=1), [[0.0, 1.0]] * 3 + [[1.0, 1.0]] * 3)
    assert np.isfinite(weights[:2]).all()
    assert np.isnan(weights[2:4]).all()  # 0/0, then 1/0 in the softmax
    np.testing.assert_allclose(weights[5], 1.0)


def test_options_may_be_traced() -> None:
    losses = jnp.asarray([[1.0, 2.0], [2.0, 2.0], [1.0, 1.0]])

    def last(temperature: jax.Array, window: jax.Array) -> jax.Array:
        method = jmtl.dwa(2, temperature, window)  # type: ignore[arg-type]
        step = lambda s, row: method.update(jmtl.Seen(row), s)[::-1]
        _, answers = jax.lax.scan(step, method.init(jnp.ones(2)), losses)
        return answers.weights[-1]

    hot, cold, long = jax.vmap(last)(jnp.asarray([5.0, 0.5, 0.5]), jnp.asarray([1, 1, 2]))
    assert cold[0] > hot[0] > 1
    np.testing.assert_array_equal(long, 1.0)


def test_one_task_has_weight_one() -> None:
    np.testing.assert_allclose(run(jmtl.dwa(1, window=1), [[2.0], [3.0], [7.0]])[0], 1.0)
    np.testing.assert_array_equal(weights_of(jmtl.dwa(1), [np.inf]), 1.0)
