"""The sum of the losses' logarithms: the baseline SI of Navon et al., Nash-MTL, ICML 2022."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from jmtl.checks import check_tasks
from jmtl.method import Answer, Method, Seen, State, stateless


def reciprocal(losses: Float[Array, " K"]) -> Float[Array, " K"]:
    """The slopes 1/L of log L `[K]`; 0 for a loss of 0, NaN for a negative one."""
    weights = 1 / jnp.where(losses == 0, 1, losses)
    return jnp.where(losses == 0, 0, jnp.where(losses < 0, jnp.nan, weights))


def scale_invariant(num_tasks: int) -> Method:
    """Scale invariant (SI): Σ log L_i, as weights 1 / L_i.

    The factor by which any task's loss is multiplied changes nothing. One backward pass. The
    update grows as the losses fall. Equal to `geometric` up to the factor GLS/K.

    The weight of a loss of 0, of a task without labels in the batch or with nothing left to learn,
    is 0: its gradient is 0 too, and log 0 has no slope. A negative loss has no logarithm, and its
    weight is NaN.

    Args:
        num_tasks: K.

    Returns:
        A loss method without state.

    Raises:
        ValueError: `num_tasks` below 1.
    """
    k = check_tasks("scale_invariant", num_tasks)

    def update(seen: Seen, state: State) -> tuple[Answer, State]:
        return Answer(reciprocal(seen.losses)), state

    return Method("scale_invariant", k, stateless, update, needs="losses", uses_losses=True)
