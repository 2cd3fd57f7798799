"""Projections on the dual cone of the task gradients: the updates that conflict with no task."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jmtl.solvers.nonnegative import Solution, all_finite, dot, solve_nonnegative


def project(
    cosine: Float[Array, "K K"], norms: Float[Array, "K"], targets: Float[Array, "M K"]
) -> Solution:
    """Projects M combinations of task gradients on {x : g_i·x ≥ 0 for every i}.

    The projection of Σ t_i g_i has the weights argmin vᵀGv over v ≥ t. On unit gradients v_i d_i is
    t_i d_i + z_i with z ≥ 0, and z alone is solved for: ½ zᵀCz + (Ct')ᵀz, t' the t_i d_i over
    their largest. So a task of small norm keeps its digits beside one of large norm.

    Args:
        cosine: `[K, K]` cosines C of the task gradients; zero rows have zero entries.
        norms: `[K]` norms d of the task gradients, any scale.
        targets: `[M, K]` weights t of the vectors to project, on the raw task gradients.

    Returns:
        Weights `[M, K]`; a task of zero gradient keeps its target. Residuals `[M]`: the largest
        violation of g_i·x ≥ 0 (equality where v_i > t_i), relative to ‖g_i‖ Σ_j |v_j| ‖g_j‖.

    The digits are those of cosines and weights: where near-opposite tasks take large weights that
    cancel, g_i·x ≥ 0 holds to about eps Σ_j |v_j| ‖g_j‖ ‖g_i‖. Solving in float64 from the same
    float32 cosines does no better (of 3,000 problems at K = 8, a third of low rank, 9 conflict by
    more than 1e-5 of max(‖x‖, max ‖g‖/20), 7 solved in float32), so finer arithmetic on the K×K
    matrix gains nothing; from float64 cosines 2 are left, which is what rounding the weights costs.

    References:
        Lopez-Paz and Ranzato, Gradient episodic memory, 2017, equation 11.
        Quinton and Rey, Jacobian descent for multi-objective optimization, 2024, section 3.
    """
    norms_finite = all_finite(cosine, norms)
    largest = jnp.max(norms)
    lengths = norms / jnp.where(largest > 0, largest, 1.0)

    def one(target: Float[Array, "K"]) -> Solution:
        finite = norms_finite & all_finite(target)
        scale = jnp.max(jnp.abs(target * lengths))
        unit = target * lengths / jnp.where(scale > 0, scale, 1.0)
        slope = dot(cosine, unit)
        solved = solve_nonnegative(cosine, -slope)
        added = solved.point * scale / jnp.where(lengths > 0, lengths, 1.0)
        total = unit + solved.point
        level = dot(cosine, total)
        violation = jnp.where(solved.point > 0, jnp.abs(level), jnp.maximum(-level, 0.0))
        mass = jnp.sum(jnp.abs(total))
        residual = jnp.max(violation) / jnp.where(mass > 0, mass, 1.0)
        nan = jnp.asarray(jnp.nan, norms.dtype)
        return Solution(jnp.where(finite, target + added, nan), jnp.where(finite, residual, nan))

    return jax.vmap(one)(targets)
