"""Measures of conflict between task gradients, from their Gramian."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from jmtl.gramian import Gramian


def cosine(gramian: Gramian) -> Float[Array, "K K"]:
    """Pairwise cosines `[K, K]` in [-1, 1]; 0 where a task's gradient is zero."""
    return gramian.cosine


def conflict_rate(gramian: Gramian) -> Float[Array, ""]:
    """The share of pairs of tasks whose gradients have a negative cosine, in [0, 1]; 0 for K = 1.

    Conflict as in PCGrad (Yu et al. 2020, definition 1). NaN where a cosine is.
    """
    k = len(gramian.norms)
    if k == 1:
        return jnp.zeros((), gramian.cosine.dtype)
    pairs = gramian.cosine[jnp.triu_indices(k, 1)]
    return jnp.where(jnp.any(jnp.isnan(pairs)), jnp.nan, jnp.mean(pairs < 0))


def magnitude_similarity(gramian: Gramian) -> Float[Array, "K K"]:
    """2‖g_i‖‖g_j‖ / (‖g_i‖² + ‖g_j‖²) `[K, K]` in [0, 1] (Yu et al. 2020, definition 2).

    0 where one of the two gradients is zero; 1 where both are, which do not differ in size.
    """
    norms = gramian.norms
    larger = jnp.maximum(norms[:, None], norms[None, :])
    ratio = jnp.minimum(norms[:, None], norms[None, :]) / jnp.where(larger == 0, 1, larger)
    return jnp.where(larger == 0, 1.0, 2 * ratio / (1 + ratio**2))
