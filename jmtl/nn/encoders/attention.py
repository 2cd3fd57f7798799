"""Self-attention layers, common to text and images."""

from typing import Any

import flax.linen as nn
from jaxtyping import Array, Bool, Float

from jmtl.nn.layers import Dropout, initialiser


def attend(
    name: str,
    heads: int,
    dropout: float,
    kernel_init: str,
    dtype: Any,
    axis_name: str | None,
    x: Float[Array, "B T F"],
    mask: Bool[Array, "B T"] | None,
    train: bool,
) -> Float[Array, "B T F"]:
    """`x + attention(norm(x))` over the positions that `mask` leaves; to be called in a module.

    Dropout is on what is added, a mask a row: flax's own, on the attention weights, draws one for
    the rows that a device holds.
    """
    if x.shape[-1] % heads:
        raise ValueError(f"a width of {x.shape[-1]} does not divide into {heads} attention heads")
    y = nn.LayerNorm(dtype=dtype, name=f"{name}_norm")(x)
    y = nn.MultiHeadDotProductAttention(
        num_heads=heads,
        dtype=dtype,
        kernel_init=initialiser(kernel_init),
        force_fp32_for_softmax=True,
        name=name,
    )(y, mask=None if mask is None else mask[:, None, None, :])
    return x + _dropped(f"{name}_dropout", dropout, axis_name, y, train)


def transform(
    name: str,
    hidden: int,
    dropout: float,
    kernel_init: str,
    dtype: Any,
    axis_name: str | None,
    x: Float[Array, "B T F"],
    train: bool,
) -> Float[Array, "B T F"]:
    """`x + dense(gelu(dense(norm(x))))`, position by position; to be called in a module."""
    init = initialiser(kernel_init)
    y = nn.LayerNorm(dtype=dtype, name=f"{name}_norm")(x)
    y = nn.gelu(nn.Dense(hidden, dtype=dtype, kernel_init=init, name=f"{name}_0")(y))
    y = nn.Dense(x.shape[-1], dtype=dtype, kernel_init=init, name=f"{name}_1")(y)
    return x + _dropped(f"{name}_dropout", dropout, axis_name, y, train)


def _dropped(name: str, rate: float, axis_name: str | None, x: Array, train: bool) -> Array:
    return Dropout(rate, axis_name=axis_name, name=name)(x, train) if rate else x
