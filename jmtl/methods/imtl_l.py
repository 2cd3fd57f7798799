"""Impartial multi-task learning, its loss balance. Liu et al., ICLR 2021, §3.2 (IMTL-L)."""

from typing import NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jmtl.checks import check_number, check_tasks
from jmtl.method import Answer, Method, Seen
from jmtl.products import compute_dtype


class IMTLLState(NamedTuple):
    """`s` `[K]` the log-weights; `optimizer` that of their Adam."""

    s: Float[Array, " K"]
    optimizer: optax.OptState


def imtl_l(num_tasks: int, s0: float = 0.0, learning_rate: float = 0.025) -> Method:
    """IMTL-L: Σ e^{s_i} L_i − s_i, with s learned beside the network.

    The weights are e^{s_i}; s takes one Adam step a step on ∂/∂s_i = e^{s_i} L_i − 1, with no
    weight decay, and settles where every weighted loss e^{s_i} L_i is 1. One backward pass. The
    paper allows any base a > 1 and uses e. Public implementations differ: LibMTL lets the network's
    optimiser move s. Losses that stay at or below 0 raise s without end, and it shows: e^{s_i}
    overflows.

    Args:
        num_tasks: K.
        s0: the starting value of every s.
        learning_rate: of the Adam that moves s, >= 0.

    Returns:
        A loss method; the weights of a step come from s before that step's update.

    Raises:
        ValueError: an option out of its range, `num_tasks` below 1.
    """
    k = check_tasks("imtl_l", num_tasks)
    check_number("imtl_l", "s0", s0)
    check_number("imtl_l", "learning_rate", learning_rate, least=0)
    adam = optax.adam(learning_rate)

    def init(shared_params: optax.Params) -> IMTLLState:
        s = jnp.full((k,), s0, compute_dtype(shared_params))
        return IMTLLState(s, adam.init(s))

    def update(seen: Seen, state: IMTLLState) -> tuple[Answer, IMTLLState]:
        weights = jnp.exp(state.s)
        slope = weights * seen.losses.astype(weights.dtype) - 1
        change, optimizer = adam.update(slope, state.optimizer)
        return Answer(weights), IMTLLState(state.s + change, optimizer)

    return Method("imtl_l", k, init, update, needs="losses", uses_losses=True)
