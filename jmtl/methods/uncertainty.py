"""Uncertainty weighting. Kendall, Gal, Cipolla, CVPR 2018, eq. 7 with s = log σ²."""

from typing import NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jmtl.checks import check_tasks
from jmtl.method import Answer, Method, Seen
from jmtl.products import compute_dtype


class UncertaintyState(NamedTuple):
    """`s` `[K]` the log-variances; `optimizer` that of their Adam."""

    s: Float[Array, " K"]
    optimizer: optax.OptState


def uncertainty(num_tasks: int, s0: float = 0.0, learning_rate: float = 0.025) -> Method:
    """Uncertainty weighting (UW): Σ ½(e^{−s_i} L_i + s_i), with s learned beside the network.

    The weights are ½ e^{−s_i}; s takes one Adam step a step on ∂/∂s_i = ½(1 − e^{−s_i} L_i), with
    no weight decay. One backward pass. The paper halves regression losses only and gives
    classification losses e^{−s}; public implementations, and this one, halve all. LibMTL starts
    at s₀ = −0.5 and lets the network's optimiser move s.

    Args:
        num_tasks: K.
        s0: the starting value of every s.
        learning_rate: of the Adam that moves s.

    Returns:
        A loss method; the weights of a step come from s before that step's update.

    Raises:
        ValueError: `num_tasks` below 1.
    """
    k = check_tasks("uncertainty", num_tasks)
    adam = optax.adam(learning_rate)

    def init(shared_params: optax.Params) -> UncertaintyState:
        s = jnp.full((k,), s0, compute_dtype(shared_params))
        return UncertaintyState(s, adam.init(s))

    def update(seen: Seen, state: UncertaintyState) -> tuple[Answer, UncertaintyState]:
        precision = jnp.exp(-state.s)
        slope = 0.5 * (1 - precision * seen.losses)
        change, optimizer = adam.update(slope.astype(state.s.dtype), state.optimizer)
        return Answer(0.5 * precision), UncertaintyState(state.s + change, optimizer)

    return Method("uncertainty", k, init, update, needs="losses", uses_losses=True)
