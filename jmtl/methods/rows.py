"""Trees with one row a task, for methods that track gradients: zeros, and sums over rows."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jmtl.products import is_large, over_blocks


def zeros_per_task(k: int, params: Any, dtype: jnp.dtype) -> Any:
    """Zeros with leaves `[K, ...]`, one row a task."""
    return jax.tree.map(lambda leaf: jnp.zeros((k, *jnp.shape(leaf)), dtype), params)


def row_sums(
    terms: Callable[..., Float[Array, "K ..."]], *leaves: Float[Array, "K ..."]
) -> Float[Array, " K"]:
    """The sums of the rows of `terms(*leaves)`; large leaves on a CPU by blocks, as in products.

    Args:
        terms: from leaves to an array of their shape, element by element.
        *leaves: of one shape.
    """
    if not is_large(leaves[0].size):
        return jnp.sum(terms(*leaves), axis=tuple(range(1, leaves[0].ndim)))
    flat = [leaf.reshape(len(leaf), -1) for leaf in leaves]

    def of_block(start: Any, size: int) -> Array:
        block = terms(*(lax.dynamic_slice_in_dim(x, start, size, axis=1) for x in flat))
        # XLA vectorises products on a CPU, not sums: excess's roots and risks of 8 rows of 11
        # million took at least 116 ms by sums and 74 by products (2 cores, jax 0.10).
        return jnp.matmul(block, jnp.ones(size, block.dtype), precision=lax.Precision.HIGHEST)

    return jnp.sum(over_blocks(of_block, *flat[0].shape), axis=0)
