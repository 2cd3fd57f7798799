"""Convolutions that are fast on a CPU, inside loops too.

XLA on a CPU brings the backward convolutions into a fast form in a program's outermost computation
alone. In the body of a `scan`, where a training step lies, they ran 20 to 90 times slower (jax 0.10
and 0.12; 3×3, 16 images of 32×32, 24 to 32 channels: 640 ms for 17 ms). As slices and one product
of matrices they cost there what they cost outside, at most twice the fast form, and less under
`vmap`, where a convolution becomes a grouped one.

A convolution that is pooled goes faster still by blocks of the image, see `conv_max_pool`.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jmtl.nn.pooling import largest_part, max_pool


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

    def columns(x: Array) -> Array:
        parts = [
            x[
                :,
                i * dilation[0] : i * dilation[0] + last[0] : window_strides[0],
                j * dilation[1] : j * dilation[1] + last[1] : window_strides[1],
            ]
            for i in range(sizes[0])
            for j in range(sizes[1])
        ]
        return parts[0] if len(parts) == 1 else jnp.concatenate(parts, axis=-1)

    kernel = rhs.reshape(-1, features)
    return _product(columns, x, kernel, options.get("precision"))


COLUMNS = 2**21
"""Elements that the gradient of a convolution's images writes at a time, or those of one image."""


def _product(columns: Callable[[Array], Array], x: Array, kernel: Array, precision: Any) -> Array:
    """`columns(x) kernel`; where columns are many, the gradient of x is taken image by image.

    XLA on a CPU runs instructions in the order in which they could begin. So K backward passes
    through a layer all wrote the gradient of its columns, `kh kw` times as large as its features,
    before the first was summed: a step of ResNet-18 with 8 tasks, recomputed, took 829 MB, and
    takes 628. A loop is one instruction. Where it is used there is no forward differentiation,
    but of gradients.

    Args:
        columns: of images, linear: `[B, ...]` to `[B, h, w, kh kw C]`.
        x: images.
        kernel: `[kh kw C, D]`.
        precision: of the product.
    """

    def contract(stacked: Array, kernel: Array) -> Array:
        return lax.dot_general(stacked, kernel, (((3,), (0,)), ((), ())), precision=precision)

    each, image = jax.eval_shape(columns, x[:1]).size, math.prod(x.shape[1:])
    most = max(COLUMNS // max(each, 1), 1)
    few = max((n for n in range(1, len(x) + 1) if len(x) % n == 0 and n <= most), default=0)
    if few == len(x) or each <= image:
        return contract(columns(x), kernel)

    @jax.custom_vjp
    def product(x: Array, kernel: Array) -> Array:
        return contract(columns(x), kernel)

    def forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
        stacked = columns(x)
        return contract(stacked, kernel), (stacked, kernel)

    def backward(kept: tuple[Array, Array], y: Array) -> tuple[Array, Array]:
        stacked, kernel = kept
        # Any point serves, for it is linear. Of y and not of zeros, which XLA writes so early that
        # those of all passes exist together; and it varies over the devices that y varies over.
        unwritten = jnp.broadcast_to(y[:1, :1, :1, :1], x.shape).astype(x.dtype)
        _, of_part = jax.vjp(lambda x: contract(columns(x), kernel), unwritten[:few])
        _, of_kernel = jax.vjp(lambda kernel: contract(stacked, kernel), kernel)

        def write(i: Any, moved: Array) -> Array:
            part = of_part(lax.dynamic_slice_in_dim(y, i * few, few))[0]
            return lax.dynamic_update_slice_in_dim(moved, part, i * few, 0)

        return lax.fori_loop(0, len(x) // few, write, unwritten), of_kernel(y)[0]

    product.defvjp(forward, backward)
    return product(x, kernel)


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


ACROSS = 4
"""Outputs across in a block of `conv_max_pool`, about."""


def conv_max_pool(
    lhs: Float[Array, "B H W C"], rhs: Float[Array, "kh kw C D"], window: int = 2
) -> Float[Array, "B h w D"]:
    """The maximum over windows of a convolution without padding.

    Both are one product of matrices. Its rows are blocks of the image, as high as a row of windows
    needs and as wide as about `ACROSS` outputs do; its columns are the kernel at every place of a
    block, ordered so that the members of a window lie a whole block of features apart. About half
    of it is zero, which is twice the arithmetic of a 5×5 kernel; but pixels are read 6 times
    instead of 25, and the maximum and its gradient run over long rows. Where several are equal the
    first has the gradient, as in `flax.linen.max_pool`.

    Args:
        lhs: Images.
        rhs: The kernel.
        window: Height and width of the windows, which touch; what is left over at the end is not
            looked at.
    """
    (kh, kw), features = rhs.shape[:2], rhs.shape[3]
    h, w = ((n - k + 1) // window for n, k in zip(lhs.shape[1:3], (kh, kw), strict=True))
    places = _places(w, window)
    high, reach = window + kh - 1, places * window + kw - 1
    blocks = [
        jnp.stack([lhs[:, i : i + h * window : window, j : j + reach] for i in range(high)], axis=2)
        for j in range(0, w * window, places * window)
    ]
    rows = jnp.stack(blocks, axis=2)  # [B, h, blocks, high, reach, C]
    kernel = _at_every_place(rhs, (high, reach), window, places)
    y = rows.reshape(-1, kernel[..., 0].size) @ kernel.reshape(-1, kernel.shape[-1])
    return largest_part(y, window * window).reshape(len(lhs), h, w, features)


def _places(w: int, window: int) -> int:
    """How many of w maxima lie in a block: the divisor that brings it nearest to `ACROSS`."""
    divisors = [n for n in range(1, w + 1) if w % n == 0]
    return min(divisors, key=lambda n: abs(math.log(n * window / ACROSS)))


def _at_every_place(
    rhs: Float[Array, "kh kw C D"], size: tuple[int, int], window: int, places: int
) -> Float[Array, "high reach C columns"]:
    """The kernel at every place of a block; columns run over member of window, window, channel."""
    free = [n - k for n, k in zip(size, rhs.shape[:2], strict=True)]
    each = [
        jnp.pad(rhs, ((i, free[0] - i), (at, free[1] - at), (0, 0), (0, 0)))
        for i in range(window)
        for j in range(window)
        for at in range(j, j + places * window, window)
    ]
    return jnp.concatenate(each, axis=-1)


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
    if jax.default_backend() != "cpu":
        y = nn.Conv(features, (size, size), padding="VALID", **options)(x)
        return max_pool(y, (window, window))

    def pooled(lhs: Any, rhs: Any, *_: Any, **__: Any) -> Any:
        return conv_max_pool(lhs, rhs, window)

    # Flax adds the bias to the maxima: it is the same for all members of a window.
    made = nn.Conv(features, (size, size), padding="VALID", conv_general_dilated=pooled, **options)
    return made(x)
