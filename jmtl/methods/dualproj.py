"""DualProj: the mean gradient projected on the dual cone. Lopez-Paz & Ranzato, NeurIPS 2017."""

from jaxtyping import Array, Float

from jmtl.checks import check_tasks, per_task
from jmtl.method import Answer, Method, Seen, State, stateless
from jmtl.solvers.dual_cone import project


def dualproj(num_tasks: int, preference: float | Float[Array, " K"] | None = None) -> Method:
    """DualProj: Σ p_i g_i projected on the dual cone {x : g_j·x ≥ 0 for every j}.

    w = argmin vᵀGv over v ≥ p: the update of GEM (eq. 11), with the tasks in place of its memories.
    It conflicts with no task. K backward passes, one projection. Scales with the gradients. No
    regularisation: see `upgrad`.

    Args:
        num_tasks: K.
        preference: p, `[K]` or one number, >= 0; 1/K by default.

    Returns:
        A Gramian method with the solver's residual.

    Raises:
        ValueError: a preference below 0 or of another shape.
    """
    k = check_tasks("dualproj", num_tasks)
    start = 1 / k if preference is None else preference
    given = per_task("dualproj", "preference", start, k, least=0)

    def update(seen: Seen, state: State) -> tuple[Answer, State]:
        cosine, norms = seen.gramian
        solution = project(cosine, norms, given.astype(norms.dtype)[None])
        return Answer(solution.weights[0], residual=solution.residual[0]), state

    return Method("dualproj", k, stateless, update, needs="gramian")
