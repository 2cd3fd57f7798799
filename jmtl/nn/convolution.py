"""Convolutions that stay fast inside loops on a CPU.

XLA on a CPU brings the backward convolutions into a fast form in a program's outermost computation
alone. In the body of a `scan`, where a training step lies, they ran 20 to 90 times slower (jax 0.10
and 0.12; 3×3, 16 images of 32×32, 24 to 32 channels: 640 ms for 17 ms). As slices and one product
of matrices they cost there what they cost outside, at most twice the fast form, and less under
`vmap`, where a convolution becomes a grouped one.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float


def conv_general_dilated(
    lhs: Float[Array, "B H W C"],
    rhs: Float[Array, "kh kw C D"],
    window_strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] | None = None,
    rhs_dilation: Sequence[int] | None = None,
    feature_group_count: int = 1,
    **options: Any,
) -> Float[Array, "B h w D"]:
    """`jax.lax.conv_general_dilated` of images, by a product of matrices on a CPU.

    Groups, other ranks and transposed convolutions are jax's own.

    Args:
        lhs: Images.
        rhs: The kernel.
        window_strides: Two.
        padding: "SAME", "VALID", or pairs.
        lhs_dilation: Of the images.
        rhs_dilation: Of the kernel.
        feature_group_count: Groups of channels.
        **options: jax's; the dimensions are as above.
    """
    plain = lhs.ndim == 4 and feature_group_count == 1 and set(lhs_dilation or (1,)) == {1}
    if jax.default_backend() != "cpu" or not plain:
        return lax.conv_general_dilated(
            lhs,
            rhs,
            window_strides,
            padding,
            lhs_dilation=lhs_dilation,
            rhs_dilation=rhs_dilation,
            feature_group_count=feature_group_count,
            **options,
        )
    sizes, features = rhs.shape[:2], rhs.shape[3]
    dilation = tuple(rhs_dilation or (1, 1))
    reach = [(size - 1) * step + 1 for size, step in zip(sizes, dilation, strict=True)]
    if isinstance(padding, str):
        padding = lax.padtype_to_pads(lhs.shape[1:3], reach, window_strides, padding)
    x = jnp.pad(lhs, ((0, 0), *padding, (0, 0)))
    last = [
        (n - r) // stride * stride + 1
        for n, r, stride in zip(x.shape[1:3], reach, window_strides, strict=True)
    ]
    columns = [
        x[
            :,
            i * dilation[0] : i * dilation[0] + last[0] : window_strides[0],
            j * dilation[1] : j * dilation[1] + last[1] : window_strides[1],
        ]
        for i in range(sizes[0])
        for j in range(sizes[1])
    ]
    stacked = columns[0] if len(columns) == 1 else jnp.concatenate(columns, axis=-1)
    kernel = rhs.reshape(-1, features)
    return lax.dot_general(
        stacked, kernel, (((3,), (0,)), ((), ())), precision=options.get("precision")
    )


def image_conv(features: int, size: Sequence[int], *more: Any, **options: Any) -> nn.Conv:
    """A `flax.linen.Conv` by the convolution above.

    Args:
        features: Channels of the output.
        size: Height and width of the kernel.
        *more: flax's: strides, padding.
        **options: flax's.
    """
    options["conv_general_dilated"] = conv_general_dilated
    return nn.Conv(features, size, *more, **options)
