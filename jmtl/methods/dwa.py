"""Dynamic weight average. Liu, Johns, Davison, CVPR 2019, eq. 7."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from jmtl.checks import check_number, check_tasks
from jmtl.method import Answer, Method, Seen, State
from jmtl.products import compute_dtype


class DWAState(NamedTuple):
    """The losses of the current window and of the two before it.

    Attributes:
        step: `[]` steps taken in the current window.
        windows: `[]` complete windows, counted up to 2.
        total: `[K]` the sum of the losses in the current window.
        last: `[K]` their mean in the window before; ones where there is none.
        before: `[K]` that of the window before that.
    """

    step: Int[Array, ""]
    windows: Int[Array, ""]
    total: Float[Array, " K"]
    last: Float[Array, " K"]
    before: Float[Array, " K"]


def dwa(num_tasks: int, temperature: float = 2.0, window: int = 100) -> Method:
    """Dynamic weight average (DWA): w = K softmax(r/T), r_i = L̄_i(t−1) / L̄_i(t−2).

    L̄(t) is the mean of the losses over window t; during the first two windows w is ones. A task
    whose loss falls slowly gets more weight. One backward pass.

    The paper's window is an epoch: give the steps of one. Public implementations differ: nash-mtl
    slides a window of 25 steps, here windows follow one another. A task whose mean loss was 0 for a
    window has no ratio: its successor's weights are NaN. Losses of changing sign give ratios
    without meaning.

    Args:
        num_tasks: K.
        temperature: T > 0; the larger, the closer to equal weights.
        window: steps in a window, >= 1.

    Returns:
        A loss method.

    Raises:
        ValueError: an option out of its range, `num_tasks` below 1.
    """
    k = check_tasks("dwa", num_tasks)
    check_number("dwa", "temperature", temperature, above=0)
    check_number("dwa", "window", window, least=1)

    def init(shared_params: State) -> DWAState:
        dtype = compute_dtype(shared_params)
        return DWAState(
            jnp.zeros((), jnp.int32),
            jnp.zeros((), jnp.int32),
            jnp.zeros(k, dtype),
            jnp.ones(k, dtype),
            jnp.ones(k, dtype),
        )

    def update(seen: Seen, state: DWAState) -> tuple[Answer, DWAState]:
        balanced = k * jax.nn.softmax(state.last / state.before / temperature)
        weights = jnp.where(state.windows < 2, 1, balanced)
        step, total = state.step + 1, state.total + seen.losses.astype(state.total.dtype)
        ends = step >= window
        state = DWAState(
            jnp.where(ends, 0, step),
            jnp.where(ends, jnp.minimum(state.windows + 1, 2), state.windows),
            jnp.where(ends, 0, total),
            jnp.where(ends, total / step, state.last),
            jnp.where(ends, state.last, state.before),
        )
        return Answer(weights), state

    return Method("dwa", k, init, update, needs="losses", uses_losses=True)
