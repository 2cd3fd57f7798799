"""Aligned-MTL's balancing: the task gradients rotated and scaled until none dominates."""

from typing import Literal, get_args

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jmtl.solvers.nonnegative import Solution, all_finite, dot

Scale = Literal["min", "median", "rmse"]


def balance(
    cosine: Float[Array, "K K"],
    norms: Float[Array, "K"],
    preference: Float[Array, "K"],
    scale: Scale = "min",
) -> Solution:
    """Weights √λ V Λ^(−½) Vᵀ p over the eigenpairs (Λ, V) of the Gramian above rounding.

    Kept are the eigenvalues above K eps λ_max, eps that of float32 in either precision: what lies
    below cannot be told from zero in a Gramian of float32 gradients.

    Args:
        cosine: `[K, K]` cosines of the task gradients; zero rows have zero entries.
        norms: `[K]` norms of the task gradients, any scale.
        preference: `[K]` p, 1/K each by default in the paper's code.
        scale: λ is the smallest kept eigenvalue ("min"), their lower median ("median") or their
            mean ("rmse": √λ is then the root mean square of the singular values of J).

    Returns:
        Weights `[K]`; p itself where every gradient is zero. The residual is the largest error of
        the eigenpairs, |GV − VΛ| relative to λ_max.

    Raises:
        ValueError: for another `scale`.

    References:
        Senushkin et al., Independent component alignment for multi-task learning, 2023, eq. 12.
    """
    if scale not in get_args(Scale):
        raise ValueError(f"scale is {scale!r}; choose one of {', '.join(get_args(Scale))}")
    size, dtype = norms.shape[0], norms.dtype
    finite = all_finite(cosine, norms, preference)
    largest = jnp.max(norms)
    lengths = norms / jnp.where(largest > 0, largest, 1.0)
    gramian = lengths[:, None] * cosine * lengths[None, :]
    gramian = jnp.where(finite, gramian, 0.0)
    values, vectors = jnp.linalg.eigh(gramian)
    kept = values > size * jnp.finfo(jnp.float32).eps * values[-1]
    count = jnp.sum(kept)
    if scale == "rmse":
        level = jnp.sum(jnp.where(kept, values, 0.0)) / jnp.maximum(count, 1)
    else:
        # Ascending, so the kept ones are the last `count`.
        below = 0 if scale == "min" else jnp.maximum(count - 1, 0) // 2
        level = values[jnp.minimum(size - count + below, size - 1)]
    roots = jnp.sqrt(jnp.where(kept, level / jnp.where(kept, values, 1.0), 0.0))
    weights = dot(vectors, roots * dot(vectors.T, preference))
    weights = jnp.where(count > 0, weights, preference)

    product = jnp.matmul(gramian, vectors, precision=lax.Precision.HIGHEST)
    error = jnp.max(jnp.abs(product - vectors * values[None, :]))
    residual = error / jnp.where(values[-1] > 0, values[-1], 1.0)
    nan = jnp.asarray(jnp.nan, dtype)
    return Solution(jnp.where(finite, weights, nan).astype(dtype), jnp.where(finite, residual, nan))
