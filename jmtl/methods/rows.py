"""Trees with one row a task, for methods that track gradients."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def zeros_per_task(k: int, params: Any, dtype: jnp.dtype) -> Any:
    """Zeros with leaves `[K, ...]`, one row a task."""
    return jax.tree.map(lambda leaf: jnp.zeros((k, *jnp.shape(leaf)), dtype), params)


def like(tree: Any, leaves: Any) -> Any:
    """`tree` in the dtypes of `leaves`."""
    return jax.tree.map(lambda x, leaf: x.astype(leaf.dtype), tree, leaves)


def scale_rows(grads: Any, factors: Float[Array, " K"]) -> Any:
    """Leaves `[K, ...]` whose row i is multiplied by `factors[i]`, in the factors' dtype."""
    return jax.tree.map(
        lambda leaf: leaf.astype(factors.dtype) * factors.reshape((-1,) + (1,) * (leaf.ndim - 1)),
        grads,
    )
