"""Aligned-MTL: principal components made equal. Senushkin et al., CVPR 2023, eq. 12."""

from jaxtyping import Array, Float

from jmtl.checks import check_choice, check_tasks, per_task
from jmtl.method import Answer, Method, Seen, State, stateless
from jmtl.solvers.spectral import Scale, balance


def aligned(
    num_tasks: int,
    scale: Scale = "min",
    preference: float | Float[Array, " K"] | None = None,
) -> Method:
    """Aligned-MTL: w = √λ V Λ^(−½) Vᵀ p over the eigenpairs (Λ, V) of G above rounding.

    The rows of J are replaced by orthogonal ones of equal length √λ, the nearest such, and combined
    with p. K backward passes, one K×K eigenproblem. Scales with the gradients. Eigenvalues below
    K eps λ_max, eps of float32, count as zero; public implementations use an absolute or another
    bound, and p = 1 (LibMTL).

    Args:
        num_tasks: K.
        scale: λ: "min", the smallest eigenvalue kept; "median", the lower one; "rmse", their mean.
        preference: p, `[K]` or one number; 1/K by default.

    Returns:
        A Gramian method; the residual is the eigenpairs' largest error over λ_max.

    Raises:
        ValueError: an unknown `scale`, a preference that is not finite or of another shape.
    """
    k = check_tasks("aligned", num_tasks)
    check_choice("aligned", "scale", scale, ("min", "median", "rmse"))
    given = per_task("aligned", "preference", 1 / k if preference is None else preference, k)

    def update(seen: Seen, state: State) -> tuple[Answer, State]:
        cosine, norms = seen.gramian
        solution = balance(cosine, norms, given.astype(norms.dtype), scale)
        return Answer(solution.weights, residual=solution.residual), state

    return Method("aligned", k, stateless, update, needs="gramian")
