"""Round robin: one task a step, in turn."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int

from jmtl.method import Answer, Method, Seen, State, check_tasks


def round_robin(num_tasks: int) -> Method:
    """One task a step, in turn: step t trains task t mod K alone, with weight 1.

    One backward pass, which costs what that of every other loss method costs: the other tasks'
    losses are computed and multiplied by 0. Public implementations draw a batch for one task; here
    all tasks share the batch. An optimiser with momentum moves every parameter at every step.

    Args:
        num_tasks: K.

    Returns:
        A loss method; its state is the task whose turn it is, `[]`. It does not read the losses.

    Raises:
        ValueError: `num_tasks` below 1.
    """
    k = check_tasks("round_robin", num_tasks)

    def init(shared_params: State) -> Int[Array, ""]:
        del shared_params
        return jnp.zeros((), jnp.int32)

    def update(seen: Seen, state: Int[Array, ""]) -> tuple[Answer, Int[Array, ""]]:
        del seen
        return Answer(jax.nn.one_hot(state, k)), (state + 1) % k

    return Method("round_robin", k, init, update, needs="losses")
