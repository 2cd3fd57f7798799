"""CAGrad's problem: the update near the mean gradient that serves its worst task best."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jmtl.solvers.min_norm import min_norm
from jmtl.solvers.nonnegative import Solution, all_finite, dot, solve_nonnegative

_MAX_STEPS = 24


class _State(NamedTuple):
    level: Float[Array, ""]  # μ, the gain promised to every task
    point: Float[Array, "K"]  # z(μ)
    far: Float[Array, ""]  # ‖Σ z_i u_i‖
    residual: Float[Array, ""]
    done: Bool[Array, ""]
    steps: Int[Array, ""]


def conflict_averse(
    cosine: Float[Array, "K K"], norms: Float[Array, "K"], c: float | Float[Array, ""]
) -> Solution:
    """Solves min over the simplex of g_w·g₀ + c ‖g₀‖ ‖g_w‖; the update is g₀ + c ‖g₀‖ g_w/‖g_w‖.

    By duality the update maximises min_i g_i·d over ‖d − g₀‖ ≤ c ‖g₀‖. For a promised gain μ the
    nearest d to g₀ with g_i·d ≥ μ is a nonnegative quadratic program, d = g₀ + Σ z_i u_i on unit
    gradients u; its distance grows with μ and is convex, and Newton's method finds the μ where it
    is c ‖g₀‖, coming down from the gain of the minimum-norm point.

    Args:
        cosine: `[K, K]` cosines of the task gradients; zero rows have zero entries.
        norms: `[K]` norms of the task gradients, any scale.
        c: at least 0, the radius around the mean gradient g₀ over its norm.

    Returns:
        Weights `[K]` of the update. Where 0 lies in the hull of the gradients, to rounding, and
        a gain of 0 within the radius, the optimum is g_w = 0 and its direction is not defined:
        every d with g_i·d ≥ 0 within the radius solves the paper's own problem, equation 3, and
        the nearest to g₀ is taken (public implementations take g₀ itself, which solves it only
        without conflict). The residual is the largest violation of g_i·d ≥ μ (equality where
        w_i > 0), relative to ‖g_i‖ Σ_j |w_j| ‖g_j‖.

    The radius is met to the digits of the cosines: with m = Σ_j |w_j| ‖g_j‖, which is large where
    near-opposite tasks cancel, to about eps m² over the radius, and g_i·d ≥ μ to about eps m ‖g_i‖
    (see `dual_cone.project`).

    References:
        Liu et al., Conflict-averse gradient descent, 2021, equation 4 and algorithm 1.
    """
    size, eps = norms.shape[0], jnp.finfo(norms.dtype).eps
    finite = all_finite(cosine, norms, jnp.asarray(c, norms.dtype))
    cosine, norms = jnp.where(finite, cosine, 0.0), jnp.where(finite, norms, 0.0)
    zero = norms <= 0
    largest = jnp.max(norms)
    lengths = norms / jnp.where(largest > 0, largest, 1.0)
    smallest = jnp.min(jnp.where(zero, jnp.inf, norms))
    # A zero row bounds μ by 0 alone, which the start below sees to.
    beta = jnp.where(zero, 0.0, smallest / jnp.where(zero, 1.0, norms))

    mean = lengths / size
    slope = dot(cosine, mean)
    radius = c * jnp.sqrt(jnp.maximum(jnp.sum(mean * slope), 0.0))

    hull = min_norm(cosine, norms).weights * lengths
    mass = jnp.sum(hull)
    hull = hull / jnp.where(mass > 0, mass, 1.0)
    square = jnp.sum(hull * dot(cosine, hull))
    stationary = (mass <= 0) | (square <= 4 * eps)
    reach = jnp.sum(beta * hull)
    gain = jnp.sum(slope * hull) + radius * jnp.sqrt(jnp.maximum(square, 0.0))
    start = jnp.where(stationary, 0.0, gain / jnp.where(reach > 0, reach, 1.0))
    # What g₀, (1 − c) g₀ and, for c ≥ 1, the zero update gain. Where the minimum-norm point rests
    # on large tasks alone, rounding can put the start below that, unseen by the small ones.
    held = jnp.min(jnp.where(zero, jnp.inf, slope / jnp.where(zero, 1.0, beta)))
    held = jnp.where(jnp.isfinite(held), held, 0.0)
    lowest = jnp.maximum(held, held * jnp.maximum(1.0 - c, 0.0))
    start = jnp.maximum(start, lowest)

    def distance(level: Float[Array, ""], point: Float[Array, "K"]) -> Float[Array, ""]:
        # ‖Σ z_i u_i‖² is zᵀCz, and zᵀb at the optimum: b has digits where Cz cancels.
        return jnp.sqrt(jnp.maximum(jnp.sum(point * (level * beta - slope)), 0.0))

    def step(state: _State) -> _State:
        solved = solve_nonnegative(cosine, state.level * beta - slope, state.point)
        far, rate = distance(state.level, solved.point), jnp.sum(beta * solved.point)
        level = state.level - far * (far - radius) / jnp.where(rate > 0, rate, 1.0)
        level = jnp.maximum(level, lowest)
        settled = (far <= radius * (1 + 4 * eps)) | (level >= state.level) | (rate <= 0)
        return _State(
            jnp.where(settled, state.level, level),
            solved.point,
            far,
            solved.residual,
            settled,
            state.steps + 1,
        )

    empty, nothing = jnp.zeros_like(norms), jnp.zeros_like(start)
    state = lax.while_loop(
        lambda s: ~s.done & (s.steps < _MAX_STEPS),
        step,
        _State(start, empty, nothing, nothing, radius <= 0, jnp.zeros((), jnp.int32)),
    )

    far = state.far
    at_zero = (stationary | (state.level <= lowest)) & (state.level == 0)
    length = jnp.where(far > 0, radius / jnp.where(far > 0, far, 1.0), 0.0)
    # On the sphere to rounding, which is that of zᵀCz and of ‖g₀‖²: where weights cancel, all of
    # their digits. Stretching would move g_i·d by the same part of g_i·g₀, and that is more.
    rounding = 2 * eps * (jnp.sum(state.point) ** 2 + (c * jnp.sum(mean)) ** 2)
    length = jnp.where(jnp.abs(far**2 - radius**2) <= rounding, 1.0, length)
    length = jnp.where(at_zero, jnp.minimum(length, 1.0), length)
    point = state.point * length
    weights = 1.0 / size + point / jnp.where(zero, 1.0, lengths)

    update = mean + point
    served = dot(cosine, update)
    rate = jnp.sum(beta * point)
    level = jnp.where(at_zero, 0.0, jnp.sum(point * served) / jnp.where(rate > 0, rate, 1.0))
    gap = level * beta - served
    violation = jnp.max(jnp.where(point > 0, jnp.abs(gap), jnp.maximum(gap, 0.0)))
    total = jnp.sum(update)
    residual = jnp.where(
        (rate > 0) | at_zero, violation / jnp.where(total > 0, total, 1.0), state.residual
    )
    nan = jnp.asarray(jnp.nan, norms.dtype)
    return Solution(
        jnp.where(finite, weights, nan).astype(norms.dtype), jnp.where(finite, residual, nan)
    )
