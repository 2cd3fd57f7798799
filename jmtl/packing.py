"""Many small arrays as one, for devices on which a kernel costs more than a small array's bytes."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jaxtyping import Array

SMALL = 2**17
"""Elements of an array, up to which it is packed: 0.5 MB of float32, a microsecond to copy."""


def packed(leaves: Sequence[Array], leading: int = 0) -> list[Array]:
    """The elements of all leaves in fewer arrays, on a GPU or TPU; on a CPU the leaves themselves.

    There the small leaves of a dtype are one array. What is reduced over all elements is reduced by
    one kernel instead of one a leaf.

    Args:
        leaves: arrays `[...]` that share their first `leading` dimensions.
        leading: dimensions that stay.

    Returns:
        Arrays `[*leading, ...]`: large leaves as they were, then small ones by their dtype,
        flattened behind the leading dimensions and laid end to end.
    """
    if jax.default_backend() == "cpu":
        return list(leaves)
    large = [leaf for leaf in leaves if leaf.size > SMALL]
    small: dict[jnp.dtype, list[Array]] = {}
    for leaf in leaves:
        if leaf.size <= SMALL:
            small.setdefault(leaf.dtype, []).append(leaf)
    return large + [
        group[0]
        if len(group) == 1
        else jnp.concatenate([x.reshape(*x.shape[:leading], -1) for x in group], axis=leading)
        for group in small.values()
    ]
