"""DB-MTL: dual balancing. Lin et al., 2023, algorithm 1."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from jmtl.checks import check_number, check_tasks
from jmtl.gramian import combine, global_norm, like, scale_rows
from jmtl.method import Answer, Method, Seen
from jmtl.methods.rows import zeros_per_task
from jmtl.products import compute_dtype


class DBMTLState(NamedTuple):
    """`tracked` leaves `[K, ...]`, the moving average; `step` `[]` updates so far."""

    tracked: Any
    step: Int[Array, ""]


def db_mtl(num_tasks: int, beta: float = 0.9, sigma: float = 0.0) -> Method:
    """DB-MTL: gradients of the log losses, averaged over steps, brought to the largest norm.

    At step t = 1, 2, …, with ȳ₀ = 0: g_i of log(L_i + 1e-8), ȳ_i ← g_i + (β/t^σ)(ȳ_i − g_i), and
    the update is Σ_i (max_j ‖ȳ_j‖ / ‖ȳ_i‖) ȳ_i; a task with ȳ_i = 0 adds nothing. K backward
    passes, and K gradients kept in the state. Invariant to the scale of each loss (above 1e-8). The
    average starts at zero uncorrected, as in the authors' code, so the first steps are short.

    The update combines *tracked* gradients, which no weights on this step's gradients give: it is
    answered as a gradient and the weights are NaN. The heads get the gradient of log L, which is
    1/(L_i + 1e-8) times their own.

    Args:
        num_tasks: K.
        beta: β, what is kept of the average, in [0, 1].
        sigma: σ, how fast β decays, ≥ 0; the authors set 0 or 0.5 by data set.

    Returns:
        A gradient method that reads the losses, which should be positive.

    Raises:
        ValueError: an option outside its range.
    """
    k = check_tasks("db_mtl", num_tasks)
    check_number("db_mtl", "beta", beta, least=0, most=1)
    check_number("db_mtl", "sigma", sigma, least=0)

    def init(shared_params: Any) -> DBMTLState:
        dtype = compute_dtype(shared_params)
        return DBMTLState(zeros_per_task(k, shared_params, dtype), jnp.zeros((), jnp.int32))

    def update(seen: Seen, state: DBMTLState) -> tuple[Answer, DBMTLState]:
        dtype = compute_dtype(state.tracked)
        step = state.step + 1
        kept = beta / step.astype(dtype) ** sigma
        inverse = (1 / (seen.losses + 1e-8)).astype(dtype)
        tracked = jax.tree.map(
            lambda y, g: g + (kept * (y - g)).astype(dtype),
            state.tracked,
            scale_rows(seen.gradients, inverse),
        )
        norms = jax.vmap(global_norm)(tracked)
        factors = jnp.max(norms) / jnp.where(norms == 0, 1, norms)
        gradient = like(combine(tracked, factors), seen.gradients)
        answer = Answer(jnp.full((k,), jnp.nan, dtype), gradient=gradient, heads=inverse)
        return answer, DBMTLState(tracked, step)

    return Method("db_mtl", k, init, update, needs="gradients", uses_losses=True)
