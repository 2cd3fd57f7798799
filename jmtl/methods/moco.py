"""MoCo: gradients corrected by tracking. Fernando et al., ICLR 2023, algorithm 1."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jmtl.checks import check_number, check_tasks
from jmtl.gramian import combine, gramian, like, scale_rows
from jmtl.method import Answer, Method, Seen
from jmtl.methods.rows import zeros_per_task
from jmtl.products import compute_dtype


class MoCoState(NamedTuple):
    """What MoCo remembers.

    Attributes:
        tracked: y, leaves `[K, ...]`.
        weights: `[K]` λ, on the simplex.
        step: `[]` updates so far.
    """

    tracked: Any
    weights: Float[Array, " K"]
    step: Int[Array, ""]


def moco(
    num_tasks: int,
    beta: float = 0.5,
    gamma: float = 0.1,
    sigma: float = 0.5,
    rho: float = 0.0,
) -> Method:
    """MoCo: the min-norm weights move by steps, on gradients tracked over steps.

    At step t = 1, 2, …, with y₀ = 0, λ₀ = 1/K, β_t = β/t^σ and γ_t = γ/t^σ:
    y_i ← y_i − β_t (y_i − L_i g_i/‖g_i‖), then λ ← softmax(λ − γ_t (y yᵀ + ρI) λ), and the update
    is yᵀλ. K backward passes, and K gradients kept in the state. Invariant to the scale of the
    gradients, not to that of the losses.

    The update combines *tracked* gradients, which no weights on this step's gradients give: it is
    answered as a gradient, the weights are NaN, and λ is in the state. The paper projects λ on the
    simplex and tracks plain gradients; the softmax and the gradients of the losses' length are
    those of the authors' code, which LibMTL has too. A softmax of λ itself, not of its logarithm,
    draws λ to 1/K at every step.

    Args:
        num_tasks: K.
        beta: β, of the tracking, in [0, 1].
        gamma: γ, the step of λ, ≥ 0.
        sigma: σ, how fast both decay, ≥ 0.
        rho: ρ, the regularisation of λ, ≥ 0.

    Returns:
        A gradient method that reads the losses.

    Raises:
        ValueError: an option outside its range.
    """
    k = check_tasks("moco", num_tasks)
    check_number("moco", "beta", beta, least=0, most=1)
    for option, value in (("gamma", gamma), ("sigma", sigma), ("rho", rho)):
        check_number("moco", option, value, least=0)

    def init(shared_params: Any) -> MoCoState:
        dtype = compute_dtype(shared_params)
        start = jnp.full((k,), 1 / k, dtype)
        return MoCoState(zeros_per_task(k, shared_params, dtype), start, jnp.zeros((), jnp.int32))

    def update(seen: Seen, state: MoCoState) -> tuple[Answer, MoCoState]:
        dtype, norms = state.weights.dtype, seen.gramian.norms
        step = state.step + 1
        decay = step.astype(dtype) ** sigma
        lengths = (seen.losses / jnp.where(norms == 0, 1, norms)).astype(dtype)
        tracked = jax.tree.map(
            lambda y, g: y - ((beta / decay) * (y - g)).astype(dtype),
            state.tracked,
            scale_rows(seen.gradients, lengths),
        )
        cosine, norms = gramian(tracked)
        slope = norms * jnp.matmul(
            cosine, norms * state.weights, precision=jax.lax.Precision.HIGHEST
        )
        logits = state.weights - (gamma / decay) * (slope + rho * state.weights)
        weights = jax.nn.softmax(logits).astype(dtype)
        gradient = like(combine(tracked, weights), seen.gradients)
        answer = Answer(jnp.full((k,), jnp.nan, dtype), gradient=gradient)
        return answer, MoCoState(tracked, weights, step)

    return Method("moco", k, init, update, needs="gradients", uses_losses=True)
