"""SDMGrad: direction-oriented descent. Xiao, Ban, Ji, NeurIPS 2023, algorithm 1."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float

from jmtl.checks import check_count, check_number, check_tasks
from jmtl.method import Answer, Method, Seen
from jmtl.products import Products, compute_dtype
from jmtl.solvers.simplex import project_on_simplex


class SDMGradState(NamedTuple):
    """`weights` `[K]`, on the simplex: where the next step's search starts."""

    weights: Float[Array, " K"]


def normalized(cross: Products) -> Float[Array, "K K"]:
    """J₁J₂ᵀ / mean(√diag)², at any scale; zeros where the diagonal has no positive entry.

    There the two batches agree on no task, nothing says how long a step is, and w stays.
    """

    def relative(x: Array) -> Array:
        largest = jnp.max(jnp.abs(x))
        return x / jnp.where(largest == 0, 1, largest)

    ratio = relative(cross.inner * relative(cross.left)[:, None] * relative(cross.right)[None, :])
    diagonal = jnp.diagonal(ratio)
    # Of independent batches the diagonal may be negative. The comparison keeps a NaN.
    length = jnp.mean(jnp.sqrt(jnp.where(diagonal < 0, 0, diagonal)))
    return jnp.where(length == 0, 0, ratio / jnp.where(length == 0, 1, length**2))


def sdmgrad(
    num_tasks: int,
    lambda_: float = 0.3,
    steps: int = 20,
    learning_rate: float = 10.0,
    momentum: float = 0.5,
) -> Method:
    """SDMGrad: MGDA's direction held near the mean gradient, from unbiased products.

    With J₁, J₂ the task gradients of two independent batches and M = J₁J₂ᵀ/mean(√diag)², w takes
    `steps` steps of SGD with momentum along Mw + λM1/K, each projected on the simplex, from the
    last step's w (1/K at first); the momentum starts anew. The update is
    J₃ᵀ(w + λ/K)/(1 + λ), of a third batch. 2K backward passes and one weighted one. Invariant to a
    scale of all gradients.

    The paper's algorithm has plain projected steps on the raw products; the normalisation, the
    momentum and the step are the authors' code, without its added 1e-4. Negative entries
    of the diagonal count as 0 (LibMTL; the authors' root gives NaN). The authors' code for
    supervised tasks stores the three batches in one buffer, so that its products are those of one
    batch; LibMTL, whose step is 5, has three. At the authors' rate of 10 the search overshoots
    from corner to corner of the simplex, so that rounding can decide where it ends.

    Args:
        num_tasks: K.
        lambda_: λ, the pull to the mean gradient, ≥ 0. 0 is MGDA by steps.
        steps: of the search for w, at least 1.
        learning_rate: of the search, ≥ 0.
        momentum: of the search, in [0, 1].

    Returns:
        A Gramian method of three batches, with weights on the simplex. The search has a fixed
        length, so the residual is 0 by definition.

    Raises:
        ValueError: an option outside its range.
    """
    k = check_tasks("sdmgrad", num_tasks)
    steps = check_count("sdmgrad", "steps", steps, 1)
    check_number("sdmgrad", "lambda_", lambda_, least=0)
    check_number("sdmgrad", "learning_rate", learning_rate, least=0)
    check_number("sdmgrad", "momentum", momentum, least=0, most=1)
    sgd = optax.chain(optax.trace(momentum), optax.scale(-learning_rate))

    def init(shared_params: Any) -> SDMGradState:
        return SDMGradState(jnp.full((k,), 1 / k, compute_dtype(shared_params)))

    def update(seen: Seen, state: SDMGradState) -> tuple[Answer, SDMGradState]:
        start = state.weights
        products = normalized(seen.cross).astype(start.dtype)

        def search(_: Array, carry: tuple[Array, Any]) -> tuple[Array, Any]:
            weights, velocity = carry
            pulled = weights + lambda_ / k
            slope = jnp.matmul(products, pulled, precision=lax.Precision.HIGHEST)
            change, velocity = sgd.update(slope.astype(start.dtype), velocity)
            moved = weights + change.astype(start.dtype)
            return project_on_simplex(moved), velocity

        weights, _ = lax.fori_loop(0, steps, search, (start, sgd.init(start)))
        return Answer((weights + lambda_ / k) / (1 + lambda_)), SDMGradState(weights)

    return Method("sdmgrad", k, init, update, needs="gramian", batches=3)
