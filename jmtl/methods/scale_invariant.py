"""The sum of the losses' logarithms: the baseline SI of Navon et al., Nash-MTL, ICML 2022."""

import jax.numpy as jnp

from jmtl.checks import check_tasks
from jmtl.method import Answer, Method, Seen, State, stateless


def scale_invariant(num_tasks: int) -> Method:
    """Scale invariant (SI): Σ log L_i, as weights 1 / L_i.

    The factor by which any task's loss is multiplied changes nothing. One backward pass. The
    update grows as the losses fall. Equal to `geometric` up to the factor GLS/K.

    The losses must be > 0: the weight of a loss of 0, as of a batch without the task's labels, is
    infinite; that of a negative loss, which has no logarithm, NaN.

    Args:
        num_tasks: K.

    Returns:
        A loss method without state.

    Raises:
        ValueError: `num_tasks` below 1.
    """
    k = check_tasks("scale_invariant", num_tasks)

    def update(seen: Seen, state: State) -> tuple[Answer, State]:
        return Answer(jnp.where(seen.losses < 0, jnp.nan, 1 / jnp.abs(seen.losses))), state

    return Method("scale_invariant", k, stateless, update, needs="losses", uses_losses=True)
