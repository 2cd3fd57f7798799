"""Fast adaptive multi-task optimisation. Liu, Feng, Stone, Liu, NeurIPS 2023, algorithm 1."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jmtl.checks import check_number, check_tasks, per_task
from jmtl.method import Answer, Method, Seen
from jmtl.products import compute_dtype


class FAMOState(NamedTuple):
    """`xi` `[K]` the logits of z; `optimizer` that of their Adam."""

    xi: Float[Array, " K"]
    optimizer: optax.OptState


def famo(
    num_tasks: int,
    learning_rate: float = 0.025,
    gamma: float = 1e-3,
    bounds: float | Sequence[float] | Float[Array, " K"] = 0.0,
    epsilon: float = 1e-8,
) -> Method:
    """FAMO: c Σ z_i log D_i with z = softmax(ξ), D_i = L_i − b_i + ε, c = stopgrad(1 / Σ z_i/D_i).

    As weights: softmax(ξ − log D), which sum to 1. After the optimiser's update, with the losses of
    the same batch again, δ = log D_old − log D_new, and ξ takes one Adam step down
    (∂z/∂ξ)ᵀ δ + γ ξ: the tasks that improve least get more of z. The decay γ is inside the
    gradient, as in the authors' code (Adam's, not AdamW's).

    One backward pass and a second forward pass. The second losses come through `Method.observe`,
    which the training step calls; the optax face does not, and there ξ stays where it is unless the
    caller does: `method.observe(losses_before, losses_after, state)`.

    Losses must be > b − ε: one below makes all weights NaN; one at b, as of a batch without the
    task's labels where b is 0, takes nearly all the weight.
    Public implementations differ: where the second losses are taken in training mode with fresh
    statistics, batch norm moves twice.

    Args:
        num_tasks: K.
        learning_rate: of the Adam that moves ξ, >= 0.
        gamma: the decay γ >= 0: 0.001 by default, in the paper 0 on the toy, 0.01 on Cityscapes.
        bounds: b, lower bounds of the losses, a number or `[K]`.
        epsilon: ε >= 0, in the units of the losses.

    Returns:
        A loss method with `observe`; ξ starts at 0.

    Raises:
        ValueError: an option out of its range or of the wrong shape, `num_tasks` below 1.
    """
    k = check_tasks("famo", num_tasks)
    check_number("famo", "learning_rate", learning_rate, least=0)
    check_number("famo", "gamma", gamma, least=0)
    check_number("famo", "epsilon", epsilon, least=0)
    floor = per_task("famo", "bounds", bounds, k)
    adam = optax.adam(learning_rate)

    def init(shared_params: optax.Params) -> FAMOState:
        xi = jnp.zeros(k, compute_dtype(shared_params))
        return FAMOState(xi, adam.init(xi))

    def logs(losses: Array, state: FAMOState) -> Float[Array, " K"]:
        dtype = state.xi.dtype
        return jnp.log(losses.astype(dtype) - floor.astype(dtype) + epsilon)

    def update(seen: Seen, state: FAMOState) -> tuple[Answer, FAMOState]:
        return Answer(jax.nn.softmax(state.xi - logs(seen.losses, state))), state

    def observe(before: Array, after: Array, state: FAMOState) -> FAMOState:
        z = jax.nn.softmax(state.xi)
        delta = logs(before, state) - logs(after, state)
        slope = z * (delta - jnp.sum(z * delta)) + gamma * state.xi
        change, optimizer = adam.update(slope.astype(state.xi.dtype), state.optimizer)
        return FAMOState(state.xi + change, optimizer)

    return Method("famo", k, init, update, needs="losses", uses_losses=True, observe=observe)
