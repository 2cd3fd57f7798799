"""A convolutional encoder-decoder for dense tasks."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jmtl.nn.convolution import image_conv
from jmtl.nn.encoders.staged import Block, Features, Staged, images
from jmtl.nn.layers import batch_norm, initialiser


class SegNet(Staged):
    """VGG-like convolutions with batch norm down, and the mirror image of them up again.

    A pool keeps which of its four positions was the largest, and the unpool at the same level of
    the way up puts the features back there and zeros elsewhere. The pool's choices travel with the
    features (the tuple of `Features`), as 0 and 1, so that a mixture of experts has the mixture of
    their choices. The representation has the resolution of the image.

    Attributes:
        widths: Channels of each level on the way down.
        convolutions: Convolutions of each level, on the way down and on the way up.
        momentum: The share of the running statistics kept at a step, in [0, 1].
        kernel_init: A name in `jmtl.nn.INITIALISERS`.
        dtype: What it computes in (statistics: float32); None takes the wider of inputs and
            parameters.
        axis_name: pmap's axis, over which batch norm takes its statistics.

    References:
        Badrinarayanan et al., *SegNet*, PAMI 2017, in the widths of the multi-task papers (Liu et
        al., *End-to-End Multi-Task Learning with Attention*, CVPR 2019, and after).
    """

    widths: Sequence[int] = (64, 128, 256, 512, 512)
    convolutions: Sequence[int] = (2, 2, 3, 3, 3)
    momentum: float = 0.9
    kernel_init: str = "glorot_normal"
    dtype: Any = None
    axis_name: str | None = None

    def stages(self) -> Sequence[Sequence[Block]]:
        """A level is a stage, down and then up.

        The last block of a stage is its convolutions after the first on the way down, and all its
        convolutions on the way up: the features that the paper's attention reads come before it.

        Raises:
            ValueError: If `widths` and `convolutions` differ in length.
        """
        if len(self.widths) != len(self.convolutions):
            raise ValueError(
                f"segnet: widths and convolutions have one entry a level, got widths="
                f"{tuple(self.widths)}, convolutions={tuple(self.convolutions)}"
            )
        levels = list(enumerate(zip(self.widths, self.convolutions, strict=True)))
        down: list[list[Block]] = []
        up: list[list[Block]] = []
        for level, (width, count) in levels:
            first = partial(self._down, level, width)
            rest = partial(self._convolve, f"down{level}", width, range(1, count))
            down.append([first, rest] if count > 1 else [first])
            width = self.widths[max(level - 1, 0)]
            convolve = partial(self._convolve, f"up{level}", width, range(count))
            up.append([partial(self._up, level), convolve])
        return [*down, *reversed(up)]

    def _convolve(
        self, name: str, width: int, indices: range, x: Features, train: bool
    ) -> Features:
        x, *choices = x
        init = initialiser(self.kernel_init)
        for i in indices:
            conv = image_conv(
                width, (3, 3), dtype=self.dtype, kernel_init=init, name=f"{name}_{i}_conv"
            )
            norm = batch_norm(train, self.momentum, self.dtype, self.axis_name, f"{name}_{i}_norm")
            x = nn.relu(norm(conv(x)))
        return (x, *choices)

    def _down(self, level: int, width: int, x: Any, train: bool) -> Features:
        if level == 0:
            x = (self._images(x),)
        else:
            x, *choices = x
            x, choice = pool(x)
            x = (x, *choices, choice)
        return self._convolve(f"down{level}", width, range(1), x, train)

    def _up(self, level: int, x: Features, train: bool) -> Features:
        del train
        x, *choices = x
        if level == len(self.widths) - 1:
            x, choice = pool(x)
        else:
            *choices, choice = choices
        return (unpool(x, choice), *choices)

    def neck(self, x: Features, train: bool) -> dict[str, Array]:
        """The map `[B, H, W, widths[0]]`, and its mean over positions as the vector."""
        del train
        x = x[0]
        return {"map": x, "vector": x.mean(axis=(1, 2))}

    def _images(self, x: Array) -> Array:
        x, part = images(x, "segnet"), 2 ** len(self.widths)
        if x.shape[1] % part or x.shape[2] % part:
            raise ValueError(
                f"segnet halves its images {len(self.widths)} times: sides must be multiples of "
                f"{part}, got {x.shape[1]}×{x.shape[2]}"
            )
        return x


def pool(
    x: Float[Array, "B H W C"],
) -> tuple[Float[Array, "B h w C"], Float[Array, "B h w 4 C"]]:
    """The largest of every 2×2 positions, and 1 at which of the four it was (the first such)."""
    # By the mask of `jmtl.nn.pooling`, its place kept, this with the unpool and the gradient took
    # 1.0 to 3.0 times as long (float32, five sizes, 2 cores, jax 0.10).
    b, h, w, c = x.shape
    cells = x.reshape(b, h // 2, 2, w // 2, 2, c).swapaxes(2, 3).reshape(b, h // 2, w // 2, 4, c)
    choice = jax.nn.one_hot(cells.argmax(axis=3), 4, axis=3, dtype=x.dtype)
    return (cells * choice).sum(axis=3), choice


def unpool(
    x: Float[Array, "B h w C"], choice: Float[Array, "B h w 4 C"]
) -> Float[Array, "B H W C"]:
    """Every feature where the pool found its maximum, and zeros elsewhere."""
    b, h, w, _, c = choice.shape
    cells = (x[:, :, :, None] * choice).reshape(b, h, w, 2, 2, c)
    return jnp.swapaxes(cells, 2, 3).reshape(b, 2 * h, 2 * w, c)
