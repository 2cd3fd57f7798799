"""MGDA: the shortest convex combination. Désidéri 2012; Sener & Koltun, NeurIPS 2018, eq. 3."""

from typing import Literal

import jax.numpy as jnp

from jmtl.checks import check_choice, check_tasks
from jmtl.method import Answer, Method, Seen, State, stateless
from jmtl.solvers.min_norm import min_norm


def mgda(
    num_tasks: int,
    normalize: Literal["none", "l2", "loss", "loss+"] = "none",
    scales_heads: bool = True,
) -> Method:
    """MGDA: w = argmin ‖Σ w_i g_i‖² over the simplex; the update Σ w_i g_i conflicts with no task.

    Solved exactly on the cosines, where the authors' code stops Frank–Wolfe at 250 steps and
    LibMTL's at 100. K backward passes; MGDA-UB is this method with
    `value_and_grads(..., at="representation")`. The update is exactly zero when one task's gradient
    is zero.

    Args:
        num_tasks: K.
        normalize: what each gradient is divided by in the search for w, as in the authors' code:
            "none"; "l2" its norm; "loss" its task's loss; "loss+" the product of both. The update
            is the combination of the gradients as they are. A loss of 0 or below, beside a
            gradient that is not zero, answers NaN.
        scales_heads: whether w multiplies the tasks' own gradients too, as in the authors' code.

    Returns:
        A Gramian method with the solver's residual.

    Raises:
        ValueError: an unknown `normalize`.
    """
    k = check_tasks("mgda", num_tasks)
    check_choice("mgda", "normalize", normalize, ("none", "l2", "loss", "loss+"))
    by_loss = normalize.startswith("loss")

    def update(seen: Seen, state: State) -> tuple[Answer, State]:
        cosine, norms = seen.gramian
        if normalize in ("l2", "loss+"):
            norms = norms / jnp.where(norms == 0, 1, norms)
        if by_loss:
            positive = seen.losses > 0
            scaled = norms / jnp.where(positive, seen.losses, 1).astype(norms.dtype)
            # A task that no example of the batch has comes with loss zero and gradient zero.
            norms = jnp.where(positive | (norms == 0), scaled, jnp.nan)
        solution = min_norm(cosine, norms)
        return Answer(solution.weights, residual=solution.residual), state

    return Method(
        "mgda",
        k,
        stateless,
        update,
        needs="gramian",
        uses_losses=by_loss,
        scales_heads=scales_heads,
    )
