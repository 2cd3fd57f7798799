"""The update brought to the norm of the equal-weights gradient: one learning rate fits all."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jmtl.gramian import Gramian, combined_norm, global_norm
from jmtl.method import Answer, Method, Seen, State
from jmtl.products import compute_dtype


def _matched(gramian: Gramian, weights: Float[Array, " K"]) -> Float[Array, " K"]:
    """The weights times ‖Σ g_i‖ / ‖Σ w_i g_i‖; as they are where there is no update to scale."""
    target = combined_norm(gramian, jnp.ones_like(gramian.norms))
    largest = jnp.max(jnp.abs(weights))
    unit = weights / jnp.where(largest == 0, 1, largest)
    mass = jnp.sum(jnp.abs(unit) * gramian.norms)
    rounding = jnp.sqrt(len(unit) * jnp.finfo(mass.dtype).eps) * mass
    length = jnp.maximum(combined_norm(gramian, unit), rounding)
    scaled = unit / jnp.where(length == 0, 1, length) * target
    return jnp.where(length == 0, weights, scaled).astype(weights.dtype)


def norm_matched(method: Method) -> Method:
    """Scales a method's update on the shared parameters to ‖Σ_i g_i‖, the equal-weights gradient's.

    Methods differ in the size of their updates by factors of K and more (PCGrad sums where UPGrad
    averages, Nash-MTL's is 1 whatever the gradients), so one learning rate for all favours some of
    them. Scaled so, methods differ in direction alone. Costs two products with the K×K Gramian,
    which a loss method then needs too: K backward passes.

    - The direction stays, and with it every property that is one of directions; the size is the
      equal-weights gradient's, which shrinks where tasks are opposed.
    - The norms come from cosines and norms (`combined_norm`), so where an update cancels to a part
      r of Σ |w_i| ‖g_i‖ its norm is matched to about eps/r². Below r = √(K eps), where nothing can
      be told from rounding, the update counts as that long and stays shorter than the match:
      rounding is not blown up to a step. An update of zero stays zero, its weights as they are (the
      heads may have gradients). A gradient that is answered without weights has its exact norm, and
      rounding in it is not told from the rest.
    - The g_i are those that the method sees: `norm_matched(chain(weights, surgery))` has the norm
      of the raw sum, `chain(weights, norm_matched(surgery))` that of the weighted sum. With
      `at="representation"` the norms are taken there; methods of several batches match on the first
      batch's gradients and act on the last's.
    - Heads: a loss method's weights multiply the tasks' own gradients too, as ever, after the
      scaling: one weighted loss, and a factor on all of its weights changes nothing. Every
      other method does to the heads what it does without the wrapper.
    - The method's own state is what it is without the wrapper: the scaling comes after.

    Args:
        method: any method; one whose `needs` are losses can then only come last in a `chain`.

    Returns:
        A method of the same needs, at least the Gramian. Weights are those of the scaled update.
    """
    of_losses = method.needs == "losses"

    def update(seen: Seen, state: State) -> tuple[Answer, State]:
        answer, state = method.update(seen, state)
        if answer.gradient is not None:
            target = combined_norm(seen.gramian, jnp.ones_like(seen.gramian.norms))
            length = global_norm(answer.gradient)
            safe = jnp.where(length == 0, 1, length)

            # Divided first: the ratio of the two norms may be out of range.
            def scaled(leaf: Array) -> Array:
                dtype = compute_dtype(leaf)
                unit = leaf.astype(dtype) / safe.astype(dtype)
                return (unit * target.astype(dtype)).astype(leaf.dtype)

            return answer._replace(gradient=jax.tree.map(scaled, answer.gradient)), state
        old = answer.weights
        matched = _matched(seen.gramian, old)
        heads: Any = answer.heads
        if of_losses and (heads is None or heads is old):
            heads = matched
        elif heads is None and method.scales_heads:
            heads = old
        return answer._replace(weights=matched, heads=heads), state

    return method._replace(
        name=f"norm_matched({method.name})",
        update=update,
        needs="gramian" if of_losses else method.needs,
    )
