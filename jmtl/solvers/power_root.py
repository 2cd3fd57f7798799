"""The positive root of G α = α^(−1/a): the fair weights of Nash-MTL (a = 1) and FairGrad."""

from typing import NamedTuple

import jax.numpy as jnp
import jax.scipy.linalg
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jmtl.solvers.nonnegative import Solution, all_finite, dot

_MAX_STEPS = 60


class _State(NamedTuple):
    point: Float[Array, "K"]
    shift: Float[Array, ""]  # added to the diagonal where rounding left the system indefinite
    done: Bool[Array, ""]
    steps: Int[Array, ""]


def power_root(
    cosine: Float[Array, "K K"], norms: Float[Array, "K"], exponent: float | Float[Array, ""] = 1.0
) -> Solution:
    """Solves G α = α^(−1/a) for α > 0, the minimum of ½ αᵀGα − Σ α_i^(1−1/a)/(1−1/a).

    The function is strictly convex (log α_i in the sum for a = 1). On unit gradients, with
    y_i ∝ α_i d_i, the equation is C y = b y^(−1/a), b_i = (d_i/d_max)^(1/a−1): for a = 1 the norms
    drop out.
    Newton's method runs on relative changes of y; a step that would shrink some y_i by a factor is
    damped to 1/(1 + largest shrinkage), which makes every step a descent for a ≥ 1.

    Args:
        cosine: `[K, K]` cosines C of the task gradients; zero rows have zero entries.
        norms: `[K]` norms d of the task gradients, any scale.
        exponent: a > 0; 1 is Nash-MTL, 2 the default of FairGrad.

    Returns:
        Weights `[K]`. The residual is the largest relative error of the equation,
        |(Gα)_i α_i^(1/a) − 1|. A zero row has no solution: its weight is 0 and the residual at
        least 1. Neither has a Pareto-stationary problem (0 in the hull of the gradients): α grows
        until its digits are spent and stays finite, and the residual is of order 1. In between,
        with m the minimum norm of the hull of the unit gradients, rounding α alone leaves a
        relative error of eps/m².

    References:
        Navon et al., Multi-task learning as a bargaining game, 2022, equation 2.
        Ban and Ji, Fair resource allocation in multi-task learning, 2024, equation 7.
    """
    dtype = norms.dtype
    eps = jnp.finfo(dtype).eps
    power = jnp.asarray(1.0, dtype) / jnp.asarray(exponent, dtype)
    finite = all_finite(cosine, norms, power)
    cosine, norms = jnp.where(finite, cosine, 0.0), jnp.where(finite, norms, 0.0)
    live = norms > 0
    largest = jnp.max(norms)
    lengths = jnp.where(live, norms / jnp.where(largest > 0, largest, 1.0), 1.0)
    bias = lengths ** (power - 1)
    magnitude = jnp.abs(cosine)
    identity = jnp.eye(norms.shape[0], dtype=dtype)

    def error_and_noise(point: Float[Array, "K"]) -> tuple[Float[Array, "K"], Float[Array, "K"]]:
        scale = point**power / bias
        error = jnp.where(live, dot(cosine, point) * scale - 1, 0.0)
        noise = jnp.where(live, eps * (dot(magnitude, point) * scale + 1), 0.0)
        return error, noise

    def step(state: _State) -> _State:
        point = state.point
        weight = jnp.where(live, bias * point ** (1 - power), 1.0)
        error, _ = error_and_noise(point)
        system = point[:, None] * point[None, :] * (cosine + (state.shift + 4 * eps) * identity)
        # Symmetric scaling by √weight: the barrier's share of the diagonal becomes `power`.
        root = jnp.sqrt(weight)
        system = system / (root[:, None] * root[None, :])
        system = jnp.where(live[:, None] & live[None, :], system, 0.0) + identity * power
        factor = jnp.linalg.cholesky(system, symmetrize_input=False)
        change = -jax.scipy.linalg.cho_solve((factor, True), error * root) / root
        definite = jnp.all(jnp.isfinite(change))
        change = jnp.where(live & definite, change, 0.0)
        damping = jnp.maximum(1.0, (1 + power) / 2)
        length = 1 / (1 + damping * jnp.maximum(jnp.max(-change), 0.0))
        point = point * (1 + length * change)
        error, noise = error_and_noise(point)
        solved = jnp.all(jnp.abs(error) <= 2 * noise)
        shift = jnp.where(definite, state.shift, jnp.maximum(8 * state.shift, 8 * eps))
        return _State(point, shift, definite & solved, state.steps + 1)

    start = bias ** (1 / (1 + power))
    start = jnp.where(live, start, 1.0)
    kept = jnp.where(live, start, 0.0)
    square, curvature = jnp.sum(kept**2), jnp.sum(kept * dot(cosine, kept))
    ratio = square / jnp.maximum(curvature, eps * jnp.where(square > 0, square, 1.0))
    start = jnp.where(live, start * ratio ** (1 / (1 + power)), 1.0)
    state = lax.while_loop(
        lambda s: ~s.done & (s.steps < _MAX_STEPS),
        step,
        _State(start, jnp.zeros((), dtype), ~jnp.any(live), jnp.zeros((), jnp.int32)),
    )

    error, _ = error_and_noise(state.point)
    residual = jnp.max(jnp.where(live, jnp.abs(error), 1.0))
    factor = jnp.where(largest > 0, largest, 1.0) ** (-2 / (1 + power))
    weights = jnp.where(live, state.point / lengths * factor, 0.0)
    nan = jnp.asarray(jnp.nan, dtype)
    return Solution(jnp.where(finite, weights, nan).astype(dtype), jnp.where(finite, residual, nan))
