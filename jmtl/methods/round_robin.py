"""Round robin: one task a step, in turn."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from jmtl.checks import check_tasks
from jmtl.method import Answer, Method, Seen, State


class RoundRobinState(NamedTuple):
    """`task` `[]` whose turn it is."""

    task: Int[Array, ""]


def round_robin(num_tasks: int) -> Method:
    """One task a step, in turn: step t trains task t mod K alone, with weight 1.

    One backward pass, which costs what that of every other loss method costs: the other tasks'
    losses are computed and multiplied by 0. Public implementations draw a batch for one task; here
    all tasks share the batch. An optimiser with momentum moves every parameter at every step.

    Args:
        num_tasks: K.

    Returns:
        A loss method; it does not read the losses.

    Raises:
        ValueError: `num_tasks` below 1.
    """
    k = check_tasks("round_robin", num_tasks)

    def init(shared_params: State) -> RoundRobinState:
        del shared_params
        return RoundRobinState(jnp.zeros((), jnp.int32))

    def update(seen: Seen, state: RoundRobinState) -> tuple[Answer, RoundRobinState]:
        del seen
        return Answer(jax.nn.one_hot(state.task, k)), RoundRobinState((state.task + 1) % k)

    return Method("round_robin", k, init, update, needs="losses")
