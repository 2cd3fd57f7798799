"""Convolutions that are fast on a CPU, inside loops too.

XLA on a CPU brings the backward convolutions into a fast form in a program's outermost computation
alone. In the body of a `scan`, where a training step lies, they ran 20 to 90 times slower (jax 0.10
and 0.12; 3×3, 16 images of 32×32, 24 to 32 channels: 640 ms for 17 ms). As slices and one product
of matrices they cost there what they cost outside, at most twice the fast form, and less under
`vmap`, where a convolution becomes a grouped one.

Narrow images that are pooled go faster still by whole rows, see `conv_max_pool`.
"""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
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


WIDEST = 32
"""The widest image whose convolution goes by whole rows."""


def conv_max_pool(
    lhs: Float[Array, "B H W C"], rhs: Float[Array, "kh kw C D"], window: int = 2
) -> Float[Array, "B h w D"]:
    """The maximum over windows of a convolution without padding.

    Both are one product of matrices: `kh` rows of the image, whole, times the kernel laid out as a
    band matrix, whose columns are ordered so that the members of a window lie `w D` numbers apart.
    Of the band most is zero, W / kw times the arithmetic; but no patch is copied, pixels are read
    `kh` times instead of `kh kw`, and the maximum and its gradient run over long rows. Where
    several are equal the first has the gradient, as in `flax.linen.max_pool`.

    Args:
        lhs: Images.
        rhs: The kernel.
        window: Height and width of the windows, which touch; what is left over at the end is not
            looked at.
    """
    size, width, features = rhs.shape[0], lhs.shape[2], rhs.shape[3]
    h = (lhs.shape[1] - size + 1) // window
    rows = jnp.stack([lhs[:, i : i + h * window] for i in range(size)], axis=2)
    band = _band(rhs, width, window)
    y = rows.reshape(-1, size * width * lhs.shape[3]) @ band.reshape(-1, band.shape[-1])
    y = y.reshape(-1, window**2, band.shape[-1] // window)
    fixed = lax.stop_gradient(y)
    largest, place = fixed[:, 0], jnp.zeros((len(y), y.shape[2]), jnp.int8)
    for i in range(1, window**2):
        member = fixed[:, i]
        more = (member > largest) | jnp.isnan(member)
        largest, place = jnp.where(more, member, largest), jnp.where(more, jnp.int8(i), place)
    chosen = place[:, None] == jnp.arange(window**2, dtype=jnp.int8)[None, :, None]
    largest = jnp.where(chosen, y, 0).sum(axis=1)
    return largest.reshape(len(lhs), h, -1, features)


def _band(
    rhs: Float[Array, "kh kw C D"], width: int, window: int
) -> Float[Array, "kh W C columns"]:
    """The kernel at every place of a row; columns run over window, place of window, channel."""
    size = rhs.shape[1]
    places = np.arange((width - size + 1) // window)
    at = np.zeros((size, width, window, len(places)), rhs.dtype)
    for j in range(size):
        for i in range(window):
            at[j, places * window + i + j, i, places] = 1
    band = jnp.einsum("jxiw,hjcd->hxciwd", at, rhs, precision=lax.Precision.HIGHEST)
    return band.reshape(*band.shape[:3], -1)


def pooled_conv(
    x: Float[Array, "B H W C"], features: int, size: int, window: int = 2, **options: Any
) -> Float[Array, "B h w D"]:
    """A square convolution without padding and the maximum over windows, by the faster way.

    Called inside a module's `__call__`; the parameters are those of a `flax.linen.Conv`.

    Args:
        x: Images.
        features: Channels of the output.
        size: Height and width of the kernel.
        window: Height and width of the windows.
        **options: flax's: dtype, kernel_init, name.
    """
    if jax.default_backend() != "cpu" or x.shape[2] > WIDEST:
        y = image_conv(features, (size, size), padding="VALID", **options)(x)
        return nn.max_pool(y, (window, window), strides=(window, window))

    def pooled(lhs: Any, rhs: Any, *_: Any, **__: Any) -> Any:
        return conv_max_pool(lhs, rhs, window)

    # Flax adds the bias to the maxima: it is the same for all members of a window.
    made = nn.Conv(features, (size, size), padding="VALID", conv_general_dilated=pooled, **options)
    return made(x)
