"""Encoders: flax modules from inputs `[B, ...]` to the representation that all tasks share.

An encoder is called as `encoder(inputs, train)`. Parameters are float32; `dtype` is what it
computes in. One that has a field `axis_name` is given pmap's axis by `jmtl.nn.model`.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float

from jmtl.methods import nearest
from jmtl.nn.layers import Dropout, activation, initialiser


class MLP(nn.Module):
    """Dense layers over the flattened input.

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

    @nn.compact
    def __call__(self, inputs: Float[Array, "B *d"], train: bool) -> Float[Array, "B F"]:
        """Encode `[B, ...]` as `[B, hidden[-1]]`."""
        x = inputs.reshape(inputs.shape[0], -1)
        for width in self.hidden:
            x = nn.Dense(width, dtype=self.dtype, kernel_init=initialiser(self.kernel_init))(x)
            x = activation(self.activation)(x)
            if self.dropout:
                x = Dropout(self.dropout, axis_name=self.axis_name)(x, train)
        return x


class LeNet(nn.Module):
    """The shared part of the MultiMNIST papers' network.

    Convolution 10@5×5, max pool 2, ReLU, convolution 20@5×5, (dropout of channels,) max pool 2,
    ReLU, dense 50, ReLU; no padding. The papers' heads are `hidden=(50,)`. Their code drops
    channels at rate 0.5 with one mask for the whole batch and without rescaling; here every example
    has its own mask, rescaled.

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

    @nn.compact
    def __call__(self, inputs: Float[Array, "B H W *C"], train: bool) -> Float[Array, "B F"]:
        """Encode images `[B, H, W]` or `[B, H, W, C]` as `[B, features]`.

        Raises:
            ValueError: If an image is smaller than 16×16, or the inputs are no images.
        """
        x = _images(inputs, "lenet", smallest=16)
        init = initialiser(self.kernel_init)
        for i, width in enumerate(self.widths):
            x = nn.Conv(width, (5, 5), padding="VALID", dtype=self.dtype, kernel_init=init)(x)
            if self.dropout and i == len(self.widths) - 1:
                x = Dropout(self.dropout, channels=True, axis_name=self.axis_name)(x, train)
            x = nn.relu(nn.max_pool(x, (2, 2), strides=(2, 2)))
        x = nn.Dense(self.features, dtype=self.dtype, kernel_init=init)(x.reshape(x.shape[0], -1))
        return nn.relu(x)


class ResNet(nn.Module):
    """A residual network with batch norm for small images.

    A 3×3 stem, then stages of basic blocks (two 3×3 convolutions), the first block of every stage
    but the first at stride 2; a 1×1 convolution on the shortcut where the shape changes; the mean
    over positions.

    Attributes:
        widths: Channels of each stage; the last is the representation's width.
        blocks: Blocks in each stage.
        dropout: The rate on the representation.
        momentum: The share of the running statistics kept at a step, in [0, 1].
        kernel_init: A name in `jmtl.nn.INITIALISERS`.
        dtype: What it computes in (statistics: float32); None takes the wider of inputs and
            parameters.
        axis_name: pmap's axis, over which batch norm takes its statistics. Under jit, statistics
            are those of the whole batch without it.

    References:
        He et al., *Deep Residual Learning for Image Recognition*, CVPR 2016, section 4.2.
    """

    widths: Sequence[int] = (16, 32, 64)
    blocks: Sequence[int] = (1, 1, 1)
    dropout: float = 0.0
    momentum: float = 0.9
    kernel_init: str = "he_normal"
    dtype: Any = None
    axis_name: str | None = None

    @nn.compact
    def __call__(self, inputs: Float[Array, "B H W *C"], train: bool) -> Float[Array, "B F"]:
        """Encode images `[B, H, W]` or `[B, H, W, C]` as `[B, widths[-1]]`.

        Raises:
            ValueError: If `widths` and `blocks` differ in length, or the inputs are no images.
        """
        if len(self.widths) != len(self.blocks):
            raise ValueError(
                f"resnet: widths and blocks have one entry a stage, "
                f"got widths={tuple(self.widths)}, blocks={tuple(self.blocks)}"
            )

        def conv(width: int, size: int, stride: int = 1) -> nn.Conv:
            return nn.Conv(
                width,
                (size, size),
                strides=(stride, stride),
                use_bias=False,
                dtype=self.dtype,
                kernel_init=initialiser(self.kernel_init),
            )

        def norm() -> nn.BatchNorm:
            # E[x²] - E[x]² would lose the digits that N devices and one have in common.
            return nn.BatchNorm(
                use_running_average=not train,
                momentum=self.momentum,
                dtype=self.dtype,
                axis_name=self.axis_name,
                use_fast_variance=False,
            )

        x = nn.relu(norm()(conv(self.widths[0], 3)(_images(inputs, "resnet"))))
        for stage, (width, blocks) in enumerate(zip(self.widths, self.blocks, strict=True)):
            for block in range(blocks):
                stride = 2 if stage > 0 and block == 0 else 1
                y = nn.relu(norm()(conv(width, 3, stride)(x)))
                y = norm()(conv(width, 3)(y))
                if x.shape != y.shape:
                    x = norm()(conv(width, 1, stride)(x))
                x = nn.relu(x + y)
        x = x.mean(axis=(1, 2))
        return Dropout(self.dropout, axis_name=self.axis_name)(x, train) if self.dropout else x


ENCODERS: Mapping[str, type[nn.Module]] = MappingProxyType(
    {"mlp": MLP, "lenet": LeNet, "resnet": ResNet}
)


def make_encoder(name: str, **options: Any) -> nn.Module:
    """Build an encoder by its name in `ENCODERS`.

    Args:
        name: "mlp", "lenet" or "resnet".
        **options: Its attributes.

    Returns:
        The module.

    Raises:
        ValueError: If there is no such encoder, or it has no such option.
    """
    if name not in ENCODERS:
        raise ValueError(f"unknown encoder {name!r}; {nearest(name, ENCODERS)}")
    known = {field.name for field in dataclasses.fields(ENCODERS[name])} - {"parent", "name"}
    for option in options:
        if option not in known:
            raise ValueError(f"{name} has no option {option!r}; {nearest(option, known)}")
    return ENCODERS[name](**options)


def _images(x: Float[Array, "B H W *C"], name: str, smallest: int = 1) -> Float[Array, "B H W C"]:
    """`x` with a channel dimension."""
    if x.ndim not in (3, 4) or min(x.shape[1:3]) < smallest:
        size = f" of at least {smallest}×{smallest}" if smallest > 1 else ""
        raise ValueError(f"{name} takes images [B, H, W] or [B, H, W, C]{size}, got {x.shape}")
    return x if x.ndim == 4 else x[..., None]
