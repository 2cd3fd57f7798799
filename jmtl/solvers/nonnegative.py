"""Nonnegative quadratic programs, by an active set, on the device.

Gradient surgery meets one problem again and again: a positive semidefinite K×K matrix (cosines of
task gradients, often singular) and weights that must not be negative.

    v = argmin ½ vᵀMv − bᵀv   subject to  v ≥ 0

The method is Lawson and Hanson's (Solving Least Squares Problems, 1974, chapter 23) on the normal
equations: free one coordinate at a time, solve on the free ones, step back to the boundary where
that solution leaves it. Each solve is a proximal step from the current point, so that a singular
matrix gives a finite direction and repeated steps remove the bias of the proximal term. A Gramian
computed in floating point can be indefinite by more than that term; a failed factorisation then
shifts the diagonal for good.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int


class Solution(NamedTuple):
    """Weights on the raw task gradients and how far they are from optimal.

    Attributes:
        weights: `[K]` (or `[M, K]`) coefficients of the task gradients.
        residual: `[]` (or `[M]`) relative violation of the optimality condition, dimensionless.
            NaN where the input was not finite.
    """

    weights: Float[Array, "*batch K"]
    residual: Float[Array, "*batch"]


class NonnegativeSolution(NamedTuple):
    """The solution of a nonnegative quadratic program.

    Attributes:
        point: `[K]` v, nonnegative.
        residual: `[]` largest violation of Mv − b ≥ 0 (and = 0 where v > 0), relative to the terms
            summed in it.
        steps: `[]` linear systems solved.
    """

    point: Float[Array, "K"]
    residual: Float[Array, ""]
    steps: Int[Array, ""]


class _State(NamedTuple):
    point: Float[Array, "K"]
    free: Bool[Array, "K"]
    barred: Bool[Array, "K"]  # freed, but bound to go down: not again before the point has moved
    shift: Float[Array, ""]  # added to the diagonal where rounding left the matrix indefinite
    done: Bool[Array, ""]
    steps: Int[Array, ""]


def dot(matrix: Float[Array, "M K"], vector: Float[Array, "K"]) -> Float[Array, "M"]:
    """Matrix times vector, at full precision on every device."""
    return jnp.matmul(matrix, vector, precision=lax.Precision.HIGHEST)


def all_finite(*arrays: Float[Array, "..."]) -> Bool[Array, ""]:
    """Whether every entry of every array is finite."""
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(array)) for array in arrays]))


def solve_nonnegative(
    matrix: Float[Array, "K K"],
    linear: Float[Array, "K"],
    start: Float[Array, "K"] | None = None,
    tolerance: float = 2.0,
) -> NonnegativeSolution:
    """Minimises ½ vᵀMv − bᵀv over v ≥ 0.

    Args:
        matrix: `[K, K]` M, symmetric and positive semidefinite to rounding, diagonal of order 1
            (or a zero row and column).
        linear: `[K]` b.
        start: `[K]` a nonnegative guess; its positive entries start free.
        tolerance: the condition is met when it is violated by at most this many times the rounding
            unit of the dtype, relative to Σ_j |M_ij| v_j + |b_i|.

    Returns:
        The point, its residual and the number of systems solved, at most 4K + 20. Input that is
        not finite gives NaN at once.
    """
    size = linear.shape[0]
    eps = jnp.finfo(linear.dtype).eps
    limit = 4 * size + 20
    finite = all_finite(matrix, linear)
    matrix, linear = jnp.where(finite, matrix, 0.0), jnp.where(finite, linear, 0.0)
    magnitude = jnp.abs(matrix)
    ridge = 4 * eps
    identity = jnp.eye(size, dtype=linear.dtype)

    def descent(point: Float[Array, "K"], shift: Float[Array, ""]) -> Float[Array, "K"]:
        return linear - dot(matrix, point) - shift * point

    def slack(point: Float[Array, "K"]) -> Float[Array, "K"]:
        return dot(magnitude, point) + jnp.abs(linear)

    def step(state: _State) -> _State:
        point, free = state.point, state.free
        system = jnp.where(free[:, None] & free[None, :], matrix, 0.0)
        system = system + identity * jnp.where(free, state.shift + ridge, 1.0)[:, None]
        factor = jnp.linalg.cholesky(system, symmetrize_input=False)

        def proximal(candidate: Float[Array, "K"]) -> Float[Array, "K"]:
            pull = jnp.where(free, descent(candidate, state.shift), 0.0)
            return candidate + jax.scipy.linalg.cho_solve((factor, True), pull)

        target = proximal(proximal(point))
        definite = jnp.all(jnp.isfinite(target))
        target = jnp.where(definite, target, point)
        falling = free & (target <= 0)
        feasible = ~jnp.any(falling)
        ratio = jnp.where(falling, point / jnp.where(falling, point - target, 1.0), 1.0)
        ratio = jnp.where(falling & (point == target), 0.0, ratio)
        length = jnp.min(ratio)
        hit = falling & (ratio <= length)
        point = jnp.where(hit | ~free, 0.0, point + length * (target - point))
        free = free & ~hit & (point > 0)
        barred = jnp.where(length > 0, False, state.barred | hit)

        pull, bound = descent(point, state.shift), tolerance * eps * slack(point)
        unsettled = jnp.max(jnp.where(free & (jnp.abs(pull) > bound), jnp.abs(pull), 0.0))
        gain = jnp.where(~free & ~barred & (pull > bound), pull, 0.0)
        best = jnp.max(gain)
        grow = feasible & (best > 0) & (unsettled <= 0.1 * best)
        free = free | (grow & (jnp.arange(size) == jnp.argmax(gain)))
        # A step that leaves the point where it was has reached the end of its digits.
        stuck = jnp.all(point == state.point) & jnp.all(free == state.free) & (length > 0)
        done = feasible & (best == 0) & ((unsettled == 0) | stuck)
        moved = _State(point, free, barred, state.shift, done, state.steps + 1)
        shifted = state._replace(
            shift=jnp.maximum(8 * state.shift, size * eps), steps=state.steps + 1
        )
        return jax.tree.map(lambda a, b: jnp.where(definite, a, b), moved, shifted)

    zeros = jnp.zeros_like(linear)
    point = zeros if start is None else jnp.where(finite & (start > 0), start, 0.0)
    pull = descent(point, jnp.zeros_like(linear[0]))
    first = (jnp.arange(size) == jnp.argmax(pull)) & (pull > 0) & ~jnp.any(point > 0)
    free = (point > 0) | first
    state = _State(
        point,
        free,
        barred=jnp.zeros(size, bool),
        shift=jnp.zeros((), linear.dtype),
        done=~jnp.any(free),
        steps=jnp.zeros((), jnp.int32),
    )
    state = lax.while_loop(lambda s: ~s.done & (s.steps < limit), step, state)

    pull, scale = linear - dot(matrix, state.point), slack(state.point)
    violation = jnp.where(state.point > 0, jnp.abs(pull), jnp.maximum(pull, 0.0))
    residual = jnp.max(jnp.where(scale > 0, violation / jnp.where(scale > 0, scale, 1.0), 0.0))
    nan = jnp.asarray(jnp.nan, linear.dtype)
    return NonnegativeSolution(
        jnp.where(finite, state.point, nan), jnp.where(finite, residual, nan), state.steps
    )
