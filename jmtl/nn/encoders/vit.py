"""The vision transformer."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import flax.linen as nn
from jaxtyping import Array, Float

from jmtl.nn.convolution import image_conv
from jmtl.nn.encoders.attention import attend, transform
from jmtl.nn.encoders.staged import Block, Staged, images
from jmtl.nn.layers import Dropout, initialiser


class ViT(Staged):
    """Self-attention over the patches of an image; a layer is a stage.

    Positions are learned, so all images have one size. The vector is the mean over the patches, as
    in the plain form of Beyer et al.; there is no class token.

    Attributes:
        patch: The side of a patch; it divides the sides of the image.
        width: F.
        layers: Of attention and two dense layers each.
        heads: Of the attention; they divide the width.
        hidden: Width between the dense layers; None is 4 F.
        dense: Answer `{"map": [B, H / patch, W / patch, F], "vector": [B, F]}`; else the vector.
        dropout: The rate after the embedding, attention and dense layers.
        kernel_init: A name in `jmtl.nn.INITIALISERS`.
        dtype: What it computes in; None takes the wider of inputs and parameters.
        axis_name: pmap's axis.

    References:
        Dosovitskiy et al., *An Image is Worth 16x16 Words*, ICLR 2021; Beyer et al., *Better plain
        ViT baselines for ImageNet-1k*, 2022.
    """

    patch: int = 4
    width: int = 64
    layers: int = 4
    heads: int = 4
    hidden: int | None = None
    dense: bool = False
    dropout: float = 0.0
    kernel_init: str = "glorot_uniform"
    dtype: Any = None
    axis_name: str | None = None

    def stages(self) -> Sequence[Sequence[Block]]:
        """From images to a map of patches; the embedding is in the first stage."""
        layers: list[list[Block]] = [
            [partial(self._attend, i), partial(self._transform, i)] for i in range(self.layers)
        ]
        return [[self._embed, *layers[0]], *layers[1:]]

    def _embed(self, x: Float[Array, "B H W *C"], train: bool) -> Float[Array, "B h w F"]:
        x, p = images(x, "vit"), self.patch
        if x.shape[1] % p or x.shape[2] % p:
            raise ValueError(
                f"vit: patches of {p} do not divide images of {x.shape[1]}×{x.shape[2]}"
            )
        init = initialiser(self.kernel_init)
        embed = image_conv(
            self.width, (p, p), (p, p), "VALID", dtype=self.dtype, kernel_init=init, name="patches"
        )
        x = embed(x)
        positions = self.param("positions", nn.initializers.normal(0.02), (1, *x.shape[1:]))
        x = x + positions.astype(x.dtype)
        if self.dropout:
            drop = Dropout(self.dropout, axis_name=self.axis_name, name="embedding_dropout")
            x = drop(x, train)
        return x

    def _attend(self, i: int, x: Float[Array, "B h w F"], train: bool) -> Float[Array, "B h w F"]:
        options = (self.dropout, self.kernel_init, self.dtype, self.axis_name)
        patches = x.reshape(x.shape[0], -1, x.shape[-1])
        y = attend(f"layer{i}_attention", self.heads, *options, patches, None, train)
        return y.reshape(x.shape)

    def _transform(
        self, i: int, x: Float[Array, "B h w F"], train: bool
    ) -> Float[Array, "B h w F"]:
        options = (self.dropout, self.kernel_init, self.dtype, self.axis_name)
        hidden = self.hidden or 4 * self.width
        return transform(f"layer{i}_dense", hidden, *options, x, train)

    def neck(self, x: Float[Array, "B h w F"], train: bool) -> Any:
        """The mean over patches after a last norm, and the map itself where `dense`."""
        del train
        x = nn.LayerNorm(dtype=self.dtype, name="norm")(x)
        vector = x.mean(axis=(1, 2))
        return {"map": x, "vector": vector} if self.dense else vector
