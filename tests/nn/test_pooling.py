"""Maxima over windows: flax's values and gradients, ties and what is no number among them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen

from jmtl.nn.pooling import largest_part, max_pool


@pytest.mark.parametrize(
    ("shape", "window"),
    [
        ((2, 8, 8, 3), (2, 2)),
        ((2, 7, 11, 2), (3, 2)),
        ((1, 12, 24, 1), (4, 4)),
        ((1, 5, 10, 1), (5, 5)),
    ],
)
def test_values_and_gradients_are_flaxs_and_the_first_of_equals_has_it(shape, window):
    x = jax.random.randint(jax.random.key(0), shape, -2, 3).astype(float)

    def pulled(pool):
        def run(x):
            y, back = jax.vjp(pool, x)
            return y, back(1 + jnp.arange(y.size, dtype=float).reshape(y.shape))

        return jax.jit(run)(x)

    found = pulled(lambda x: max_pool(x, window))
    expected = pulled(lambda x: linen.max_pool(x, window, strides=window))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)


def test_what_is_no_number_is_kept():
    x = jnp.zeros((1, 4, 4, 1)).at[0, 1, 2, 0].set(jnp.nan)
    np.testing.assert_array_equal(max_pool(x, (2, 2))[0, ..., 0], [[0, np.nan], [0, 0]])


def test_the_largest_part_and_its_gradient_backwards_forwards_and_mapped():
    """Of equals the first part has the gradient; what is no number has it wherever it is."""
    x = jnp.array([[1.0, 5, 3, 5, 3, 4], [2, jnp.nan, 2, 0, 1, 9]])
    run = lambda x: largest_part(x, 3)
    first = [[0.0, 1, 1, 0, 0, 0], [1, 1, 0, 0, 0, 0]]
    np.testing.assert_array_equal(run(x), [[3, 5], [2, np.nan]])
    y, back = jax.vjp(run, x)
    np.testing.assert_array_equal(back(jnp.ones_like(y))[0], first)
    np.testing.assert_array_equal(jax.jvp(run, (x,), (jnp.ones_like(x),))[1], np.ones((2, 2)))
    each = jax.vmap(jax.grad(lambda row: run(row[None]).sum()))(x)
    np.testing.assert_array_equal(each, first)
