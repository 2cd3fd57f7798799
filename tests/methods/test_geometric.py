from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jmtl
from tests.methods.scalarizers import PRECISIONS, VALUES, calls, run, weights_of


@pytest.mark.parametrize(("dtype", "tolerance"), PRECISIONS)
def test_the_reference(dtype: Any, tolerance: float) -> None:
    with jax.enable_x64(dtype is np.float64):
        weights, _ = run(jmtl.geometric(4), VALUES[:3], dtype)
    assert weights.dtype == dtype
    np.testing.assert_allclose(weights, calls("GeometricMean", "grad"), rtol=tolerance)
    # Euler: the objective is homogeneous of degree one, so that it is Σ w_i L_i.
    np.testing.assert_allclose(
        np.sum(weights * VALUES[:3], axis=1), calls("GeometricMean", "out"), rtol=tolerance
    )


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_products_neither_vanish_nor_overflow(scale: float) -> None:
    losses = scale * np.linspace(0.5, 2.0, 40)
    exact = np.exp(np.log(losses).mean()) / (40 * losses)
    np.testing.assert_allclose(weights_of(jmtl.geometric(40), losses), exact, rtol=1e-4)


def test_a_task_without_a_loss_takes_no_part() -> None:
    found = weights_of(jmtl.geometric(4), [0.5, 0.0, 2.0, 3.0])
    others = weights_of(jmtl.geometric(3), [0.5, 2.0, 3.0])
    np.testing.assert_allclose(found, np.insert(others, 1, 0.0), rtol=1e-6)
    np.testing.assert_array_equal(weights_of(jmtl.geometric(3), np.zeros(3)), 0.0)


def test_losses_without_a_logarithm_show() -> None:
    for bad in (-1.0, np.nan):
        np.testing.assert_array_equal(
            weights_of(jmtl.geometric(3), [bad, 1.0, 0.0]), [np.nan, np.nan, 0]
        )


@pytest.mark.parametrize("loss", [0.0, -2.0, 3.0])
def test_a_single_task_has_its_own_gradient(loss: float) -> None:
    x = jnp.asarray(0.0)
    fun = lambda x: jnp.stack([loss + jnp.sin(x)])
    result = jmtl.value_and_grads(fun, jmtl.geometric(1))((), x)
    assert result.gradient == 1.0
