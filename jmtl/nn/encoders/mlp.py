"""Dense layers."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float

from jmtl.nn.encoders.staged import Block, Staged
from jmtl.nn.layers import Dropout, activation, initialiser


class MLP(Staged):
    """Dense layers over the flattened input; a layer is a stage.

    Attributes:
        hidden: The width of each layer; the last is the representation's.
        activation: A name in `jmtl.nn.ACTIVATIONS`, after every layer.
        dropout: The rate after every activation.
        kernel_init: A name in `jmtl.nn.INITIALISERS`.
        dtype: What it computes in; None takes the wider of inputs and parameters.
        axis_name: pmap's axis.
    """

    hidden: Sequence[int] = (128, 64)
    activation: str = "relu"
    dropout: float = 0.0
    kernel_init: str = "lecun_normal"
    dtype: Any = None
    axis_name: str | None = None

    def stages(self) -> Sequence[Sequence[Block]]:
        """From `[B, ...]` to `[B, hidden[0]]`, and on to `[B, hidden[-1]]`."""
        return [[partial(self._layer, i)] for i in range(len(self.hidden))]

    def _layer(self, i: int, x: Float[Array, "B *d"], train: bool) -> Float[Array, "B F"]:
        x = x.reshape(x.shape[0], -1)
        init = initialiser(self.kernel_init)
        x = nn.Dense(self.hidden[i], dtype=self.dtype, kernel_init=init, name=f"Dense_{i}")(x)
        x = activation(self.activation)(x)
        if self.dropout:
            x = Dropout(self.dropout, axis_name=self.axis_name, name=f"Dropout_{i}")(x, train)
        return x
