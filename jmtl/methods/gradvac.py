"""GradVac: gradient vaccine. Wang et al., ICLR 2021, algorithm 1."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PRNGKeyArray

from jmtl.checks import check_number, check_tasks
from jmtl.gramian import Gramian
from jmtl.method import Answer, Method, Seen, named_key
from jmtl.methods.visits import Order, drawn_key, orders, summed_weights, visit_all
from jmtl.products import compute_dtype


class GradVacState(NamedTuple):
    """What GradVac remembers.

    Attributes:
        goals: `[K, K]` ρ̂, in [-1, 1]: the running cosine of task i's edited gradient with task j's.
        step: `[]` updates so far.
        key: draws the orders, of fold_in(key, step); None where there is nothing to draw.
    """

    goals: Float[Array, "K K"]
    step: Int[Array, ""]
    key: PRNGKeyArray | None


def vaccinate(
    gramian: Gramian, goals: Float[Array, "K K"], orders: Int[Array, "K K"], beta: Any
) -> tuple[Float[Array, "K K"], Float[Array, "K K"]]:
    """Algorithm 1 on coefficients of unit gradients, for a gradient of norm one.

    Args:
        gramian: of the K task gradients.
        goals: `[K, K]` ρ̂.
        orders: `[K, K]` row i is the order, a permutation of 0…K−1, in which task i visits the
            others; i itself is skipped.
        beta: in [0, 1].

    Returns:
        `[K, K]`: row i holds the coefficients of task i's edited gradient on the *unit* task
        gradients; and the new ρ̂.
    """
    cosine, norms = gramian
    rows = jnp.arange(len(norms))
    tiny = jnp.finfo(norms.dtype).eps

    def visit(carry: tuple[Array, Array], tasks: Array) -> tuple[Array, Array]:
        # One visit of every task i at once: i meets tasks[i].
        held, goals = carry
        products = jnp.matmul(held, cosine, precision=jax.lax.Precision.HIGHEST)
        length = jnp.sqrt(jnp.maximum(jnp.sum(products * held, axis=1), 0))
        rho = products[rows, tasks] / jnp.where(length == 0, 1, length)
        rho = jnp.clip(rho, -1, 1)
        goal = goals[rows, tasks]
        # The edit towards a cosine of 1 is infinite: sines stay above √eps.
        sine = jnp.sqrt(jnp.maximum((1 - goal) * (1 + goal), tiny))
        edit = length * (goal * jnp.sqrt((1 - rho) * (1 + rho)) - rho * sine) / sine
        # A gradient that is zero has no cosine: nothing to reach, nothing to learn.
        meets = (tasks != rows) & (norms != 0) & (norms[tasks] != 0) & (length != 0)
        held = held.at[rows, tasks].add(jnp.where(meets & (rho < goal), edit, 0))
        learnt = (goal + beta * (rho - goal)).astype(goals.dtype)
        goals = goals.at[rows, tasks].set(jnp.where(meets, learnt, goal))
        return held, goals

    start = jnp.eye(len(rows), dtype=norms.dtype)
    return visit_all(visit, (start, goals), orders)


def gradvac(
    num_tasks: int,
    key: PRNGKeyArray | None = None,
    beta: Any = 0.01,
    order: Order = "random",
) -> Method:
    """GradVac: PCGrad with a learned target cosine ρ̂_ij for each pair in place of 0.

    For each i, with h = g_i, over j ≠ i in a random order, ρ the cosine of h and g_j: if ρ < ρ̂_ij,
    h += g_j ‖h‖ (ρ̂√(1−ρ²) − ρ√(1−ρ̂²)) / (‖g_j‖ √(1−ρ̂²)); then ρ̂_ij ← (1−β) ρ̂_ij + β ρ. The g_j
    are the original ones, ρ̂ starts at 0, the update is the sum of the K results. K backward passes,
    then K visits of K tasks at once on the Gramian. Invariant to the scale of the gradients. A pair
    with a zero gradient leaves ρ̂ alone. The paper keeps one ρ̂ a layer or a network: ours is the
    latter. Public implementations differ: LibMTL has β = 0.5 and one order for all tasks, and
    an absolute epsilon beside ‖g_j‖ √(1−ρ̂²).

    Args:
        num_tasks: K.
        key: draws an order for each task at each step; needed for `order="random"` and K > 2.
        beta: β in [0, 1], how fast ρ̂ follows; a number, possibly traced.
        order: "random", drawn anew for each task and step, or "fixed", ascending.

    Returns:
        A Gramian method.

    Raises:
        ValueError: no key where one is needed, what is not a key, `beta` out of range.
    """
    k = check_tasks("gradvac", num_tasks)
    check_number("gradvac", "beta", beta, least=0, most=1)
    drawn = drawn_key("gradvac", k, key, order)

    def init(shared_params: Any) -> GradVacState:
        goals = jnp.zeros((k, k), compute_dtype(shared_params))
        own = None if drawn is None else named_key(drawn, "gradvac")
        return GradVacState(goals, jnp.zeros((), jnp.int32), own)

    def update(seen: Seen, state: GradVacState) -> tuple[Answer, GradVacState]:
        visited = orders(k, state.key, state.step)
        held, goals = vaccinate(seen.gramian, state.goals, visited, beta)
        weights = summed_weights(seen.gramian.norms, held)
        return Answer(weights), GradVacState(goals, state.step + 1, state.key)

    return Method("gradvac", k, init, update, needs="gramian")
