"""FairGrad: fair resource allocation. Ban & Ji, ICML 2024, eq. 7."""

from typing import Any

from jmtl.checks import check_number, check_tasks
from jmtl.method import Answer, Method, Seen, State, stateless
from jmtl.solvers.power_root import power_root


def fairgrad(num_tasks: int, alpha: Any = 2.0) -> Method:
    """FairGrad: the positive root of G w = w^(−1/α), so that g_i·d = w_i^(−1/α) > 0 for every task.

    α = 1 is Nash-MTL without its clipping, α → 0 equal weights, α → ∞ max-min fairness. Damped
    Newton on the convex form, where public implementations call least squares on the host. K
    backward passes. The update's norm goes as ‖J‖^((1−α)/(1+α)): it grows as gradients shrink where
    α > 1. A zero row gets weight 0, and where 0 lies in the hull of the gradients no solution
    exists: the step stays finite, and the residual is of order 1 in both cases. The authors leave
    the heads' gradients alone; some libraries scale them.

    Args:
        num_tasks: K.
        alpha: α > 0, the fairness; a number, possibly traced.

    Returns:
        A Gramian method with the solver's residual.

    Raises:
        ValueError: `alpha` that is not above 0.
    """
    k = check_tasks("fairgrad", num_tasks)
    check_number("fairgrad", "alpha", alpha, above=0)

    def update(seen: Seen, state: State) -> tuple[Answer, State]:
        solution = power_root(*seen.gramian, alpha)
        return Answer(solution.weights, residual=solution.residual), state

    return Method("fairgrad", k, stateless, update, needs="gramian")
