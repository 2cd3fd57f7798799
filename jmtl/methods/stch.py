"""Smooth Tchebycheff scalarisation. Lin et al., ICML 2024, and its authors' other formula."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jmtl.checks import check_choice, check_number, check_tasks, per_task
from jmtl.method import Answer, Method, Seen, State, stateless
from jmtl.methods.scale_invariant import reciprocal
from jmtl.products import compute_dtype


class STCHState(NamedTuple):
    """What the code's form remembers.

    Attributes:
        step: `[]` updates, counted up to `warmup`.
        total: `[K]` the sum of the losses in the window.
        counts: `[K]` how many of them are not 0.
    """

    step: Int[Array, ""]
    total: Float[Array, " K"]
    counts: Int[Array, " K"]


def relative_weights(
    losses: Float[Array, " K"], nadir: Float[Array, " K"], mu: float | Float[Array, ""]
) -> Float[Array, " K"]:
    """The slopes of K μ log Σ (L_i/n_i)^{1/μ} in L: K softmax(log(L/n)/μ) / L.

    As powers relative to the largest ratio, so that a loss of 0 has its limit where there is one
    (μ <= 1), else 0, and nothing overflows. Losses that are all 0 have weights of 0. A negative
    loss gives NaN.

    Args:
        losses: `[K]` L.
        nadir: `[K]` n > 0.
        mu: μ > 0.
    """
    ratio = losses / nadir
    largest = jnp.max(ratio)
    safe = jnp.where(largest == 0, 1, largest)
    share = jnp.where(losses < 0, jnp.nan, ratio / safe)
    total = jnp.sum(share ** (1 / mu))
    weights = len(losses) * share ** (1 / mu - 1) / total / safe / nadir
    return jnp.where(jnp.all(losses == 0) | ((losses == 0) & (mu > 1)), 0, weights)


def stch(
    num_tasks: int,
    form: Literal["paper", "code"] = "paper",
    mu: float = 1.0,
    preference: Sequence[float] | Float[Array, " K"] | None = None,
    ideal: float | Sequence[float] | Float[Array, " K"] = 0.0,
    warmup: int = 500,
    window: int | None = None,
) -> Method:
    """Smooth Tchebycheff (STCH): a smooth maximum of the losses, in one of two formulas.

    - "paper": μ log Σ exp(λ_i (L_i − z_i)/μ), as weights λ_i softmax(λ (L − z)/μ)_i. Defined for
      losses of any sign; what counts is their scale.
    - "code": the authors' multi-task code. Σ log L_i, as weights 1/L_i, during the warm-up; then
      K μ log Σ exp(log(L_i/n_i)/μ), n the mean losses over the warm-up's last window. Invariant to
      the scale of each task. A negative loss gives NaN. A loss of 0, of a task without labels in
      the batch or with nothing left to learn, weighs 0 in the warm-up (log 0 has no slope) and does
      not count in n; then see `relative_weights`. A task that the window never saw takes its first
      loss after it for n.

    One backward pass. TorchJD has the paper's form. The authors' code adds 1e-20 inside its
    logarithms, left out here, and warms up for 5 epochs, the last of which gives n.

    Args:
        num_tasks: K.
        form: "paper" or "code".
        mu: μ > 0; towards 0 the largest term alone counts.
        preference: `[K]` λ >= 0, of the paper's form; 1/K where None.
        ideal: z, a number or `[K]`, of the paper's form.
        warmup: steps of Σ log L, >= 1, of the code's form.
        window: the last steps of the warm-up that n is the mean of, in 1 … warmup; a fifth of it
            where None.

    Returns:
        A loss method; without state in the paper's form.

    Raises:
        ValueError: an option out of its range or of the wrong shape, `num_tasks` below 1.
    """
    k = check_tasks("stch", num_tasks)
    check_choice("stch", "form", form, ("paper", "code"))
    check_number("stch", "mu", mu, above=0)
    weighing = per_task(
        "stch", "preference", 1 / k if preference is None else preference, k, least=0
    )
    origin = per_task("stch", "ideal", ideal, k)
    check_number("stch", "warmup", warmup, least=1)
    known = not isinstance(warmup, jax.core.Tracer)
    at_least = max if known else jnp.maximum
    span = at_least(warmup // 5, 1) if window is None else window
    check_number("stch", "window", span, least=1, most=warmup if known else None)

    def init(shared_params: State) -> STCHState:
        total = jnp.zeros(k, compute_dtype(shared_params))
        return STCHState(jnp.zeros((), jnp.int32), total, jnp.zeros(k, jnp.int32))

    def from_paper(seen: Seen, state: State) -> tuple[Answer, State]:
        scale = weighing.astype(seen.losses.dtype)
        terms = scale * (seen.losses - origin.astype(seen.losses.dtype))
        return Answer(scale * jax.nn.softmax(terms / mu)), state

    def from_code(seen: Seen, state: STCHState) -> tuple[Answer, STCHState]:
        losses = seen.losses.astype(state.total.dtype)
        warming = state.step < warmup
        counted = warming & (state.step >= warmup - span)
        late = ~warming & (state.counts == 0)
        taken = (losses != 0) & (counted | late)
        total = jnp.where(taken, state.total + losses, state.total)
        counts = jnp.where(taken, state.counts + 1, state.counts)
        nadir = jnp.where(counts == 0, 1, total / jnp.maximum(counts, 1))
        weights = jnp.where(warming, reciprocal(losses), relative_weights(losses, nadir, mu))
        step = jnp.minimum(state.step + 1, warmup).astype(state.step.dtype)
        return Answer(weights), STCHState(step, total, counts)

    if form == "paper":
        return Method("stch", k, stateless, from_paper, needs="losses", uses_losses=True)
    return Method("stch", k, init, from_code, needs="losses", uses_losses=True)
