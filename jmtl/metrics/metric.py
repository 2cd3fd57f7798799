"""What a metric is: sums, exact over uneven batches, devices and hosts.

A metric's `update` turns one batch into statistics, the statistics of all batches and devices are
*added* (`jax.tree.map(jnp.add, ...)`, `jax.lax.psum`), and `compute` reads the sum once.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Float, Num


class Metric(NamedTuple):
    """Two pure functions.

    Attributes:
        update: `(output [B, ...], label [B, ...], present [B])` -> statistics, a pytree of sums.
        compute: statistics -> scalars by name.
        higher_is_better: by the same names; what comparisons of methods need.
    """

    update: Callable[[Array, Array, Array], Any]
    compute: Callable[[Any], dict[str, Float[Array, ""]]]
    higher_is_better: Mapping[str, bool]


def ratio(part: Num[Array, "*d"], whole: Num[Array, "*d"]) -> Float[Array, "*d"]:
    """`part / whole`, 0 where `whole` is 0."""
    return jnp.where(jnp.asarray(whole) > 0, part / jnp.maximum(whole, 1), 0.0)


def defined(
    scores: Mapping[str, Float[Array, ""]], total: Num[Array, ""]
) -> dict[str, Float[Array, ""]]:
    """The scores, NaN where `total`, what they were computed from, is 0."""
    there = jnp.asarray(total) > 0
    return {name: jnp.where(there, score, jnp.nan) for name, score in scores.items()}
