"""torchvision's VGG."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

from jmtl.nn.convolution import image_conv
from jmtl.nn.encoders.staged import Block, Staged, images
from jmtl.nn.layers import Dropout, initialiser
from jmtl.nn.pooling import max_pool


class VGG(Staged):
    """Stages of 3×3 convolutions between max pools, then dense layers; by default VGG-16.

    torchvision's `vgg16` without its last layer, `classifier.6`: that is a head's. A torchvision
    name becomes a path by writing `_` for the dot before a number: `features.0.weight` is
    `features_0/kernel`, transposed from OIHW to HWIO, and `classifier.0.weight` is
    `classifier_0/kernel`, transposed (positions are flattened channel by channel, as torch does).

    Attributes:
        widths: Channels of each stage.
        convolutions: Convolutions of each stage.
        pooled: The side to which the last map is averaged, as torch's adaptive pool does.
        classifier: Widths of the dense layers; the last is the representation's.
        dropout: The rate after each dense layer.
        kernel_init: A name in `jmtl.nn.INITIALISERS`.
        dtype: What it computes in; None takes the wider of inputs and parameters.
        axis_name: pmap's axis.

    References:
        Simonyan & Zisserman, *Very Deep Convolutional Networks*, ICLR 2015, table 1, column D.
    """

    widths: Sequence[int] = (64, 128, 256, 512, 512)
    convolutions: Sequence[int] = (2, 2, 3, 3, 3)
    pooled: int = 7
    classifier: Sequence[int] = (4096, 4096)
    dropout: float = 0.5
    kernel_init: str = "he_normal"
    dtype: Any = None
    axis_name: str | None = None

    def stages(self) -> Sequence[Sequence[Block]]:
        """From images `[B, H, W]` or `[B, H, W, C]` to a map, pooled before a stage.

        Raises:
            ValueError: If `widths` and `convolutions` differ in length.
        """
        if len(self.widths) != len(self.convolutions):
            raise ValueError(
                f"vgg: widths and convolutions have one entry a stage, got widths="
                f"{tuple(self.widths)}, convolutions={tuple(self.convolutions)}"
            )
        stages: list[list[Block]] = []
        index = 0  # of torchvision's list of convolutions, ReLUs and pools
        for stage, (width, count) in enumerate(zip(self.widths, self.convolutions, strict=True)):
            stages.append([])
            for i in range(count):
                pools = stage > 0 and i == 0
                stages[-1].append(partial(self._convolution, f"features_{index}", width, pools))
                index += 2
            index += 1
        return stages

    def _convolution(
        self, name: str, width: int, pools: bool, x: Float[Array, "B H W *C"], train: bool
    ) -> Float[Array, "B h w C2"]:
        del train
        if name == "features_0":
            x = images(x, "vgg", smallest=2 ** len(self.widths))
        if pools:
            x = max_pool(x, (2, 2))
        init = initialiser(self.kernel_init)
        pad = ((1, 1), (1, 1))
        return nn.relu(
            image_conv(width, (3, 3), padding=pad, dtype=self.dtype, kernel_init=init, name=name)(x)
        )

    def neck(self, x: Float[Array, "B h w C"], train: bool) -> Float[Array, "B F"]:
        """The last pool and the dense layers."""
        x = adaptive_mean(max_pool(x, (2, 2)), self.pooled)
        x = jnp.moveaxis(x, -1, 1).reshape(x.shape[0], -1)
        init = initialiser(self.kernel_init)
        for i, width in enumerate(self.classifier):
            name = f"classifier_{3 * i}"
            x = nn.relu(nn.Dense(width, dtype=self.dtype, kernel_init=init, name=name)(x))
            if self.dropout:
                x = Dropout(self.dropout, axis_name=self.axis_name, name=f"Dropout_{i}")(x, train)
        return x


def adaptive_mean(x: Float[Array, "B H W C"], side: int) -> Float[Array, "B s s C"]:
    """Means over `side` × `side` cells that cover the map; cells of uneven sizes overlap.

    Cell i of n spans positions floor(i H / n) to ceil((i + 1) H / n), torch's rule.
    """
    for axis in (1, 2):
        size = x.shape[axis]
        if size == side:
            continue
        cells = np.zeros((side, size))
        for i in range(side):
            low, high = i * size // side, -(-(i + 1) * size // side)
            cells[i, low:high] = 1 / (high - low)
        mean = jnp.asarray(cells, x.dtype)
        # A GPU multiplies float32 as TF32 unless told otherwise, and a mean is exact elsewhere.
        moved = jnp.tensordot(x, mean, axes=(axis, 1), precision=lax.Precision.HIGHEST)
        x = jnp.moveaxis(moved, -1, axis)
    return x
