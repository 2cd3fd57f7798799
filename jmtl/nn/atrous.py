"""A head that looks at a map at several distances: atrous spatial pyramid pooling."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jmtl.nn.convolution import image_conv
from jmtl.nn.encoders.resnet import convolution
from jmtl.nn.layers import Dropout, batch_norm, initialiser
from jmtl.nn.maps import answered, check_map


class AtrousHead(nn.Module):
    """A 1×1 and dilated 3×3 convolutions beside the mean of the map, joined and mixed, resized.

    Branches of `width` channels each: a 1×1 convolution, a 3×3 one for every dilation, and a 1×1
    one of the mean over positions, given to every position. A 1×1 convolution joins them to `width`
    channels, dropout follows, then a 3×3 convolution, and a 1×1 one with a bias that answers. All
    but the last are without a bias, with batch norm and ReLU. The output is at least float32.

    Attributes:
        features: The size of the output's last dimension.
        size: Height and width that the output is resized to, linearly; None keeps the
            representation's.
        atrous: The dilations.
        width: Channels of a branch.
        dropout: The rate on the joined branches.
        momentum: The share of the running statistics kept at a step, in [0, 1].
        kernel_init: A name in `jmtl.nn.INITIALISERS`.
        dtype: What it computes in (statistics: float32); None takes the wider of inputs and
            parameters.
        axis_name: pmap's axis.
        reads: The part of a representation that has several.

    References:
        Chen et al., *Rethinking Atrous Convolution* (DeepLabv3), 2017, section 3.3: dilations of
        6, 12 and 18 where the map is 16 times smaller than the image, twice these where it is 8.
    """

    features: int
    size: tuple[int, int] | None = None
    atrous: Sequence[int] = (12, 24, 36)
    width: int = 256
    dropout: float = 0.5
    momentum: float = 0.9
    kernel_init: str = "lecun_normal"
    dtype: Any = None
    axis_name: str | None = None
    reads: str = "map"

    @nn.compact
    def __call__(
        self, representation: Float[Array, "B h w C"], train: bool
    ) -> Float[Array, "B H W D"]:
        """Answer `[B, H, W, features]` for `[B, h, w, C]`.

        Raises:
            ValueError: If the representation is no map.
        """
        x = representation
        check_map(x)
        layer = partial(self._layer, train)
        mean = layer("mean", x.mean(axis=(1, 2), keepdims=True), 1)
        branches = [
            layer("near", x, 1),
            *(layer(f"dilated_{rate}", x, 3, rate) for rate in self.atrous),
            jnp.broadcast_to(mean, (*x.shape[:3], self.width)),
        ]
        x = layer("join", jnp.concatenate(branches, axis=-1), 1)
        x = Dropout(self.dropout, axis_name=self.axis_name, name="dropout")(x, train)
        x = layer("mix", x, 3)
        init = initialiser(self.kernel_init)
        x = image_conv(self.features, (1, 1), dtype=self.dtype, kernel_init=init, name="answer")(x)
        return answered(x, self.size)

    def _layer(
        self, train: bool, name: str, x: Float[Array, "B h w C"], size: int, dilation: int = 1
    ) -> Float[Array, "B h w D"]:
        """A convolution of `width` channels with batch norm and ReLU."""
        options = {"dtype": self.dtype, "kernel_init": self.kernel_init}
        x = convolution(f"{name}_conv", self.width, size, 1, dilation, **options)(x)
        norm = batch_norm(train, self.momentum, self.dtype, self.axis_name, f"{name}_norm")
        return nn.relu(norm(x))
