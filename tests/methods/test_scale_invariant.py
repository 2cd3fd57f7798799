import jax
import jax.numpy as jnp
import numpy as np

import jmtl
from tests.methods.scalarizers import VALUES, run, weights_of


def test_weights_are_the_slopes_of_the_sum_of_logs() -> None:
    weights, _ = run(jmtl.scale_invariant(4), VALUES)
    np.testing.assert_allclose(weights, 1 / VALUES, rtol=1e-6)
    slopes = jax.vmap(jax.grad(lambda L: jnp.sum(jnp.log(L))))(jnp.asarray(VALUES))
    np.testing.assert_allclose(weights, slopes, rtol=1e-6)


def test_the_scale_of_a_task_changes_nothing() -> None:
    fun = lambda x, c: jnp.stack([1 + x[0] ** 2, c * (2 + jnp.sin(x[1]))])
    x = jnp.asarray([0.3, 0.4])
    step = lambda c: jmtl.value_and_grads(fun, jmtl.scale_invariant(2))((), x, c).gradient
    np.testing.assert_allclose(step(1e9), step(1e-9), rtol=1e-5)


def test_geometric_up_to_a_factor() -> None:
    ratio = weights_of(jmtl.geometric(4), VALUES[0]) / weights_of(
        jmtl.scale_invariant(4), VALUES[0]
    )
    np.testing.assert_allclose(ratio, np.prod(VALUES[0]) ** 0.25 / 4, rtol=1e-5)


def test_losses_of_zero_weigh_nothing_and_negative_ones_show() -> None:
    weights = weights_of(jmtl.scale_invariant(5), [0.0, -0.0, -1.0, np.nan, 2.0])
    np.testing.assert_array_equal(weights, [0.0, 0.0, np.nan, np.nan, 0.5])
