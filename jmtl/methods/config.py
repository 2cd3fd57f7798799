"""ConFIG: the conflict-free direction of equal cosines. Liu, Chu, Thuerey, ICLR 2025, eq. 2."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from jmtl.checks import check_tasks, per_task
from jmtl.method import Answer, Method, Seen, State, stateless
from jmtl.solvers.equal_angles import at_angles


def config(num_tasks: int, preference: float | Float[Array, " K"] = 1.0) -> Method:
    """ConFIG: û = normalise(U⁺ p), U the unit gradients; the update is (Σ_i g_i·û) û.

    On the cosines C alone: U⁺ = Uᵀ C⁺, v = C⁺ p and Σ_i g_i·û = Σ d_i (C v)_i / √(vᵀCv), so
    w_i = (Σ_j d_j (C v)_j) v_i / (p·v d_i). K backward passes, one K×K eigenproblem. With p = 1
    every task has the same cosine with the update, which conflicts with none where the gradients
    are independent. Scales with the gradients; a sum over tasks, K times an average. Where nothing
    of p can be met (opposite gradients) the update is 0 and the residual 1; a task of zero gradient
    weighs 0. Equal cosines are not equal inner products: some descriptions say so.

    Args:
        num_tasks: K.
        preference: p, `[K]` or one number, >= 0: the ratios of the cosines.

    Returns:
        A Gramian method; the residual is the error of the cosines, of order 1 where dependent
        gradients have no such direction.

    Raises:
        ValueError: a preference below 0 or of another shape.
    """
    k = check_tasks("config", num_tasks)
    ratios = per_task("config", "preference", preference, k, least=0)

    def update(seen: Seen, state: State) -> tuple[Answer, State]:
        cosine, norms = seen.gramian
        solved = at_angles(cosine, ratios.astype(norms.dtype))
        square = jnp.sum(solved.fitted * solved.point)
        unit = solved.point / jnp.where(square == 0, 1, square)
        # Norms meet as ratios, one task at a time: products of norms could overflow.
        share = norms[None, :] / jnp.where(norms == 0, 1, norms)[:, None]
        length = jnp.where(norms == 0, 0, jnp.sum(share * solved.fitted[None, :], axis=1))
        return Answer(length * unit, residual=solved.residual), state

    return Method("config", k, stateless, update, needs="gramian")
