"""What heads that answer maps have in common."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def check_map(representation: Array) -> None:
    """Refuse a representation that is no map.

    Raises:
        ValueError: it is not `[B, H, W, C]`.
    """
    if representation.ndim != 4:
        raise ValueError(
            "a head that answers maps reads a representation [B, H, W, C], got "
            f"{representation.shape}: use an encoder that keeps height and width"
        )


def answered(x: Float[Array, "B h w D"], size: tuple[int, int] | None) -> Float[Array, "B H W D"]:
    """A head's output, at least float32.

    Args:
        x: of the last layer.
        size: height and width that it is resized to, linearly; None keeps its own.
    """
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    if size is None or size == x.shape[1:3]:
        return x
    return jax.image.resize(x, (x.shape[0], *size, x.shape[-1]), "linear")
