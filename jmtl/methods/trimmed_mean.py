"""The trimmed mean, element by element. Yin et al., ICML 2018, definition 2."""

import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jmtl.checks import check_count, check_tasks
from jmtl.method import Answer, Method, Seen, State, stateless
from jmtl.products import compute_dtype

NETWORK = 40
"""The largest K whose rows are sorted by a network: 305 comparisons an element."""


def sorting_network(k: int) -> list[tuple[int, int]]:
    """The pairs (i, j), i < j, that sort k values when each in turn puts the smaller at i.

    Batcher's odd-even merges, 1968: 19 pairs for 8 values, 63 for 16, 305 for 40.
    """
    pairs = []
    for run in (2**n for n in range((k - 1).bit_length())):  # sorted runs become twice as long
        for step in (run >> n for n in range(run.bit_length())):
            for i in range(step % run, k - step):
                in_step = (i - step % run) % (2 * step) < step
                if in_step and i // (2 * run) == (i + step) // (2 * run):
                    pairs.append((i, i + step))
    return pairs


def trim_rows(grads: Float[Array, "K ..."], trim: int) -> Float[Array, "..."]:
    """The mean of each element over tasks, without its `trim` largest and smallest values."""
    if len(grads) > NETWORK:
        kept = list(jnp.sort(grads, axis=0)[trim : len(grads) - trim])
        # Sorting puts a NaN among the largest; dropping it there would hide it.
        kept[0] = jnp.where(jnp.any(jnp.isnan(grads), axis=0), jnp.nan, kept[0])
    else:
        # XLA fuses the network into one pass over the stack, without a copy of it; its sort over
        # the first axis took 70 times as long (8 rows of 11 million, 2 cores, jax 0.10).
        kept = list(grads)
        for i, j in sorting_network(len(grads)):
            # Either of a NaN is NaN, and every place of the network leads to every other.
            kept[i], kept[j] = jnp.minimum(kept[i], kept[j]), jnp.maximum(kept[i], kept[j])
        kept = kept[trim : len(grads) - trim]
    return functools.reduce(jnp.add, kept) / len(kept)


def trimmed_mean(num_tasks: int, trim: int = 1) -> Method:
    """Trimmed mean: for every element, the mean of what is left without its extremes.

    A robust mean from distributed learning: up to `trim` tasks with arbitrary gradients cannot
    carry the update beyond the range of the others. K backward passes, the stack of gradients and
    a sort of K values an element, which takes a second stack above K = 40. Scales with the
    gradients; ±inf counts as an extreme, NaN stays.

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
