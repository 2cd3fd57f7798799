"""The Euclidean projection on the simplex."""

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float


def project_on_simplex(point: Float[Array, " K"]) -> Float[Array, " K"]:
    """Argmin ‖w − point‖ over w ≥ 0, Σ w = 1: exact, by sorting.

    optax sorts and thresholds; what is added is a shift of all entries, which leaves the projection
    alone. With the largest at 0, sums run over entries in [−1, 0], so that a point of 1e10 keeps
    its digits.

    Args:
        point: `[K]`, any scale; entries of −inf get weight 0.

    Returns:
        `[K]` in [0, 1], summing to 1; NaN where `point` has a NaN or +inf.

    References:
        Held, Wolfe, Crowder, Validation of subgradient optimization, 1974.
    """
    # optax answers in float64 where x64 is enabled, whatever the point's dtype.
    return optax.projections.projection_simplex(point - jnp.max(point)).astype(point.dtype)
