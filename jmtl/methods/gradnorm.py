"""GradNorm: gradient norms balanced by training rates. Chen et al., ICML 2018, eq. 2."""

from typing import Any, NamedTuple

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from jmtl.checks import check_number, check_tasks
from jmtl.method import Answer, Method, Seen
from jmtl.products import compute_dtype


class GradNormState(NamedTuple):
    """What GradNorm remembers.

    Attributes:
        weights: `[K]` w, >= 0, summing to K.
        first: `[K]` each task's first loss that is not 0; 0 before there is one.
        optimizer: that of the weights' Adam.
    """

    weights: Float[Array, " K"]
    first: Float[Array, " K"]
    optimizer: optax.OptState


def gradnorm(num_tasks: int, alpha: Any = 1.5, learning_rate: Any = 0.025) -> Method:
    """GradNorm: learned w whose w_i d_i follow mean(w d) r_i^α, r_i the inverse training rate.

    r_i = (L_i/L_i⁰) / mean(L/L⁰), L⁰ the losses of the first step. w takes one Adam step a step on
    Σ_i |w_i d_i − stopgrad(mean(w d) r_i^α)|, here divided by mean(d), so that the scale of the
    gradients does not reach Adam's epsilon; then negative entries become 0 and Σ w = K. K backward
    passes. Means are over the tasks whose gradient is not zero. The paper takes the norms at the
    last shared layer, this method at all shared parameters; LibMTL learns the logits of a softmax.
    The weights are of losses, so the tasks' own gradients are scaled too.

    Args:
        num_tasks: K.
        alpha: α, the pull towards equal training rates, >= 0; a number, possibly traced.
        learning_rate: of the Adam that moves w, >= 0.

    Returns:
        A Gramian method that reads the losses, which must not be negative (NaN where α is no whole
        number); the weights of a step come from before that step's Adam update.

    Raises:
        ValueError: an option below 0.
    """
    k = check_tasks("gradnorm", num_tasks)
    check_number("gradnorm", "alpha", alpha, least=0)
    check_number("gradnorm", "learning_rate", learning_rate, least=0)
    adam = optax.adam(learning_rate)

    def init(shared_params: Any) -> GradNormState:
        ones = jnp.ones((k,), compute_dtype(shared_params))
        return GradNormState(ones, jnp.zeros_like(ones), adam.init(ones))

    def update(seen: Seen, state: GradNormState) -> tuple[Answer, GradNormState]:
        weights, norms = state.weights, seen.gramian.norms
        losses = seen.losses.astype(weights.dtype)
        live = norms != 0
        count = jnp.maximum(jnp.sum(live), 1)
        largest = jnp.max(norms)
        lengths = norms / jnp.where(largest == 0, 1, largest)
        total = jnp.sum(lengths)
        lengths = lengths * count / jnp.where(total == 0, 1, total)

        first = jnp.where(state.first == 0, losses, state.first)
        progress = jnp.where(first == 0, 1, losses / jnp.where(first == 0, 1, first))
        average = jnp.sum(jnp.where(live, progress, 0)) / count
        rate = progress / jnp.where(average == 0, 1, average)
        goal = jnp.sum(weights * lengths) / count * rate**alpha
        slope = lengths * jnp.sign(weights * lengths - goal)
        change, optimizer = adam.update(slope.astype(weights.dtype), state.optimizer)
        moved = jnp.maximum(weights + change, 0)
        mass = jnp.sum(moved)
        moved = jnp.where(mass == 0, weights, k * moved / jnp.where(mass == 0, 1, mass))
        return Answer(weights), GradNormState(moved, first, optimizer)

    return Method("gradnorm", k, init, update, needs="gramian", uses_losses=True, scales_heads=True)
