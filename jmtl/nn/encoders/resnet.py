"""Residual networks: torchvision's, and a small one for small images."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import flax.linen as nn
from jaxtyping import Array, Float

from jmtl.checks import check_choice
from jmtl.nn.convolution import image_conv
from jmtl.nn.encoders.staged import Block, Staged, images
from jmtl.nn.layers import Dropout, batch_norm, initialiser

EXPANSION = {"basic": 1, "bottleneck": 4}
"""Channels that a block gives for each of its width."""


class Residual(nn.Module):
    """A block of two 3×3 convolutions, or of 1×1, 3×3 and 1×1, beside a shortcut.

    The stride is the first 3×3 convolution's (torchvision's "v1.5" for the bottleneck; the paper
    has it in the first 1×1), and that of the 1×1 convolution on the shortcut, which is there where
    the shape changes.

    Attributes:
        kind: "basic" or "bottleneck".
        width: Channels of the 3×3 convolutions.
        stride: Of the block.
        dilations: Of its 3×3 convolutions, two for a basic block.
        momentum: See `ResNet`, as the rest.
        kernel_init: A name in `jmtl.nn.INITIALISERS`.
        dtype: What it computes in.
        axis_name: pmap's axis.
    """

    kind: str
    width: int
    stride: int
    dilations: Sequence[int]
    momentum: float
    kernel_init: str
    dtype: Any
    axis_name: str | None

    @nn.compact
    def __call__(self, x: Float[Array, "B H W C"], train: bool) -> Float[Array, "B H2 W2 C2"]:
        """The block's features."""
        conv = partial(convolution, dtype=self.dtype, kernel_init=self.kernel_init)
        norm = partial(batch_norm, train, self.momentum, self.dtype, self.axis_name)
        width, wide = self.width, self.width * EXPANSION[self.kind]
        first, second = self.dilations
        if self.kind == "basic":
            y = nn.relu(norm("bn1")(conv("conv1", width, 3, self.stride, first)(x)))
            y = norm("bn2")(conv("conv2", width, 3, 1, second)(y))
        else:
            y = nn.relu(norm("bn1")(conv("conv1", width, 1)(x)))
            y = nn.relu(norm("bn2")(conv("conv2", width, 3, self.stride, first)(y)))
            y = norm("bn3")(conv("conv3", wide, 1)(y))
        if self.stride != 1 or x.shape[-1] != wide:
            x = norm("downsample_1")(conv("downsample_0", wide, 1, self.stride)(x))
        return nn.relu(x + y)


