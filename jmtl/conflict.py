"""Measures of conflict between tasks: from the Gramian of their gradients wherever it suffices."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float, Int

from jmtl.gradients import value_and_task_grads
from jmtl.gramian import Gramian, TaskGrads, layer_gramians


def cosine(gramian: Gramian) -> Float[Array, "K K"]:
    """Pairwise cosines `[K, K]` in [-1, 1]; 0 where a task's gradient is zero."""
    return gramian.cosine


def conflict_rate(gramian: Gramian) -> Float[Array, ""]:
    """The share of pairs of tasks whose gradients have a negative cosine, in [0, 1]; 0 for K = 1.

    Conflict as in PCGrad (Yu et al. 2020, definition 1). NaN where a cosine is.
    """
    k = len(gramian.norms)
    if k == 1:
        return jnp.zeros((), gramian.cosine.dtype)
    pairs = gramian.cosine[jnp.triu_indices(k, 1)]
    return jnp.where(jnp.any(jnp.isnan(pairs)), jnp.nan, jnp.mean(pairs < 0))


def magnitude_similarity(gramian: Gramian) -> Float[Array, "K K"]:
    """2‖g_i‖‖g_j‖ / (‖g_i‖² + ‖g_j‖²) `[K, K]` in [0, 1] (Yu et al. 2020, definition 2).

    0 where one of the two gradients is zero; 1 where both are, which do not differ in size.
    """
    norms = gramian.norms
    larger = jnp.maximum(norms[:, None], norms[None, :])
    ratio = jnp.minimum(norms[:, None], norms[None, :]) / jnp.where(larger == 0, 1, larger)
    return jnp.where(larger == 0, 1.0, 2 * ratio / (1 + ratio**2))


def condition_number(gramian: Gramian) -> Float[Array, ""]:
    """The condition number of J, its largest over its smallest singular value, at least 1.

    Infinite where the Gramian cannot tell the smallest from zero: in float32 above about
    1e3, since the Gramian squares it. Depends on the tasks' relative scales, as J does. Where it is
    large, the tasks' gradients are nearly dependent or of very different size (Senushkin et al.,
    Independent component alignment for multi-task learning, CVPR 2023, eq. 3).
    """
    largest = jnp.max(gramian.norms)
    scale = gramian.norms / jnp.where(largest == 0, 1, largest)
    values = jnp.linalg.eigvalsh(gramian.cosine * scale[:, None] * scale[None, :])
    lost = values[0] <= len(values) * jnp.finfo(values.dtype).eps * values[-1]
    ratio = jnp.sqrt(values[-1] / jnp.where(lost, 1, values[0]))
    return jnp.where(lost, jnp.inf, jnp.maximum(ratio, 1))


def layer_conflicts(task_grads: TaskGrads, threshold: float = 0.0) -> dict[str, Int[Array, ""]]:
    """How many pairs of tasks conflict in each layer, by the layer's path.

    Summed over the steps of a training this is the conflict score by which Recon chooses the layers
    to make task-specific (Guangyuan et al., Recon, ICLR 2023, definition 2). A layer is a group of
    leaves that share their parent's path.

    Args:
        task_grads: a pytree with leaves `[K, ...]`.
        threshold: pairs with a cosine below it count; the paper uses 0 to −0.1.
    """

    def count(gramian: Gramian) -> Int[Array, ""]:
        pairs = gramian.cosine[jnp.triu_indices(len(gramian.norms), 1)]
        return jnp.sum(pairs < threshold)

    return {name: count(gramian) for name, gramian in layer_gramians(task_grads).items()}


def curvature(
    losses: Callable[..., Any], params: Any, new_params: Any, *args: Any, points: int = 8
) -> Float[Array, ""]:
    """Multi-task curvature: ∫₀¹ ∇L(θ)ᵀ ∇²L(θ + a(θ′ − θ)) ∇L(θ) da with L = Σ L_i.

    The curvature along the multi-task gradient, averaged on the way from θ to θ′ (Yu et al. 2020,
    definition 3). By Hessian-vector products at the points of a Gauss–Legendre rule: exact where
    the Hessian is a polynomial of degree below 2 `points` on the way.

    Args:
        losses: `(params, *args) -> K losses`.
        params: θ.
        new_params: θ′, of the same structure.
        *args: the losses' other arguments.
        points: of the rule, at least 1.
    """

    def total(params: Any) -> Array:
        return jnp.sum(jnp.stack(list(losses(params, *args))))

    gradient = jax.grad(total)
    direction = gradient(params)
    nodes, weights = np.polynomial.legendre.leggauss(points)

    def along(a: Array) -> Array:
        here = jax.tree.map(
            lambda old, new: old + (a * (new - old)).astype(old.dtype), params, new_params
        )
        _, product = jax.jvp(gradient, (here,), (direction,))
        parts = jax.tree.map(
            lambda d, p: jnp.vdot(d, p, precision=lax.Precision.HIGHEST), direction, product
        )
        return sum(jax.tree.leaves(parts), start=jnp.zeros(()))

    values = lax.map(along, jnp.asarray((nodes + 1) / 2, float))
    return jnp.vdot(jnp.asarray(weights / 2, values.dtype), values)


def affinity(
    losses: Callable[..., Any], shared: Any, tasks: Any, *args: Any, learning_rate: float
) -> Float[Array, "K K"]:
    """Inter-task affinity: Z_ij = 1 − L_j(θ − η g_i) / L_j(θ), `[K, K]`.

    Positive where a step of task i alone on the shared parameters lowers task j's loss on the same
    batch (Fifty et al., Efficiently identifying task groupings (TAG), NeurIPS 2021, eq. 1). K more
    forward passes. NaN or infinite in columns of tasks whose loss is 0.

    Args:
        losses: `(shared, tasks, *args) -> K losses`.
        shared: θ.
        tasks: the tasks' own parameters, held fixed.
        *args: the losses' other arguments.
        learning_rate: η of the look-ahead step.
    """
    values, (grads, _) = value_and_task_grads(losses, split=True)(shared, tasks, *args)

    def after(gradient: Any) -> Array:
        moved = jax.tree.map(lambda p, g: p - (learning_rate * g).astype(p.dtype), shared, gradient)
        return jnp.stack(list(losses(moved, tasks, *args)))

    return 1 - jax.vmap(after)(grads) / values[None, :]
