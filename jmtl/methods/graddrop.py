"""GradDrop: picking a sign for every element. Chen et al., NeurIPS 2020, algorithm 1."""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, PRNGKeyArray

from jmtl.checks import check_key, check_tasks, per_task
from jmtl.method import Answer, Method, Seen, State, named_key
from jmtl.products import compute_dtype


class GradDropState(NamedTuple):
    """`key` draws the signs; `step` `[]` counts updates. The draws are of fold_in(key, step)."""

    key: PRNGKeyArray
    step: Int[Array, ""]


def pick_signs(
    grads: Float[Array, "K ..."], uniform: Float[Array, "..."], leak: Float[Array, " K"]
) -> Float[Array, "..."]:
    """The sum over tasks of the elements that have the picked sign.

    Args:
        grads: `[K, ...]` one leaf of the task gradients.
        uniform: `[...]` in [0, 1): an element keeps its positive gradients where it lies below
            the purity P, else its negative ones.
        leak: `[K]` in [0, 1]: the share of each task's gradient that is not dropped.
    """
    # Row by row: XLA fuses that into one pass over the stack, where each sum over its first axis
    # took longer than reading it (8 rows of 11 million, 2 cores, jax 0.10: 1,208 ms in all).
    rows = list(grads)
    # P = Σg₊ / Σ|g|, the same: exactly 0 or 1 where all signs agree.
    positive = _total([jnp.maximum(g, 0) for g in rows])
    magnitude = positive + _total([jnp.maximum(-g, 0) for g in rows])
    purity = positive / jnp.where(magnitude == 0, 1, magnitude)
    # P > U or P <= U, so that at P = 0 nothing is dropped at U = 0 either.
    upwards = purity > uniform

    def part(g: Array, leak: Array) -> Array:
        # What is not finite has no sign to pick and stays visible: XLA turns mask · NaN into 0.
        keep = jnp.where(upwards, g > 0, g < 0) | ~jnp.isfinite(g)
        return (leak + (1 - leak) * keep) * g

    return _total([part(g, share) for g, share in zip(rows, leak.astype(grads.dtype), strict=True)])


def _total(rows: Sequence[Array]) -> Array:
    return functools.reduce(jnp.add, rows)


def graddrop(
    num_tasks: int,
    key: PRNGKeyArray | None = None,
    leak: float | Sequence[float] | Float[Array, " K"] = 0.0,
) -> Method:
    """GradDrop: element by element, P = ½(1 + Σg/Σ|g|), U uniform in [0, 1).

    Where P > U the update sums the positive g_i, elsewhere the negative ones; a task leaks
    leak_i g_i through whatever the draw. K backward passes and the stack of gradients. Invariant to
    the scale of the gradients. The paper drops the gradients of an activation, times the sign of
    its values; on parameters, as here, in TorchJD and in most comparisons, there is no such sign.
    Some public implementations take the mean over tasks.

    One number is drawn for each element, of fold_in(fold_in(key, step), index of the leaf): the
    same on every device.

    Args:
        num_tasks: K.
        key: draws the signs; needed for K > 1.
        leak: one number or `[K]`, in [0, 1].

    Returns:
        A gradient method; its weights are NaN.

    Raises:
        ValueError: no key where one is needed, `leak` of another shape or range.
    """
    k = check_tasks("graddrop", num_tasks)
    if key is None and k > 1:
        raise ValueError("graddrop: the signs are drawn and need a key, as key=jax.random.key(0)")
    if key is not None:
        check_key("graddrop", key)
    shares = per_task("graddrop", "leak", leak, k, least=0)
    if not isinstance(shares, jax.core.Tracer) and not np.all(shares <= 1):
        raise ValueError(f"graddrop: leak must lie in [0, 1], got {shares.tolist()}")

    def init(shared_params: State) -> State:
        del shared_params
        if key is None:
            return ()
        return GradDropState(named_key(key, "graddrop"), jnp.zeros((), jnp.int32))

    def update(seen: Seen, state: State) -> tuple[Answer, State]:
        leaves, structure = jax.tree.flatten(seen.gradients)
        # One task agrees with itself at any draw.
        uniforms = [jnp.zeros(leaf.shape[1:], compute_dtype(leaf)) for leaf in leaves]
        if key is not None:
            step_key = jax.random.fold_in(state.key, state.step)
            uniforms = [
                jax.random.uniform(jax.random.fold_in(step_key, i), zeros.shape, zeros.dtype)
                for i, zeros in enumerate(uniforms)
            ]
            state = GradDropState(state.key, state.step + 1)
        picked = [
            pick_signs(leaf.astype(uniform.dtype), uniform, shares).astype(leaf.dtype)
            for leaf, uniform in zip(leaves, uniforms, strict=True)
        ]
        weights = jnp.full((k,), jnp.nan, compute_dtype(leaves))
        return Answer(weights, gradient=jax.tree.unflatten(structure, picked)), state

    return Method("graddrop", k, init, update, needs="gradients")
