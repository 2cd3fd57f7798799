"""ExcessMTL: weights from excess risks. He et al., ICML 2024, algorithm 1."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jmtl.checks import check_number, check_tasks
from jmtl.method import Answer, Method, Seen
from jmtl.methods.rows import row_sums, zeros_per_task
from jmtl.products import compute_dtype


class ExcessState(NamedTuple):
    """What ExcessMTL remembers.

    Attributes:
        roots: leaves `[K, ...]`, √S: the root of the sum of squares of every element so far.
        first: `[K]` each task's first excess risk that is not 0; 0 before there is one.
        logits: `[K]` log w.
    """

    roots: Any
    first: Float[Array, " K"]
    logits: Float[Array, " K"]


def excess(
    num_tasks: int,
    eta: float = 0.01,
    epsilon: float = 0.0,
    scales_heads: bool = True,
) -> Method:
    """ExcessMTL: tasks far from their optimum gain weight, by exponentiated gradient.

    S_i += g_i² element by element; e_i = Σ g_i²/√(S_i + ε), over its value at the first step;
    w ← K w e^{ηe} / Σ w e^{ηe}. On the first step w = 1. K backward passes, and K accumulators of
    the gradients' size in the state. Without ε each e_i is invariant to the scale of its task.

    The authors' code adds ε = 1e-7, which decides where gradients have elements below 3e-4, as
    those of networks do: it is an option here, and 0 by default, as in the paper's formula.

    Args:
        num_tasks: K.
        eta: η, the step of w, ≥ 0.
        epsilon: ε, added to the sum of squares, ≥ 0; 1e-7 is the authors' code.
        scales_heads: whether w multiplies the tasks' own gradients too, as in the authors' code.

    Returns:
        A gradient method with weights that sum to K. A task without gradient has e_i = 0.

    Raises:
        ValueError: an option outside its range.
    """
    k = check_tasks("excess", num_tasks)
    check_number("excess", "eta", eta, least=0)
    check_number("excess", "epsilon", epsilon, least=0)

    def init(shared_params: Any) -> ExcessState:
        dtype = compute_dtype(shared_params)
        # Not one array twice: a donated state may hold no buffer twice.
        first, logits = jnp.zeros((k,), dtype), jnp.zeros((k,), dtype)
        return ExcessState(zeros_per_task(k, shared_params, dtype), first, logits)

    def update(seen: Seen, state: ExcessState) -> tuple[Answer, ExcessState]:
        dtype = state.logits.dtype
        grads = jax.tree.map(lambda g: g.astype(dtype), seen.gradients)
        # Of roots, not squares: these vanish in float32 below 1e-23.
        roots = jax.tree.map(lambda r, g: jnp.hypot(r, jnp.abs(g)), state.roots, grads)

        def shares(grad: Array, root: Array) -> Array:
            size, bottom = jnp.abs(grad), root
            if isinstance(epsilon, jax.Array) or epsilon != 0:  # a fifth of the time
                bottom = jnp.hypot(root, jnp.sqrt(jnp.asarray(epsilon, dtype)))
            return size * (size / jnp.where(bottom == 0, 1, bottom))

        pairs = zip(jax.tree.leaves(grads), jax.tree.leaves(roots), strict=True)
        risks = sum((row_sums(shares, *pair) for pair in pairs), jnp.zeros(k, dtype))
        begins = jnp.all(state.first == 0)
        first = jnp.where(state.first == 0, risks, state.first)
        relative = risks / jnp.where(first == 0, 1, first)
        moved = jax.nn.log_softmax(state.logits + (eta * relative).astype(dtype))
        logits = jnp.where(begins & ~jnp.isnan(moved), 0, moved + jnp.log(jnp.asarray(k, dtype)))
        return Answer(jnp.exp(logits)), ExcessState(roots, first, logits)

    return Method("excess", k, init, update, needs="gradients", scales_heads=scales_heads)
