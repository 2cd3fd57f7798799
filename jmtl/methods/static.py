"""Fixed weights: the scalarisation that methods have to beat. Kurin et al., Xin et al., 2022."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jmtl.checks import check_tasks
from jmtl.method import Answer, Method, Seen, State, stateless


def static(num_tasks: int, weights: Sequence[float] | np.ndarray | Float[Array, " K"]) -> Method:
    """Fixed weights: Σ w_i L_i.

    One backward pass.

    Args:
        num_tasks: K.
        weights: `[K]`, finite and not negative; may be a traced array (a vmapped grid of weights),
            whose values are not checked.

    Returns:
        A loss method without state; it does not read the losses' values.

    Raises:
        ValueError: `weights` is not `[K]` numbers, or has a negative or non-finite entry.
    """
    k = check_tasks("static", num_tasks)
    if isinstance(weights, jax.core.Tracer):
        values = weights.astype(float)
    else:
        try:
            # NumPy: under a trace, JAX's own arithmetic on known values would be traced too.
            known = np.asarray(weights, float)
        except (TypeError, ValueError):
            raise ValueError(f"static: weights must be {k} numbers, got {weights!r}") from None
        if not np.all(np.isfinite(known) & (known >= 0)):
            raise ValueError(f"static: weights must be finite and >= 0, got {known.tolist()}")
        values = jnp.asarray(known, float)
    if values.shape != (k,):
        raise ValueError(f"static: weights have shape {values.shape}, expected ({k},)")

    def update(seen: Seen, state: State) -> tuple[Answer, State]:
        del seen
        return Answer(values), state

    return Method("static", k, stateless, update, needs="losses")
