"""Trees with one row a task, for methods that track gradients."""

from typing import Any

import jax
import jax.numpy as jnp


def zeros_per_task(k: int, params: Any, dtype: jnp.dtype) -> Any:
    """Zeros with leaves `[K, ...]`, one row a task."""
    return jax.tree.map(lambda leaf: jnp.zeros((k, *jnp.shape(leaf)), dtype), params)
