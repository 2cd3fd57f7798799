"""Geometric loss strategy. Chennupati et al., MultiNet++, CVPR workshops 2019."""

import jax.numpy as jnp

from jmtl.checks import check_tasks
from jmtl.method import Answer, Method, Seen, State, stateless


def geometric(num_tasks: int) -> Method:
    """Geometric loss strategy (GLS): GLS = (Π L_i)^{1/K}, as weights GLS / (K L_i).

    Computed through logarithms: no product over- or underflows. One backward pass. Scaling one task
    scales the whole gradient and leaves its direction alone. Public implementations multiply the
    losses, and at least one logs other numbers as the weights.

    The losses must be > 0. For K >= 2 the objective has an infinite slope at a loss of 0, as of a
    batch without the task's labels: that task's weight is NaN, and the others' 0. A negative loss
    makes all weights NaN. A single task has weight 1 whatever its loss.

    Args:
        num_tasks: K.

    Returns:
        A loss method without state.

    Raises:
        ValueError: `num_tasks` below 1.
    """
    k = check_tasks("geometric", num_tasks)

    def update(seen: Seen, state: State) -> tuple[Answer, State]:
        if k == 1:
            return Answer(jnp.ones_like(seen.losses)), state
        logs = jnp.log(seen.losses)
        return Answer(jnp.exp(jnp.mean(logs) - logs) / k), state

    return Method("geometric", k, stateless, update, needs="losses", uses_losses=True)
