"""The direction with given cosines to every task gradient: C⁺ t on the unit gradients."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jmtl.solvers.nonnegative import Solution, all_finite, dot


class UnitSolution(NamedTuple):
    """The least-squares solution on the unit task gradients.

    Attributes:
        point: `[K]` C⁺ t, coefficients on the unit gradients; 0 where nothing of t can be met.
        fitted: `[K]` C C⁺ t: the nearest to t that inner products with unit gradients can be.
        residual: `[]` the largest |C v − t|, over the largest |t|, among nonzero gradients.
        rank: `[]` of C.
        roots: `[K, K]` V√Λ over the eigenpairs kept, else zero: C = roots rootsᵀ.
    """

    point: Float[Array, "K"]
    fitted: Float[Array, "K"]
    residual: Float[Array, ""]
    rank: Int[Array, ""]
    roots: Float[Array, "K K"]


def at_angles(cosine: Float[Array, "K K"], target: Float[Array, "K"]) -> UnitSolution:
    """Solves u_i·x = t_i on unit gradients u for the shortest x = Σ v_i u_i, in least squares.

    Eigenvalues below K eps λ_max count as zero; one step of refinement follows.

    Args:
        cosine: `[K, K]` cosines of the task gradients; zero rows have zero entries.
        target: `[K]` t, dimensionless.

    Returns:
        The solution; its residual is the error of the equations: of order 1 where rows depend on
        each other and no x meets them.
    """
    size, dtype = target.shape[0], target.dtype
    eps = jnp.finfo(dtype).eps
    finite = all_finite(cosine, target)
    live = jnp.diagonal(cosine) != 0
    cosine = jnp.where(finite, cosine, 0.0)
    target = jnp.where(finite & live, target, 0.0)
    values, vectors = jnp.linalg.eigh(cosine)
    kept = values > size * eps * values[-1]
    vectors = jnp.where(kept[None, :], vectors, 0.0)

    def apply(vector: Float[Array, "K"]) -> Float[Array, "K"]:
        return dot(vectors, dot(vectors.T, vector) / jnp.where(kept, values, 1.0))

    full = jnp.sum(kept) == jnp.sum(live)
    fitted = jnp.where(full, target, dot(vectors, dot(vectors.T, target)))
    largest = jnp.max(jnp.abs(target))
    # What is left of t is rounding: opposite gradients have no common direction.
    none = jnp.max(jnp.abs(fitted)) <= 4 * size * eps * largest
    fitted = jnp.where(none, 0.0, fitted)
    point = apply(fitted)
    point = point + apply(fitted - dot(cosine, point))
    error = jnp.max(jnp.where(live, jnp.abs(dot(cosine, point) - target), 0.0))
    residual = error / jnp.where(largest > 0, largest, 1.0)
    nan = jnp.asarray(jnp.nan, dtype)
    return UnitSolution(
        jnp.where(finite, point, nan),
        jnp.where(finite, fitted, nan),
        jnp.where(finite, residual, nan),
        jnp.sum(kept),
        vectors * jnp.sqrt(jnp.where(kept, values, 0.0))[None, :],
    )


def equal_projections(cosine: Float[Array, "K K"], norms: Float[Array, "K"]) -> Solution:
    """Weights w ∝ G⁺ d with Σ w = 1: the combination with equal projections on all unit gradients.

    For independent gradients G⁺ d is (C⁻¹ 1)_i / d_i, and only ratios of norms appear. Else, with
    C = R Rᵀ and B the rows of R times d, G⁺ = (B⁺)ᵀ B⁺, whose small tasks keep digits down to eps
    times the largest norm.

    Args:
        cosine: `[K, K]` cosines C of the task gradients; zero rows have zero entries.
        norms: `[K]` norms d of the task gradients, any scale.

    Returns:
        Weights `[K]`, 0 on zero rows, and all 0 where 1ᵀG⁺d is 0 to rounding (no such combination
        exists: the residual is then 1). The residual is the largest |u_i·x − 1| for x = Jᵀ G⁺ d,
        of order 1 where equal projections do not exist.

    References:
        Liu et al., Towards impartial multi-task learning, 2021, equation 6.
    """
    size, dtype = norms.shape[0], norms.dtype
    eps = jnp.finfo(dtype).eps
    finite = all_finite(cosine, norms)
    cosine, norms = jnp.where(finite, cosine, 0.0), jnp.where(finite, norms, 0.0)
    live = norms != 0
    largest = jnp.max(norms)
    lengths = norms / jnp.where(largest > 0, largest, 1.0)
    solved = at_angles(cosine, jnp.ones_like(norms))

    left, values, _ = jnp.linalg.svd(lengths[:, None] * solved.roots)
    kept = (jnp.arange(size) < solved.rank) & (values > size * eps * values[0])
    inverse = jnp.where(kept, 1 / jnp.where(kept, values, 1.0), 0.0)
    reached = jnp.where(kept, dot(left.T, lengths), 0.0)
    # What is left of d is rounding where opposite gradients have no common direction.
    reached = jnp.where(jnp.max(jnp.abs(reached)) > 4 * size * eps, reached, 0.0)
    # v = d w throughout: coefficients on unit gradients.
    dependent = lengths * dot(left, inverse * (inverse * reached))
    independent = solved.rank == jnp.sum(live)
    unit = jnp.where(independent, solved.point, dependent)
    error = jnp.max(jnp.where(live, jnp.abs(dot(cosine, unit) - 1), 0.0))

    smallest = jnp.min(jnp.where(live, norms, jnp.inf))
    raw = jnp.where(live, unit * smallest / jnp.where(live, norms, 1.0), 0.0)
    total = jnp.sum(raw)
    exists = jnp.abs(total) > 4 * size * eps * jnp.sum(jnp.abs(raw))
    weights = jnp.where(exists, raw / jnp.where(exists, total, 1.0), 0.0)
    residual = jnp.where(exists | ~jnp.any(live), error, 1.0)
    nan = jnp.asarray(jnp.nan, dtype)
    return Solution(jnp.where(finite, weights, nan), jnp.where(finite, residual, nan))
