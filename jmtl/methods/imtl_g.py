"""Impartial multi-task learning, its gradient balance. Liu et al., ICLR 2021, §3.1 (IMTL-G)."""

from jmtl.checks import check_tasks
from jmtl.method import Answer, Method, Seen, State, stateless
from jmtl.solvers.equal_angles import equal_projections


def imtl_g(num_tasks: int) -> Method:
    """IMTL-G: w ∝ G⁺ d with Σ w = 1, so the update projects equally on all unit gradients g_i/d_i.

    K backward passes, one K×K eigenproblem. The paper's whole method, IMTL, is
    `chain(imtl_l(K), imtl_g(K))`, on the command line `imtl_l+imtl_g`. Invariant to a scale of all
    gradients. Weights may be negative; where 1ᵀG⁺d < 0 the update goes against every task, and
    near 1ᵀG⁺d = 0 it grows without bound, by definition. Where it is 0 to rounding no such update
    exists: the weights are 0 and the residual 1. A task of zero gradient weighs 0. Public
    implementations differ: LibMTL inverts a matrix of differences, which dependent gradients make
    singular; the authors leave the heads' gradients alone, LibMTL scales them.

    Args:
        num_tasks: K.

    Returns:
        A Gramian method; the residual is the error of the equal projections, of order 1 where
        dependent gradients have none.
    """
    k = check_tasks("imtl_g", num_tasks)

    def update(seen: Seen, state: State) -> tuple[Answer, State]:
        solution = equal_projections(*seen.gramian)
        return Answer(solution.weights, residual=solution.residual), state

    return Method("imtl_g", k, stateless, update, needs="gramian")
