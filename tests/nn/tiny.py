"""Every encoder at a size that compiles in a second, with inputs for it."""

from typing import Any

import jax
import jax.numpy as jnp

from jmtl.nn import make_encoder

B = 8
_TOKENS = jax.random.randint(jax.random.key(0), (B, 5), 0, 7)  # 0 is padding, anywhere in a row
_LENGTHS = jnp.arange(B)[:, None] % 4 + 2


def _images(side: int) -> jax.Array:
    return jax.random.normal(jax.random.key(1), (B, side, side))


_TEXT = {"tokens": _TOKENS, "mask": jnp.arange(5)[None] < _LENGTHS}
_MOLECULES = {
    "charges": jax.random.randint(jax.random.key(2), (B, 5), 0, 4),  # as tokens
    "positions": 2 * jax.random.normal(jax.random.key(3), (B, 5, 3)),
}
_LARGE: dict[str, Any] = {"widths": (4, 4, 6), "blocks": (1, 1, 1)}

TINY: dict[str, tuple[dict[str, Any], Any]] = {
    "deeplab": ({"widths": (2, 3, 4), "blocks": (1, 1, 1)}, _images(16)),
    "gru": ({"vocabulary": 7, "width": 4, "layers": 2, "bidirectional": False}, _TEXT),
    "lenet": ({"widths": (3, 4), "features": 6}, _images(16)),
    "mlp": ({"hidden": (6, 5)}, _images(4)),
    "resnet": ({"widths": (4, 6), "blocks": (1, 1)}, _images(8)),
    "resnet18": (_LARGE, _images(16)),
    "resnet34": ({**_LARGE, "blocks": (1, 2, 1)}, _images(16)),
    "resnet50": ({"widths": (2, 3), "blocks": (1, 1)}, _images(16)),
    "schnet": ({"width": 4, "layers": 2, "gaussians": 5, "elements": 4}, _MOLECULES),
    "segnet": ({"widths": (4, 5), "convolutions": (2, 1)}, _images(8)),
    "transformer": ({"vocabulary": 7, "width": 4, "heads": 2, "max_length": 5}, _TEXT),
    "vgg16": (
        {"widths": (4, 4), "convolutions": (1, 2), "pooled": 1, "classifier": (5,)},
        _images(8),
    ),
    "vit": ({"width": 4, "layers": 2, "heads": 2}, _images(8)),
}


def tiny(name: str, **options: Any) -> tuple[Any, Any]:
    """The encoder of that name, and a batch of inputs for it."""
    given, inputs = TINY[name]
    return make_encoder(name, **{**given, **options}), inputs
