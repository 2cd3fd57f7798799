"""The shortest vector in the convex hull of the task gradients."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from jmtl.solvers.nonnegative import Solution, all_finite, dot, solve_nonnegative


def min_norm(cosine: Float[Array, "K K"], norms: Float[Array, "K"]) -> Solution:
    """Solves min wᵀGw over the simplex, exactly.

    With v_i ∝ w_i d_i on unit gradients and β_i = d_min/d_i, the problem is homogeneous: its
    direction is that of argmin ½ vᵀCv + ½ (βᵀv − 1)² over v ≥ 0, and only ratios of norms appear.

    Args:
        cosine: `[K, K]` cosines C of the task gradients; zero rows have zero entries.
        norms: `[K]` norms d of the task gradients, any scale.

    Returns:
        Weights `[K]` that sum to 1. Where tasks have zero gradients the minimum is zero and those
        tasks share the weight equally. The residual is the largest violation of
        g_i·x ≥ ‖x‖² (equality where w_i > 0), x = Σ w_j g_j, relative to ‖g_i‖ Σ w_j ‖g_j‖.

    References:
        Wolfe, Finding the nearest point in a polytope, 1976.
        Désidéri, Multiple-gradient descent algorithm, 2012, for its use on task gradients.
    """
    finite = all_finite(cosine, norms)
    zero = norms <= 0
    degenerate = jnp.any(zero)
    smallest = jnp.min(jnp.where(zero, jnp.inf, norms))
    beta = jnp.where(zero | ~finite, 0.0, smallest / jnp.where(zero, 1.0, norms))
    # Both are zero where the answer is known without a solve: the loop then ends at once.
    cosine = jnp.where(finite & ~degenerate, cosine, 0.0)
    linear = jnp.where(degenerate, 0.0, beta)
    solved = solve_nonnegative(cosine + linear[:, None] * linear[None, :], linear)

    total = jnp.sum(solved.point)
    unit = solved.point / jnp.where(total > 0, total, 1.0)
    raw = unit * beta
    mass = jnp.sum(raw)
    weights = jnp.where(degenerate, zero / jnp.sum(zero), raw / jnp.where(mass > 0, mass, 1.0))

    slope = dot(cosine, unit)
    level = jnp.sum(unit * slope) / jnp.where(mass > 0, mass, 1.0)
    gap = level * beta - slope
    residual = jnp.max(jnp.where(unit > 0, jnp.abs(gap), jnp.maximum(gap, 0.0)))
    # A solve that ended nowhere (no weight at all) has no optimality to speak of.
    residual = jnp.where(degenerate, 0.0, jnp.where(mass > 0, residual, jnp.inf))
    nan = jnp.asarray(jnp.nan, norms.dtype)
    return Solution(
        jnp.where(finite, weights, nan).astype(norms.dtype), jnp.where(finite, residual, nan)
    )
