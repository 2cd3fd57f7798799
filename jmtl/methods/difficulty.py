"""Dynamic task prioritisation by difficulty. Guo et al., ECCV 2018."""

from collections.abc import Callable
from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float

from jmtl.checks import check_number, check_tasks, per_task
from jmtl.method import Answer, Method, Seen, State
from jmtl.products import compute_dtype

Score = Callable[[Float[Array, " K"], Float[Array, " K"]], Float[Array, " K"]]


class DifficultyState(NamedTuple):
    """`kappa` `[K]` the running scores; `first` `[K]` each task's first loss that is not 0."""

    kappa: Float[Array, " K"]
    first: Float[Array, " K"]


def remaining(losses: Float[Array, " K"], first: Float[Array, " K"]) -> Float[Array, " K"]:
    """The score exp(−L_i / L_i⁰) in (0, 1]: e⁻¹ at the start, 1 at a loss of 0.

    A task whose loss has been 0 at every step so far scores 1; a first loss below 0 gives NaN.
    """
    ratio = losses / jnp.where(first == 0, 1, first)
    return jnp.where(first < 0, jnp.nan, jnp.exp(-ratio))


def difficulty(
    num_tasks: int,
    gamma: float | Float[Array, " K"] = 2.0,
    a: float = 0.9,
    score: Score = remaining,
    kappa0: float = 0.5,
    epsilon: float = 1e-6,
) -> Method:
    """Dynamic task prioritisation (DTP): w_i = −(1 − κ_i)^γ log κ_i.

    κ_i in (0, 1] is the running score of task i, κ ← a κ + (1 − a) score, moved before it is used:
    what is learned poorly gets the weight. One backward pass. The paper calls 1 − a its α, scores
    by metrics such as accuracy, and applies the focal weight to examples too; a training step sees
    losses alone, so the score is a function of them.

    Losses that are 0 or negative raise the score to 1 or above, and the weight falls to nearly 0;
    see `remaining` for the first loss.

    Args:
        num_tasks: K.
        gamma: γ >= 0, a number or `[K]`: the larger, the faster a good task loses its weight.
        a: in [0, 1), how much of the running score is kept.
        score: `(losses [K], first losses [K]) -> scores [K]` in (0, 1], 1 the best. Where losses
            are mean negative log-likelihoods, `lambda losses, first: jnp.exp(-losses)` is the
            geometric mean of the likelihoods.
        kappa0: the running score before the first step, in (0, 1].
        epsilon: κ is kept in [ε, 1 − ε], ε in (0, 0.5).

    Returns:
        A loss method.

    Raises:
        ValueError: an option out of its range, scores that are not `[K]`, `num_tasks` below 1.
    """
    k = check_tasks("difficulty", num_tasks)
    gammas = per_task("difficulty", "gamma", gamma, k, least=0)
    check_number("difficulty", "a", a, least=0, below=1)
    check_number("difficulty", "kappa0", kappa0, above=0, most=1)
    check_number("difficulty", "epsilon", epsilon, above=0, below=0.5)

    def init(shared_params: State) -> DifficultyState:
        dtype = compute_dtype(shared_params)
        return DifficultyState(jnp.full((k,), kappa0, dtype), jnp.zeros(k, dtype))

    def update(seen: Seen, state: DifficultyState) -> tuple[Answer, DifficultyState]:
        dtype = state.kappa.dtype
        losses = seen.losses.astype(dtype)
        first = jnp.where(state.first == 0, losses, state.first)
        scores = score(losses, first)
        if jnp.shape(scores) != (k,):
            raise ValueError(
                f"difficulty: score returned shape {jnp.shape(scores)}, expected ({k},)"
            )
        kappa = (a * state.kappa + (1 - a) * scores).astype(dtype)
        kappa = jnp.clip(kappa, epsilon, 1 - epsilon)
        weights = -((1 - kappa) ** gammas.astype(dtype)) * jnp.log(kappa)
        return Answer(weights), DifficultyState(kappa, first)

    return Method("difficulty", k, init, update, needs="losses", uses_losses=True)
