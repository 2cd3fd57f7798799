"""The MultiMNIST papers' network."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float

from jmtl.nn.convolution import pooled_conv
from jmtl.nn.encoders.staged import Block, Staged, images
from jmtl.nn.layers import Dropout, initialiser


class LeNet(Staged):
    """The shared part of the MultiMNIST papers' network.

    Convolution 10@5×5, max pool 2, ReLU, convolution 20@5×5, (dropout of channels,) max pool 2,
    ReLU, dense 50, ReLU; no padding. Each convolution is a stage, and so is the dense layer. The
    papers' heads are `hidden=(50,)`. Their code drops channels at rate 0.5 with one mask for the
    whole batch and without rescaling; here every example has its own mask, rescaled.

    Attributes:
        widths: Channels of the two convolutions.
        features: The representation's width.
        dropout: The rate at which channels are dropped before the second pool.
        kernel_init: A name in `jmtl.nn.INITIALISERS`.
        dtype: What it computes in; None takes the wider of inputs and parameters.
        axis_name: pmap's axis.

    References:
        Sener & Koltun, *Multi-Task Learning as Multi-Objective Optimization*, NeurIPS 2018, after
        Sabour et al., 2017; used on MultiMNIST by Yu et al. (PCGrad), NeurIPS 2020.
    """

    widths: Sequence[int] = (10, 20)
    features: int = 50
    dropout: float = 0.0
    kernel_init: str = "lecun_normal"
    dtype: Any = None
    axis_name: str | None = None

    def stages(self) -> Sequence[Sequence[Block]]:
        """From images `[B, H, W]` or `[B, H, W, C]` of at least 16×16 to `[B, features]`."""
        convolutions = [[partial(self._convolution, i)] for i in range(len(self.widths))]
        return [*convolutions, [self._dense]]

    def _convolution(
        self, i: int, x: Float[Array, "B H W *C"], train: bool
    ) -> Float[Array, "B H2 W2 C2"]:
        x = images(x, "lenet", smallest=16) if i == 0 else x
        x = pooled_conv(
            x,
            self.widths[i],
            5,
            dtype=self.dtype,
            kernel_init=initialiser(self.kernel_init),
            name=f"Conv_{i}",
        )
        # Before the pool in the papers: a channel is dropped or scaled whole, so that it is alike.
        if self.dropout and i == len(self.widths) - 1:
            x = Dropout(self.dropout, True, self.axis_name, name="Dropout_0")(x, train)
        return nn.relu(x)

    def _dense(self, x: Float[Array, "B H W C"], train: bool) -> Float[Array, "B F"]:
        del train
        init = initialiser(self.kernel_init)
        dense = nn.Dense(self.features, dtype=self.dtype, kernel_init=init, name="Dense_0")
        return nn.relu(dense(x.reshape(x.shape[0], -1)))
