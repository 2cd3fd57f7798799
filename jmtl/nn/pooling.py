"""The maximum over windows that touch, whose gradient is one pass over the features."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jaxtyping import Array, Float, Int

MOST = 16
"""Members of a window that are compared one by one; larger windows would make long programs."""


def max_pool(x: Float[Array, "B H W C"], window: tuple[int, int]) -> Float[Array, "B h w C"]:
    """`flax.linen.max_pool` with strides of the window's size, and without padding.

    Windows are made dimensions and their maxima chosen by a mask: XLA's own gradient of a window's
    maximum looks for it again, one window at a time (2×2 of 16 images of 64×64×16, 2 cores, jax
    0.10: forward and gradient 5.8 ms, and 0.3 by the mask). Compiled for an H100, forward and two
    gradients of 256 images of 24×24×20 move 70 MB by the mask, and 250 by XLA's, with a scatter
    for each gradient (jax 0.11).

    Args:
        x: Features; rows and columns that fill no window are left out.
        window: Height and width.
    """
    if window[0] * window[1] > MOST:
        return nn.max_pool(x, window, strides=window)
    b, c = x.shape[0], x.shape[3]
    (p, q), (h, w) = window, (n // size for n, size in zip(x.shape[1:3], window, strict=True))
    members = x[:, : h * p, : w * q].reshape(b * h, p, w, q, c)
    return largest(members).reshape(b, h, w, c)


def largest(members: Float[Array, "n p blocks q m"]) -> Float[Array, "n blocks m"]:
    """The maximum over both dimensions of a window, `p` and `q`.

    Where several are equal the first has the gradient, as in `flax.linen.max_pool`; what is no
    number is kept.
    """
    # By a mask: its gradient is one pass over all, where those of maxima are one for each member.
    fixed = lax.stop_gradient(members)
    p, q = members.shape[1], members.shape[3]
    place = _place([fixed[:, i // q, :, i % q] for i in range(p * q)])
    places = jnp.arange(p * q, dtype=jnp.int8).reshape(1, p, 1, q, 1)
    return jnp.where(place[:, None, :, None] == places, members, 0).sum(axis=(1, 3))


@functools.partial(jax.custom_jvp, nondiff_argnums=(1,))
def largest_part(x: Float[Array, "n columns"], parts: int) -> Float[Array, "n m"]:
    """The maximum over parts of the columns that follow each other, `columns = parts m`.

    As `largest`, and its gradient has rows of `parts m` numbers: written part by part it is moved
    as fast as memory allows. XLA looked up for each number in which part it lies (18,432 rows of
    4 × 20, 2 cores, jax 0.10: 1.6 to 3.1 ms, and 0.7 to 1.4 part by part).
    """
    return _placed(x, _place(jnp.split(x, parts, axis=1)), parts)


@largest_part.defjvp
def _largest_part_jvp(
    parts: int, primals: tuple[Array], tangents: tuple[Array]
) -> tuple[Array, Array]:
    (x,), (moved,) = primals, tangents
    place = _place(jnp.split(x, parts, axis=1))
    # `lax.split`, whose transpose is one concatenation; that of slices is a sum of padded arrays.
    members = lax.split(moved, [x.shape[1] // parts] * parts, axis=1)
    terms = [jnp.where(place == i, member, 0) for i, member in enumerate(members)]
    return _placed(x, place, parts), functools.reduce(jnp.add, terms)


def _placed(x: Array, place: Array, parts: int) -> Array:
    # A sum over a dimension is written out. What is not, XLA computes again in every consumer.
    mask = place[:, None] == jnp.arange(parts, dtype=jnp.int8)[None, :, None]
    return jnp.where(mask, x.reshape(len(x), parts, -1), 0).sum(axis=1)


def _place(members: Sequence[Array]) -> Int[Array, "..."]:
    """Which of the members is the largest, or the last that is no number; the first of equals."""
    most, place = members[0], jnp.zeros(members[0].shape, jnp.int8)
    for i, member in enumerate(members[1:], 1):
        more = (member > most) | jnp.isnan(member)
        most, place = jnp.where(more, member, most), jnp.where(more, jnp.int8(i), place)
    # Else XLA compares the members again in the backward pass of every task.
    return lax.optimization_barrier(place)
