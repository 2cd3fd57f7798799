"""CAGrad: conflict-averse gradient descent. Liu et al., NeurIPS 2021, algorithm 1."""

from typing import Any, Literal

from jmtl.checks import check_number, check_tasks
from jmtl.method import Answer, Method, Seen, State, stateless
from jmtl.solvers.cagrad import conflict_averse


def cagrad(num_tasks: int, c: Any = 0.5, rescale: Literal[0, 1, 2] = 0) -> Method:
    """CAGrad: the update d near the mean gradient g₀, ‖d − g₀‖ ≤ c ‖g₀‖, of the largest min g_i·d.

    By duality d = g₀ + c ‖g₀‖ g_w/‖g_w‖ with w = argmin over the simplex of g_w·g₀ + c ‖g₀‖ ‖g_w‖,
    g_w = Σ w_i g_i. Solved exactly, where the authors call SLSQP on the host and LibMTL stops
    after 21 steps of it. K backward passes. For c ≥ 1 the update conflicts with no task; c = 0 is
    the mean. Scales with the gradients; an average over tasks, K times less than a sum.

    Args:
        num_tasks: K.
        c: the radius around the mean gradient over its norm, >= 0; a number, possibly traced.
        rescale: what the update is divided by, as in the authors' code: 0 nothing; 1 by 1 + c²
            (LibMTL, and the papers' runs, some of which multiply by K); 2 by 1 + c.

    Returns:
        A Gramian method with the solver's residual. One task gives (1 + c) g before rescaling.
        Where 0 lies in the hull of the gradients, the nearest d to g₀ that serves every task.

    Raises:
        ValueError: `c` below 0, an unknown `rescale`.
    """
    k = check_tasks("cagrad", num_tasks)
    check_number("cagrad", "c", c, least=0)
    if rescale not in (0, 1, 2):
        raise ValueError(f"cagrad: rescale must be one of 0, 1, 2; got {rescale!r}")

    def update(seen: Seen, state: State) -> tuple[Answer, State]:
        solution = conflict_averse(*seen.gramian, c)
        divisor = (1.0, 1 + c**2, 1 + c)[rescale]
        weights = (solution.weights / divisor).astype(solution.weights.dtype)
        return Answer(weights, residual=solution.residual), state

    return Method("cagrad", k, stateless, update, needs="gramian")
