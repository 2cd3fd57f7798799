"""MoDo: double sampling. Chen, Fernando, Ying, Chen, NeurIPS 2023, algorithm 1."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jmtl.checks import check_number, check_tasks
from jmtl.method import Answer, Method, Seen
from jmtl.products import compute_dtype
from jmtl.solvers.simplex import project_on_simplex


class MoDoState(NamedTuple):
    """`weights` `[K]`, on the simplex."""

    weights: Float[Array, " K"]


def modo(num_tasks: int, gamma: float = 1e-3, rho: float = 0.1) -> Method:
    """MoDo: the min-norm weights move by projected steps whose direction is unbiased.

    w ← Π(w − γ(J₁J₂ᵀ + ρI) w), Π the projection on the simplex and J₁, J₂ the task gradients of two
    independent batches; the update is J₃ᵀw, of a third. w starts at 1/K. 2K backward passes and
    one weighted one. The raw products drive w, as in the paper: γ has to fit the gradients' scale.
    Public implementations average the heads' gradients over the three batches; here the heads
    learn from the third.

    Args:
        num_tasks: K.
        gamma: γ, the step of w, ≥ 0.
        rho: ρ, the regularisation of w, ≥ 0.

    Returns:
        A Gramian method of three batches, with weights on the simplex.

    Raises:
        ValueError: an option outside its range.
    """
    k = check_tasks("modo", num_tasks)
    check_number("modo", "gamma", gamma, least=0)
    check_number("modo", "rho", rho, least=0)

    def init(shared_params: Any) -> MoDoState:
        return MoDoState(jnp.full((k,), 1 / k, compute_dtype(shared_params)))

    def update(seen: Seen, state: MoDoState) -> tuple[Answer, MoDoState]:
        old = state.weights
        inner, left, right = seen.cross
        pulled = left * jnp.matmul(inner, right * old, precision=jax.lax.Precision.HIGHEST)
        weights = project_on_simplex(old - gamma * (pulled + rho * old)).astype(old.dtype)
        return Answer(weights), MoDoState(weights)

    return Method("modo", k, init, update, needs="gramian", batches=3)
