"""The trimmed mean, element by element. Yin et al., ICML 2018, definition 2."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jmtl.checks import check_count, check_tasks
from jmtl.method import Answer, Method, Seen, State, stateless
from jmtl.products import compute_dtype


def trim_rows(grads: Float[Array, "K ..."], trim: int) -> Float[Array, "..."]:
    """The mean of each element over tasks, without its `trim` largest and smallest values."""
    kept = jnp.sort(grads, axis=0)[trim : grads.shape[0] - trim]
    # Sorting puts a NaN among the largest; dropping it there would hide it.
    broken = jnp.any(jnp.isnan(grads), axis=0)
    return jnp.where(broken, jnp.nan, jnp.mean(kept, axis=0))


def trimmed_mean(num_tasks: int, trim: int = 1) -> Method:
    """Trimmed mean: for every element, the mean of what is left without its extremes.

    A robust mean from distributed learning: up to `trim` tasks with arbitrary gradients cannot
    carry the update beyond the range of the others. K backward passes, the stack of gradients and
    a sort of K values an element. Scales with the gradients; ±inf counts as an extreme, NaN stays.

    Args:
        num_tasks: K, above 2 `trim`.
        trim: how many of the largest and how many of the smallest to drop; the paper has the
            fraction β = trim / K.

    Returns:
        A gradient method; its weights are NaN.

    Raises:
        ValueError: `trim` is negative, not whole, or leaves nothing.
    """
    k = check_tasks("trimmed_mean", num_tasks)
    trim = check_count("trimmed_mean", "trim", trim, 0)
    if k <= 2 * trim:
        raise ValueError(
            f"trimmed_mean: trim={trim} drops {2 * trim} of num_tasks={k} values and leaves none: "
            f"give at least {2 * trim + 1} tasks or a smaller trim"
        )

    def update(seen: Seen, state: State) -> tuple[Answer, State]:
        def one(leaf: Array) -> Array:
            return trim_rows(leaf.astype(compute_dtype(leaf)), trim).astype(leaf.dtype)

        weights = jnp.full((k,), jnp.nan, compute_dtype(seen.gradients))
        return Answer(weights, gradient=jax.tree.map(one, seen.gradients)), state

    return Method("trimmed_mean", k, stateless, update, needs="gradients")
