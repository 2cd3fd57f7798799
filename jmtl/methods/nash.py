"""Nash-MTL: the Nash bargaining solution. Navon et al., ICML 2022, eq. 2."""

from typing import Any, NamedTuple

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

from jmtl.checks import check_count, check_number, check_tasks
from jmtl.gramian import Gramian, combined_norm
from jmtl.method import Answer, Method, Seen
from jmtl.products import compute_dtype
from jmtl.solvers.power_root import power_root


class NashState(NamedTuple):
    """The last solution, and how many updates there were.

    Attributes:
        alpha: `[K]` α of the last solve; 0 before the first.
        heads: `[K]` what it gave the tasks' own parameters.
        residual: `[]` of the last solve.
        step: `[]` updates so far.
    """

    alpha: Float[Array, " K"]
    heads: Float[Array, " K"]
    residual: Float[Array, ""]
    step: Int[Array, ""]


def frobenius_root(gramian: Gramian) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The largest norm d, and √‖G‖_F over d."""
    largest = jnp.max(gramian.norms)
    lengths = gramian.norms / jnp.where(largest == 0, 1, largest)
    entries = gramian.cosine * lengths[:, None] * lengths[None, :]
    return largest, jnp.sum(entries**2) ** 0.25


def nash(
    num_tasks: int, max_norm: Any = 1.0, update_every: int = 1, scales_heads: bool = True
) -> Method:
    """Nash-MTL: the positive root of G α = 1/α, then the update clipped to `max_norm`.

    Damped Newton on the convex ½ αᵀGα − Σ log α_i, where the authors iterate a convex program on
    the host and fall back to earlier weights. K backward passes. αᵀGα = K, so the update's norm is
    √K before clipping and `max_norm` after it (if not above √K), however small the gradients: it
    no longer shrinks near an optimum. A zero row gets weight 0, and where 0 lies in the hull of the
    gradients no solution exists: the step stays finite, and the residual is of order 1 in both
    cases.

    Args:
        num_tasks: K.
        max_norm: the update is clipped to this norm; 0 is no clipping. A number, possibly traced.
        update_every: α is solved for once in so many steps and kept between. It changes results,
            and saves the K×K solve alone, not the K backward passes; under vmap nothing.
        scales_heads: whether weights multiply the tasks' own gradients too, as in the authors'
            code: by α √‖G‖_F, not clipped (their α solves the equation of G/‖G‖_F).

    Returns:
        A Gramian method with the residual of the last solve.

    Raises:
        ValueError: `max_norm` below 0, `update_every` below 1.
    """
    k = check_tasks("nash", num_tasks)
    check_number("nash", "max_norm", max_norm, least=0)
    period = check_count("nash", "update_every", update_every, 1)

    def init(shared_params: Any) -> NashState:
        zeros = jnp.zeros((k,), compute_dtype(shared_params))
        return NashState(zeros, zeros, zeros[0], jnp.zeros((), jnp.int32))

    def solve(gramian: Gramian, state: NashState) -> NashState:
        alpha, residual = power_root(*gramian, 1.0)
        largest, root = frobenius_root(gramian)
        dtype = state.alpha.dtype
        heads = (alpha * largest * root).astype(dtype)
        return NashState(alpha.astype(dtype), heads, residual.astype(dtype), state.step)

    def update(seen: Seen, state: NashState) -> tuple[Answer, NashState]:
        gramian = seen.gramian
        if period == 1:
            state = solve(gramian, state)
        else:
            due = state.step % period == 0
            state = lax.cond(due, solve, lambda gramian, state: state, gramian, state)
        limit = jnp.asarray(max_norm, state.alpha.dtype)
        clip = limit / jnp.maximum(combined_norm(gramian, state.alpha), limit)
        weights = state.alpha * jnp.where(limit > 0, clip, 1).astype(state.alpha.dtype)
        answer = Answer(weights, residual=state.residual)
        if scales_heads:
            answer = answer._replace(heads=state.heads)
        return answer, state._replace(step=state.step + 1)

    return Method("nash", k, init, update, needs="gramian", scales_heads=scales_heads)
