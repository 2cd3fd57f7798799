"""Weights averaged over steps: CR-MOGM. Zhou et al., NeurIPS 2022, algorithm 1."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jmtl.checks import check_number
from jmtl.gramian import Gramian
from jmtl.method import Answer, Method, Seen, State
from jmtl.products import Products, compute_dtype


class SmoothState(NamedTuple):
    """What `smooth` remembers.

    Attributes:
        weights: `[K]` of the last step; 0 before the first.
        step: `[]` updates so far.
        method: the inner method's own state.
    """

    weights: Float[Array, " K"]
    step: Int[Array, ""]
    method: State


def shape_of_answer(method: Method) -> Answer:
    """The shapes of a method's answer for one scalar parameter, without computing it."""
    k = method.num_tasks
    params = jax.ShapeDtypeStruct((), jnp.float32)
    row: Any = jax.ShapeDtypeStruct((k,), jnp.float32)
    square: Any = jax.ShapeDtypeStruct((k, k), jnp.float32)
    seen = Seen(row, Gramian(square, row), Products(square, row, row), row)
    return jax.eval_shape(method.update, seen, jax.eval_shape(method.init, params))[0]


def smooth(method: Method, beta: float = 0.9) -> Method:
    """Averages a method's weights over steps: w_t = β w_{t−1} + (1 − β) ŵ_t, ŵ the method's.

    Weights that come from one batch's gradients are noisy, and biased by depending on the same
    batch as the gradients they weigh; the average lessens both. Costs what the method costs. The
    first step has the method's own weights, as nothing else has their sum; the paper leaves w₀
    open, and some public implementations start at 1/K.

    Where the method's weights multiply the tasks' own gradients (loss methods, `scales_heads`), the
    averaged ones do.

    Args:
        method: any method whose update is a weighted sum of the task gradients.
        beta: β, what is kept of the average, in [0, 1]; 0 is the method itself.

    Returns:
        A method of the same needs. A NaN among the weights stays from then on.

    Raises:
        ValueError: a method without weights; `beta` out of range.
    """
    check_number("smooth", "beta", beta, least=0, most=1)
    if shape_of_answer(method).gradient is not None:
        raise ValueError(
            f"smooth averages weights, and {method.name} answers with a gradient, without weights"
        )

    def init(shared_params: Any) -> SmoothState:
        weights = jnp.zeros((method.num_tasks,), compute_dtype(shared_params))
        return SmoothState(weights, jnp.zeros((), jnp.int32), method.init(shared_params))

    def update(seen: Seen, state: SmoothState) -> tuple[Answer, SmoothState]:
        answer, own = method.update(seen, state.method)
        new = answer.weights.astype(state.weights.dtype)
        average = (beta * state.weights + (1 - beta) * new).astype(new.dtype)
        weights = jnp.where(state.step == 0, new, average)
        heads = weights if answer.heads is answer.weights else answer.heads
        answer = answer._replace(weights=weights, heads=heads)
        return answer, SmoothState(weights, state.step + 1, own)

    def observe(before: Array, after: Array, state: SmoothState) -> SmoothState:
        assert method.observe is not None
        return state._replace(method=method.observe(before, after, state.method))

    return method._replace(
        name=f"smooth({method.name})",
        init=init,
        update=update,
        observe=observe if method.observe else None,
    )
