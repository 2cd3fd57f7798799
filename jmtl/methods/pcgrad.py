"""PCGrad: projecting conflicting gradients. Yu et al., NeurIPS 2020, algorithm 1."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from jmtl.checks import check_choice, check_tasks
from jmtl.gramian import Gramian
from jmtl.method import Answer, Method, Seen, State, named_key
from jmtl.methods.visits import Order, drawn_key, orders, summed_weights, visit_all


class PCGradState(NamedTuple):
    """`key` draws the orders; `step` `[]` counts updates. The orders are of fold_in(key, step)."""

    key: PRNGKeyArray
    step: Int[Array, ""]


def project(gramian: Gramian, orders: Int[Array, "K K"]) -> Float[Array, "K K"]:
    """Every task's gradient projected on the normal planes of those that it conflicts with.

    Algorithm 1 on coefficients: h = Σ_j c_j u_j over unit gradients u_j, so that
    h·u_j = (cosine c)_j, and removing the component along u_j is a change of c_j alone.

    Args:
        gramian: of the K task gradients.
        orders: `[K, K]` row i is the order, a permutation of 0…K−1, in which task i visits the
            others; i itself is skipped.

    Returns:
        `[K, K]`: row i holds the coefficients of task i's projected gradient on the *unit* task
        gradients, for a gradient of norm one (the projection is linear in that norm).
    """
    rows = jnp.arange(len(gramian.norms))

    def visit(coefficients: Array, tasks: Array) -> Array:
        # One visit of every task i at once: i meets tasks[i].
        dots = jnp.einsum(
            "ik,ki->i", coefficients, gramian.cosine[:, tasks], precision=jax.lax.Precision.HIGHEST
        )
        conflict = (dots < 0) & (tasks != rows)
        return coefficients.at[rows, tasks].add(jnp.where(conflict, -dots, 0))

    start = jnp.eye(len(rows), dtype=gramian.cosine.dtype)
    return visit_all(visit, start, orders)


def pcgrad(
    num_tasks: int,
    key: PRNGKeyArray | None = None,
    reduce: Literal["sum", "mean"] = "sum",
    order: Order = "random",
) -> Method:
    """PCGrad: for each i, over j ≠ i in a random order: if h·g_j < 0, h −= (h·g_j/‖g_j‖²) g_j.

    h starts as g_i and the g_j are the original ones; the update is the sum of the K results, as in
    the paper. K backward passes, then K visits of K tasks at once on the Gramian. Invariant to the
    scale of the gradients. Public implementations differ: some share one order among all tasks,
    some take the mean, some count the heads in the inner products.

    Args:
        num_tasks: K.
        key: draws an order for each task at each step; needed for `order="random"` and K > 2 (two
            tasks have one order).
        reduce: "sum" or "mean" over the tasks.
        order: "random", drawn anew for each task and step, or "fixed", ascending.

    Returns:
        A Gramian method.

    Raises:
        ValueError: no key where one is needed, what is not a key, an unknown `reduce` or `order`.
    """
    k = check_tasks("pcgrad", num_tasks)
    check_choice("pcgrad", "reduce", reduce, ("sum", "mean"))
    drawn = drawn_key("pcgrad", k, key, order)

    def init(shared_params: State) -> State:
        del shared_params
        if drawn is None:
            return ()
        return PCGradState(named_key(drawn, "pcgrad"), jnp.zeros((), jnp.int32))

    def update(seen: Seen, state: State) -> tuple[Answer, State]:
        visited = orders(k, *(state or (None, jnp.zeros((), jnp.int32))))
        weights = summed_weights(seen.gramian.norms, project(seen.gramian, visited))
        if state:
            state = state._replace(step=state.step + 1)
        return Answer(weights if reduce == "sum" else weights / k), state

    return Method("pcgrad", k, init, update, needs="gramian")
