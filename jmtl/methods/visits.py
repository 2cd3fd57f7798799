"""Each task meets the others in an order of its own: what PCGrad and GradVac share."""

from collections.abc import Callable
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int, PRNGKeyArray

from jmtl.checks import check_choice, check_key

Order = Literal["random", "fixed"]

UNROLLED = 8
"""The largest K whose visits a GPU's or TPU's program holds one by one."""


def drawn_key(
    name: str, num_tasks: int, key: PRNGKeyArray | None, order: Order
) -> PRNGKeyArray | None:
    """The key where orders are drawn; None where they are fixed or two tasks have only one.

    Raises:
        ValueError: an unknown `order`, no key where one is needed, what is not a key.
    """
    check_choice(name, "order", order, ("random", "fixed"))
    draws = order == "random" and num_tasks > 2
    if draws and key is None:
        raise ValueError(f"{name}: order='random' needs a key, as key=jax.random.key(0)")
    if key is not None:
        check_key(name, key)
    return key if draws else None


def orders(num_tasks: int, key: PRNGKeyArray | None, step: Int[Array, ""]) -> Int[Array, "K K"]:
    """`[K, K]`: row i is the order, a permutation of 0…K−1, in which task i visits the others.

    Drawn from fold_in(key, step), apart for each task; ascending where there is no key.
    """
    ascending = jnp.tile(jnp.arange(num_tasks), (num_tasks, 1))
    if key is None:
        return ascending
    step_key = jax.random.fold_in(key, step)
    return jax.random.permutation(step_key, ascending, axis=1, independent=True)


def visit_all(
    visit: Callable[[Any, Int[Array, " K"]], Any], start: Any, orders: Int[Array, "K K"]
) -> Any:
    """What is held after every task has visited the others: `visit(held, tasks) -> held`, K times.

    Args:
        visit: one visit of every task i at once, to tasks[i].
        start: what is held before.
        orders: `[K, K]` row i is the order of task i.
    """
    # Where starting a kernel is what costs, the visits of few tasks lie open in the program.
    unrolled = jax.default_backend() != "cpu" and len(orders) <= UNROLLED
    held, _ = lax.scan(lambda h, tasks: (visit(h, tasks), None), start, orders.T, unroll=unrolled)
    return held


def summed_weights(
    norms: Float[Array, " K"], coefficients: Float[Array, "K K"]
) -> Float[Array, " K"]:
    """The weights `[K]` of Σ_i of the edited gradients.

    Args:
        norms: `[K]` of the task gradients.
        coefficients: `[K, K]` row i those of task i's edited gradient on the *unit* gradients, for
            a gradient of norm one.
    """
    # Apart from its own unit: where nothing is edited the weights are one, exactly. Nothing is
    # added along a task without gradient, whose cosines are zero.
    added = coefficients - jnp.eye(len(norms), dtype=norms.dtype)
    ratios = norms[:, None] / jnp.where(norms == 0, 1, norms)[None, :]
    return 1 + jnp.sum(ratios * added, axis=0)
