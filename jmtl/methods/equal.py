"""Equal weights: the plain sum, or mean, of the losses. Every comparison's baseline."""

from typing import Literal

import jax.numpy as jnp

from jmtl.checks import check_choice, check_tasks
from jmtl.method import Answer, Method, Seen, State, stateless


def equal(num_tasks: int, reduce: Literal["sum", "mean"] = "sum") -> Method:
    """Equal weights: Σ L_i, or (1/K) Σ L_i.

    One backward pass. Public implementations differ in `reduce`: LibMTL sums, TorchJD has both.

    Args:
        num_tasks: K.
        reduce: "sum" for weights 1, "mean" for weights 1/K.

    Returns:
        A loss method without state; it does not read the losses' values.

    Raises:
        ValueError: an unknown `reduce`, `num_tasks` below 1.
    """
    k = check_tasks("equal", num_tasks)
    check_choice("equal", "reduce", reduce, ("sum", "mean"))

    def update(seen: Seen, state: State) -> tuple[Answer, State]:
        del seen
        return Answer(jnp.full((k,), 1.0 if reduce == "sum" else 1.0 / k)), state

    return Method("equal", k, stateless, update, needs="losses")
