"""UPGrad: unconflicting projection of gradients. Quinton & Rey, 2024, section 3."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from jmtl.checks import check_tasks, per_task
from jmtl.method import Answer, Method, Seen, State, stateless
from jmtl.solvers.dual_cone import project


def upgrad(num_tasks: int, preference: float | Float[Array, " K"] | None = None) -> Method:
    """UPGrad: each p_i g_i projected on the dual cone {x : g_j·x ≥ 0 for every j}, then summed.

    w = Σ_i v^i with v^i = argmin vᵀGv over v ≥ p_i e_i. The update conflicts with no task, and is
    linear in the scale of each row. K backward passes, K projections at once. No regularisation:
    public implementations add 1e-4 to a Gramian divided by its trace, which lets small tasks be
    conflicted with. An average over tasks, K times less than a sum; for K = 2 half of PCGrad.

    Args:
        num_tasks: K.
        preference: p, `[K]` or one number, >= 0; 1/K by default.

    Returns:
        A Gramian method; the residual is the largest of the K projections'.

    Raises:
        ValueError: a preference below 0 or of another shape.
    """
    k = check_tasks("upgrad", num_tasks)
    given = per_task(
        "upgrad", "preference", 1 / k if preference is None else preference, k, least=0
    )

    def update(seen: Seen, state: State) -> tuple[Answer, State]:
        cosine, norms = seen.gramian
        solution = project(cosine, norms, jnp.diag(given.astype(norms.dtype)))
        weights = jnp.sum(solution.weights, axis=0)
        return Answer(weights, residual=jnp.max(solution.residual)), state

    return Method("upgrad", k, stateless, update, needs="gramian")
