"""Augmentation on the device: images and what is labelled in them, moved alike.

Flip, crop, zoom and shear are affine maps. Those of an augmentation are composed before a pixel is
read, so an image is interpolated once: images bilinearly, label maps by the nearest pixel. Colour
and cut-out change images alone. Example r of the global batch draws from `fold_in(key, r)`, so any
number of devices gives the same.

    augment = augmentation(
        {"surface": "classes", "far": "depth", "facing": "normals", "solids": "boxes"},
        moves=(flip, partial(zoom, low=1.0, high=1.5)),
        changes=(partial(colour, brightness=0.2), cut_out),
    )
    batch = augment(key, batch)

Kinds of labels, and what becomes of each: `jmtl.data.affine`.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, get_args

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray

from jmtl.checks import check_choice
from jmtl.data.affine import Affine, Kind, Size, compose, identity, warp, warp_label
from jmtl.methods import nearest
from jmtl.tasks import Batch

Move = Callable[[PRNGKeyArray, Size, Size], Affine]
"""Draws a map, given the sizes of the old and of the new image."""

Change = Callable[[PRNGKeyArray, Float[Array, "H W *C"]], Float[Array, "H W *C"]]
"""Draws a change of the pixels of an image."""

Augment = Callable[..., Batch]
"""`(key, batch, axis_name=None) -> batch`; see `augmentation`."""


def sometimes(drawn: Callable[..., Any], chance: float = 0.5) -> Callable[..., Any]:
    """A move or a change that is made with a chance."""

    def made(key: PRNGKeyArray, given: Any, *sizes: Size) -> Any:
        coin, inner = jax.random.split(key)
        new = drawn(inner, given, *sizes)
        still = identity() if isinstance(new, Affine) else given
        heads = jax.random.bernoulli(coin, chance)
        return jax.tree.map(lambda a, b: jnp.where(heads, a, b), new, still)

    return made


def flip(key: PRNGKeyArray, old: Size, new: Size, chance: float = 0.5) -> Affine:
    """Left and right exchanged, with a chance."""
    del old, new
    side = jnp.where(jax.random.bernoulli(key, chance), -1.0, 1.0)
    return Affine(jnp.diag(jnp.stack([jnp.ones(()), side])), jnp.zeros(2))


def crop(key: PRNGKeyArray, old: Size, new: Size, pad: int = 0) -> Affine:
    """A window of the new size, anywhere in the old image with `pad` pixels around it.

    Raises:
        ValueError: the window is larger than that.
    """
    room = [o + 2 * pad - n for o, n in zip(old, new, strict=True)]
    if min(room) < 0:
        raise ValueError(f"no window of {new} lies in an image of {old} padded by {pad}")
    corner = jax.random.randint(key, (2,), 0, jnp.array(room) + 1) - pad
    return Affine(jnp.eye(2), corner - (jnp.array(old) - jnp.array(new)) / 2)


def zoom(key: PRNGKeyArray, old: Size, new: Size, low: float = 0.8, high: float = 1.25) -> Affine:
    """Enlarged about the middle by a factor from `low` to `high`, uniform in its logarithm.

    Raises:
        ValueError: not 0 < low <= high.
    """
    del old, new
    if not 0 < low <= high:
        raise ValueError(f"zoom: 0 < low <= high, got {low} and {high}")
    ends = jnp.log(jnp.array([low, high]))
    factor = jnp.exp(jax.random.uniform(key, minval=ends[0], maxval=ends[1]))
    return Affine(jnp.eye(2) / factor, jnp.zeros(2))


def scale_crop(
    key: PRNGKeyArray, old: Size, new: Size, scales: Sequence[float] = (1.0, 1.2, 1.5)
) -> Affine:
    """A window anywhere in the image, enlarged by one of a few scales.

    Args:
        key: of the scale and the place.
        old: the old image's size.
        new: the new one's; where it is at most the old one, nothing outside the image is read.
        scales: alike in chance, at least 1: the window's sides are the image's divided by one.

    Raises:
        ValueError: there is no scale, or one below 1.

    References:
        PAD-Net (Xu et al., CVPR 2018), as the papers after MTAN augment NYUv2.
    """
    if not scales or min(scales) < 1:
        raise ValueError(f"scale_crop: scales of at least 1, got {tuple(scales)}")
    which, where = jax.random.split(key)
    sides = jnp.array(old) / jax.random.choice(which, jnp.array(scales))
    step = sides / jnp.array(new)
    # From the middle of the first pixel to that of the last, in the image less in the window.
    room = (jnp.array(old) - 1 - step * (jnp.array(new) - 1)) / 2
    place = room * jax.random.uniform(where, (2,), minval=-1.0)
    return Affine(jnp.diag(step), place)


def shear(key: PRNGKeyArray, old: Size, new: Size, most: float = 0.2) -> Affine:
    """Rows shifted sideways, by up to `most` of their distance from the middle either way."""
    del old, new
    slope = jax.random.uniform(key, minval=-most, maxval=most)
    return Affine(jnp.eye(2).at[1, 0].set(slope), jnp.zeros(2))


def colour(
    key: PRNGKeyArray,
    image: Float[Array, "H W *C"],
    brightness: float = 0.2,
    contrast: float = 0.2,
    saturation: float = 0.2,
) -> Float[Array, "H W *C"]:
    """All values times a factor; differences to the image's mean; those to the mean of channels.

    Args:
        key: of the factors.
        image: values of which 0 is black; the result may exceed their range.
        brightness: its factor is uniform in 1 ± this.
        contrast: likewise.
        saturation: likewise; without effect on an image of one channel.
    """
    spans = jnp.array([brightness, contrast, saturation])
    bright, far, deep = 1 + spans * jax.random.uniform(key, (3,), minval=-1.0)
    bright, far, deep = (x.astype(image.dtype) for x in (bright, far, deep))
    image = image * bright
    image = image.mean() * (1 - far) + image * far
    if image.ndim == 2:
        return image
    return image.mean(axis=-1, keepdims=True) * (1 - deep) + image * deep


def cut_out(
    key: PRNGKeyArray, image: Float[Array, "H W *C"], side: float = 0.5, value: float = 0.0
) -> Float[Array, "H W *C"]:
    """A square painted over, whose middle lies anywhere in the image.

    Args:
        key: of the middle.
        image: any values.
        side: of the square, a share of the image's height and width.
        value: that it is painted with.

    References:
        DeVries & Taylor, *Improved Regularization of Convolutional Neural Networks with Cutout*,
        2017.
    """
    middle = jax.random.uniform(key, (2,))
    inside = [
        jnp.abs((jnp.arange(n) + 0.5) / n - at) < side / 2
        for n, at in zip(image.shape[:2], middle, strict=True)
    ]
    hole = inside[0][:, None] & inside[1][None, :]
    return jnp.where(hole.reshape(hole.shape + (1,) * (image.ndim - 2)), value, image)


def augmentation(
    kinds: Mapping[str, Kind],
    moves: Sequence[Move] = (),
    changes: Sequence[Change] = (),
    size: Size | None = None,
    lens: bool = False,
    fill: float = 0.0,
) -> Augment:
    """An augmentation of batches.

    Args:
        kinds: of labels by key; others (an image's class) stay as they are.
        moves: in the order in which they act on the image.
        changes: likewise, after the moves.
        size: of the new images; None is that of the old ones.
        lens: whether zoom is a longer lens, not a nearer scene; see `jmtl.data.affine`.
        fill: what images are outside.

    Returns:
        `(key, batch, axis_name=None) -> batch`, pure. Inputs are `[B, H, W]` or `[B, H, W, C]`
        floating-point images, or several of one size in any containers, which all move and change
        alike; labels as above. With pmap's `axis_name`, rows are numbered over all devices.

    Raises:
        ValueError: an unknown kind; when called, a label that is not there, or a shape that does
            not fit.
    """
    for kind in kinds.values():
        check_choice("augmentation", "a kind of label", kind, get_args(Kind))

    def one(key: PRNGKeyArray, inputs: Any, labels: dict[str, Array]) -> tuple[Any, Any]:
        labels = dict(labels)
        height, width = jax.tree.leaves(inputs)[0].shape[:2]
        old = (height, width)
        new = old if size is None else (size[0], size[1])
        keys = [jax.random.fold_in(key, i) for i in range(len(moves) + len(changes))]
        if moves or new != old:
            where = compose(*(move(keys[i], old, new) for i, move in enumerate(moves)))
            inputs = jax.tree.map(lambda x: warp(x, where, new, fill), inputs)
            for name, kind in kinds.items():
                labels[name] = warp_label(kind, labels[name], where, old, new, lens)
        for drawn, change in zip(keys[len(moves) :], changes, strict=True):
            inputs = jax.tree.map(partial(change, drawn), inputs)
        return inputs, labels

    def augment(key: PRNGKeyArray, batch: Batch, axis_name: str | None = None) -> Batch:
        _check(kinds, batch)
        rows = jnp.arange(jax.tree.leaves(batch.inputs)[0].shape[0])
        if axis_name is not None:
            rows = rows + lax.axis_index(axis_name) * len(rows)
        keys = jax.vmap(lambda row: jax.random.fold_in(key, row))(rows)
        labels = jax.tree.map(jnp.asarray, dict(batch.labels))
        inputs, labels = jax.vmap(one)(keys, jax.tree.map(jnp.asarray, batch.inputs), labels)
        return batch._replace(inputs=inputs, labels=labels)

    return augment


def _check(kinds: Mapping[str, Kind], batch: Batch) -> None:
    """Refuse inputs and labels that do not fit, by their shapes."""
    shapes = [jnp.shape(x) for x in jax.tree.leaves(batch.inputs)]
    floating = all(jnp.issubdtype(x.dtype, jnp.floating) for x in jax.tree.leaves(batch.inputs))
    first = shapes[0][:3]
    if not floating or any(len(s) not in (3, 4) or s[:3] != first for s in shapes):
        raise ValueError(
            "augmentation takes floating-point images [B, H, W] or [B, H, W, C] of one size, got "
            f"{', '.join(str(shape) for shape in shapes)}"
        )
    for name, kind in kinds.items():
        if name not in batch.labels:
            raise ValueError(f"augmentation: no label {name!r}; {nearest(name, batch.labels)}")
        shape = jnp.shape(batch.labels[name])
        objects = kind in ("boxes", "tracks")
        tail = {"normals": (3,), "boxes": (5,), "tracks": (5,)}.get(kind, ())
        fits = len(shape) == 3 if objects else shape[:3] == first and len(shape) == 3 + len(tail)
        if not fits or shape[len(shape) - len(tail) :] != tail:
            wanted = "B, N, 5" if objects else ", ".join(map(str, (*first, *tail)))
            raise ValueError(f"augmentation: label {name!r}, {kind}, is [{wanted}], got {shape}")