class ResNet(Staged):
    """A residual network with batch norm.

    A stem (in the first stage), stages of residual blocks, and the mean over positions. The first
    block of every stage but the first is at stride 2.

    `resnet18`, `resnet34` and `resnet50` are torchvision's architectures, without the classifier
    `fc`: that is a head's. `deeplab` is `resnet50` with dilation, of the same parameters; its
    pyramid is an option of dense heads (`jmtl.nn.AtrousHead`). A torchvision name becomes a path
    here by writing `_` before a number and `/` for every other dot: `layer1.0.conv1.weight` is
    `layer1_0/conv1/kernel`, transposed from OIHW to HWIO. Of a norm, `weight` is `scale`;
    `running_mean` and `running_var` are `mean` and `var` in the `batch_stats` of the model state.

    Attributes:
        widths: Width of each stage; the representation has the last, times 4 for bottlenecks.
        blocks: Blocks in each stage.
        block: "basic" (two 3×3 convolutions) or "bottleneck" (1×1, 3×3, 1×1, times 4).
        stem: "small": a 3×3 convolution, for images of tens of pixels; "large": a 7×7 convolution
            and a 3×3 max pool, each at stride 2.
        dense: Answer `{"map": [B, h, w, C], "vector": [B, C]}`, for dense tasks; else the vector.
        output_stride: How many times smaller than the image the map is at most: stages that would
            go beyond it dilate instead (8 is DeepLab's); None is no limit.
        dropout: The rate on the vector.
        momentum: The share of the running statistics kept at a step, in [0, 1].
        kernel_init: A name in `jmtl.nn.INITIALISERS`.
        dtype: What it computes in (statistics: float32); None takes the wider of inputs and
            parameters.
        axis_name: pmap's axis, over which batch norm takes its statistics. Under jit, statistics
            are those of the whole batch without it.

    References:
        He et al., *Deep Residual Learning for Image Recognition*, CVPR 2016 (table 1; for small
        images section 4.2). Dilation: Chen et al., *Rethinking Atrous Convolution* (DeepLabv3),
        2017, section 3.2.
    """

    widths: Sequence[int] = (16, 32, 64)
    blocks: Sequence[int] = (1, 1, 1)
    block: Literal["basic", "bottleneck"] = "basic"
    stem: Literal["small", "large"] = "small"
    dense: bool = False
    output_stride: int | None = None
    dropout: float = 0.0
    momentum: float = 0.9
    kernel_init: str = "he_normal"
    dtype: Any = None
    axis_name: str | None = None

    def stages(self) -> Sequence[Sequence[Block]]:
        """From images `[B, H, W]` or `[B, H, W, C]` to `[B, h, w, C]`, a stage a width.

        Raises:
            ValueError: If `widths` and `blocks` differ in length, a name is unknown, or the stem
                alone passes the output stride.
        """
        if len(self.widths) != len(self.blocks):
            raise ValueError(
                f"resnet: widths and blocks have one entry a stage, "
                f"got widths={tuple(self.widths)}, blocks={tuple(self.blocks)}"
            )
        check_choice("resnet", "block", self.block, tuple(EXPANSION))
        check_choice("resnet", "stem", self.stem, ("small", "large"))
        reached, dilation = (4 if self.stem == "large" else 1), 1
        limit = self.output_stride or float("inf")
        if limit < reached:
            raise ValueError(
                f"resnet: output_stride must be at least {reached}, the stem's own, got {limit}"
            )
        stages: list[list[Block]] = []
        for stage, (width, blocks) in enumerate(zip(self.widths, self.blocks, strict=True)):
            stride, before = 1, dilation
            if stage > 0 and reached * 2 <= limit:
                stride, reached = 2, reached * 2
            elif stage > 0:
                dilation *= 2
            stages.append([])
            for block in range(blocks):
                # The first block of a dilated stage still sees the grid of the stage before.
                dilations = (before if block == 0 else dilation, dilation)
                step = stride if block == 0 else 1
                name = f"layer{stage + 1}_{block}"
                stages[-1].append(partial(self._block, name, width, step, dilations))
        return [[self._stem, *stages[0]], *stages[1:]]

    def _stem(self, x: Float[Array, "B H W *C"], train: bool) -> Float[Array, "B h w C"]:
        large = self.stem == "large"
        size, stride = (7, 2) if large else (3, 1)
        conv = convolution(
            "conv1", self.widths[0], size, stride, dtype=self.dtype, kernel_init=self.kernel_init
        )
        norm = batch_norm(train, self.momentum, self.dtype, self.axis_name, "bn1")
        x = nn.relu(norm(conv(images(x, "resnet"))))
        return nn.max_pool(x, (3, 3), (2, 2), padding=((1, 1), (1, 1))) if large else x

    def _block(
        self,
        name: str,
        width: int,
        stride: int,
        dilations: tuple[int, int],
        x: Float[Array, "B H W C"],
        train: bool,
    ) -> Float[Array, "B H2 W2 C2"]:
        return Residual(
            self.block,
            width,
            stride,
            dilations,
            self.momentum,
            self.kernel_init,
            self.dtype,
            self.axis_name,
            name=name,
        )(x, train)

    def neck(self, x: Float[Array, "B h w C"], train: bool) -> Any:
        """The mean over positions, and the map itself where `dense`."""
        vector = x.mean(axis=(1, 2))
        if self.dropout:
            vector = Dropout(self.dropout, axis_name=self.axis_name, name="Dropout_0")(
                vector, train
            )
        return {"map": x, "vector": vector} if self.dense else vector


def convolution(
    name: str, width: int, size: int, stride: int = 1, dilation: int = 1, **options: Any
) -> nn.Conv:
    """A convolution without bias, padded alike on all sides as torch pads."""
    init = initialiser(options.pop("kernel_init"))
    pad = dilation * (size - 1) // 2
    return image_conv(
        width,
        (size, size),
        strides=(stride, stride),
        padding=((pad, pad), (pad, pad)),
        kernel_dilation=(dilation, dilation),
        use_bias=False,
        kernel_init=init,
        name=name,
        **options,
    )


def _named(doc: str, **options: Any) -> Callable[..., ResNet]:
    """A ResNet of other defaults, with a line on what it is."""
    made = partial(ResNet, widths=(64, 128, 256, 512), stem="large", **options)
    made.__doc__ = doc
    return made


_50: dict[str, Any] = {"blocks": (3, 4, 6, 3), "block": "bottleneck"}

resnet18 = _named("torchvision's ResNet-18.", blocks=(2, 2, 2, 2))
resnet34 = _named("torchvision's ResNet-34.", blocks=(3, 4, 6, 3))
resnet50 = _named("torchvision's ResNet-50.", **_50)
deeplab = _named(
    "ResNet-50 whose last two stages dilate: a map 8 times smaller than the image, as DeepLab's.",
    **_50,
    dense=True,
    output_stride=8,
)
