"""Geometric loss strategy. Chennupati et al., MultiNet++, CVPR workshops 2019."""

import jax.numpy as jnp

from jmtl.checks import check_tasks
from jmtl.method import Answer, Method, Seen, State, stateless


def geometric(num_tasks: int) -> Method:
    """Geometric loss strategy (GLS): GLS = (Π L_i)^{1/K}, as weights GLS / (K L_i).

    Computed through logarithms: no product over- or underflows. One backward pass. Scaling one task
    scales the whole gradient and leaves its direction alone. Public implementations multiply the
    losses, and at least one logs other numbers as the weights.

    A loss of 0 is that of a task without labels in the batch, or one that nothing is left to learn
    of: its gradient is 0, and it takes no part. Its weight is 0, and the mean is over the others
    (the limit of a vanishing loss is another: a slope without bound for that task, none for the
    others). A negative loss has no logarithm and makes the weights NaN. A single task has weight 1
    whatever its loss.

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
        present = seen.losses != 0
        count = jnp.maximum(jnp.sum(present), 1)
        logs = jnp.log(jnp.where(present, seen.losses, 1))
        weights = jnp.exp(jnp.sum(logs) / count - logs) / count
        return Answer(jnp.where(present, weights, 0)), state

    return Method("geometric", k, stateless, update, needs="losses", uses_losses=True)
