"""Objects in images, found by their centres: labels, maps, losses, decoding. Pure functions.

Positions and sizes in labels and in what is decoded are shares of the image's height and width, so
that they hold at any resolution. Outputs are maps of h × w cells, and count in cells.

Labels have room for N objects an image:

- detection `[B, N, 5]`: top, left, bottom, right, in [0, 1]; class, 0 .. C - 1. An object of class
  -1, or without an area, is padding.
- tracking `[B, N, 5]`: the centre's y and x, in [0, 1]; its displacement to the next frame; 1 where
  the object is seen in both frames, else 0, padding.

References:
    Zhou et al., *Objects as Points*, 2019 (the outputs and the loss); Liu et al., *Training-Time-
    Friendly Network for Real-Time Object Detection*, AAAI 2020 (the shape of a centre); Zhou et
    al., *Tracking Objects as Points*, ECCV 2020 (displacements).
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int, Num

SIZE_WEIGHT = 0.1
"""Of the error of sizes, in cells, beside that of offsets (Zhou et al., 2019, equation 4)."""

_SPREAD = 0.54 / 6
"""A centre's standard deviation as a share of the box's side (Liu et al., section 3.2)."""


class Objects(NamedTuple):
    """Labels of detection, taken apart.

    Attributes:
        boxes: `[B, N, 4]` top, left, bottom, right.
        classes: `[B, N]` int32.
        real: `[B, N]` which are no padding.
    """

    boxes: Float[Array, "B N 4"]
    classes: Int[Array, "B N"]
    real: Bool[Array, "B N"]


class Detections(NamedTuple):
    """Objects found, the best first.

    Attributes:
        boxes: `[B, K, 4]` top, left, bottom, right, in [0, 1].
        scores: `[B, K]` log-odds (`jax.nn.sigmoid` gives probabilities); -inf where fewer than K
            were found.
        classes: `[B, K]` in 0 .. C - 1.
    """

    boxes: Float[Array, "B K 4"]
    scores: Float[Array, "B K"]
    classes: Int[Array, "B K"]


def detection_loss(
    output: Float[Array, "B h w 4+C"], label: Float[Array, "B N 5"]
) -> Float[Array, " B"]:
    """The loss of centres, sizes and offsets, for each object of an image.

    Centres: cross entropy of every cell and class that fades where the output is right (squared),
    and near a centre for the cells that are not it (to the fourth power). Sizes and offsets:
    absolute errors at the true centres, in cells, sizes at 0.1.

    Args:
        output: `[B, h, w, C + 4]`: C logits of a centre of that class; height, width; what the
            centre lies below and right of the cell's corner.
        label: `[B, N, 5]`, see above. A class of C or more gives NaN.

    Returns:
        `[B]`, the sum over an image by its objects; an image without any counts as one with one,
        of which the cells' loss remains. Weigh images by `object_count`.

    Raises:
        ValueError: If `output` or `label` is of another shape.
    """
    given = objects(label)
    maps, num_classes = _maps(output, 4)
    height, width = maps.shape[1:3]
    logits, sides, offsets = jnp.split(maps, [num_classes, num_classes + 2], axis=-1)

    truth = centre_maps(given, num_classes, (height, width))
    wrong = jnp.square(jax.nn.sigmoid(-logits)) * jax.nn.log_sigmoid(logits)
    false = jnp.square(jax.nn.sigmoid(logits)) * jax.nn.log_sigmoid(-logits)
    centres = -jnp.where(truth == 1, wrong, (1 - truth) ** 4 * false).sum(axis=(1, 2, 3))

    place, cells, scale = _centres((given.boxes[..., :2] + given.boxes[..., 2:]) / 2, maps.shape)
    true_sides = (given.boxes[..., 2:] - given.boxes[..., :2]) * scale
    missed = SIZE_WEIGHT * jnp.abs(_at(sides, cells) - true_sides)
    missed += jnp.abs(_at(offsets, cells) - (place - cells))
    total = centres + jnp.where(given.real[..., None], missed, 0).sum(axis=(1, 2))
    total = total / object_count(label).astype(total.dtype)
    return jnp.where((given.real & (given.classes >= num_classes)).any(1), jnp.nan, total)


def object_count(label: Float[Array, "B N 5"]) -> Int[Array, " B"]:
    """The objects of each image, and 1 for an image without any."""
    return jnp.maximum(objects(label).real.sum(axis=1, dtype=jnp.int32), 1)


def objects(label: Num[Array, "B N 5"]) -> Objects:
    """Labels of detection `[B, N, 5]`, taken apart; padding has the class -1.

    Raises:
        ValueError: If the label is of another shape.
    """
    label = _five("detection", label)
    boxes, classes = label[..., :4], label[..., 4].astype(jnp.int32)
    real = (classes >= 0) & (boxes[..., 2:] > boxes[..., :2]).all(-1)
    return Objects(boxes, jnp.where(real, classes, -1), real)


def centre_maps(given: Objects, num_classes: int, size: tuple[int, int]) -> Float[Array, "B h w C"]:
    """What the centres' logits are trained towards: 1 in an object's cell, less around it.

    Args:
        given: The objects.
        num_classes: C; objects of other classes are left out.
        size: Height and width of the map, in cells.

    Returns:
        `[B, h, w, C]` in [0, 1]: around each centre a Gaussian with the sides of its box, 0.09 of
        them its standard deviations; where two of a class meet, the larger.
    """
    shape = (*given.boxes.shape[:1], *size, num_classes)
    _, cells, scale = _centres((given.boxes[..., :2] + given.boxes[..., 2:]) / 2, shape)
    sides = jnp.where(given.real[..., None], (given.boxes[..., 2:] - given.boxes[..., :2]), 1)
    spread = _SPREAD * sides * scale

    def along(axis: int) -> Float[Array, "B N cells"]:
        far = jnp.arange(size[axis])[None, None] - cells[..., axis, None]
        return jnp.exp(-0.5 * jnp.square(far / spread[..., axis, None]))

    spots = along(0)[..., :, None] * along(1)[..., None, :]
    # Padding, whose class is -1, and unknown classes land in a map that is cut off.
    known = given.real & (given.classes < num_classes)
    index = jnp.where(known, given.classes, num_classes)

    def one(index: Int[Array, " N"], spots: Float[Array, "N h w"]) -> Float[Array, "C h w"]:
        return jnp.zeros((num_classes + 1, *size)).at[index].max(spots)[:-1]

    return jnp.moveaxis(jax.vmap(one)(index, spots), 1, -1)


def detections(output: Float[Array, "B h w 4+C"], top_k: int = 100) -> Detections:
    """The objects that an output claims: peaks among their 3×3 neighbours, the best of them.

    Args:
        output: `[B, h, w, C + 4]`, see `detection_loss`.
        top_k: The most that an image may have, over all classes.

    Returns:
        K = `top_k` detections an image, or one for each cell and class where those are fewer.

    Raises:
        ValueError: If `output` is of another shape.
    """
    maps, num_classes = _maps(output, 4)
    rows, height, width = maps.shape[:3]
    logits = maps[..., :num_classes]
    around = lax.reduce_window(logits, -jnp.inf, lax.max, (1, 3, 3, 1), (1, 1, 1, 1), "SAME")
    peaks = jnp.where(logits == around, logits, -jnp.inf).reshape(rows, -1)
    scores, index = lax.top_k(peaks, min(top_k, peaks.shape[1]))
    cell, classes = index // num_classes, index % num_classes
    cells = jnp.stack([cell // width, cell % width], axis=-1)

    numbers = _at(maps[..., num_classes:], cells)
    scale = jnp.array([[[height, width]]], maps.dtype)
    centre, half = (cells + numbers[..., 2:]) / scale, jnp.maximum(numbers[..., :2], 0) / scale / 2
    boxes = jnp.clip(jnp.concatenate([centre - half, centre + half], axis=-1), 0, 1)
    return Detections(boxes, scores, classes)


def tracking_loss(
    output: Float[Array, "B h w 2"], label: Float[Array, "B N 5"]
) -> Float[Array, " B"]:
    """The absolute error of displacements at the objects' centres, averaged over the objects.

    Args:
        output: `[B, h, w, 2]`: the displacement down and right, in cells, of an object whose
            centre lies in the cell.
        label: `[B, N, 5]`, see above.

    Returns:
        `[B]`, in cells, the sum of both directions; 0 without objects. Weigh images by
        `tracked_count`.

    Raises:
        ValueError: If `output` or `label` is of another shape.
    """
    found, true, seen = displacements(output, label)
    missed = jnp.where(seen[..., None], jnp.abs(found - true), 0)
    missed *= jnp.array([[output.shape[1:3]]], missed.dtype)
    return missed.sum(axis=(1, 2)) / jnp.maximum(tracked_count(label), 1)


def tracked_count(label: Float[Array, "B N 5"]) -> Int[Array, " B"]:
    """The objects of each image that are seen in both frames."""
    return (_five("tracking", label)[..., 4] > 0).sum(axis=1, dtype=jnp.int32)


def displacements(
    output: Float[Array, "B h w 2"], label: Float[Array, "B N 5"]
) -> tuple[Float[Array, "B N 2"], Float[Array, "B N 2"], Bool[Array, "B N"]]:
    """Displacements as the output has them at the true centres, the true ones, and which count.

    Args:
        output: `[B, h, w, 2]`, see `tracking_loss`.
        label: `[B, N, 5]`, see above.

    Returns:
        Both as shares of the image's height and width; padding may hold anything.

    Raises:
        ValueError: If `output` or `label` is of another shape.
    """
    label = _five("tracking", label)
    maps, rest = _maps(output, 2)
    if rest:
        raise ValueError(f"tracking takes an output [B, h, w, 2], got {maps.shape}")
    _, cells, scale = _centres(label[..., :2], maps.shape)
    return _at(maps, cells) / scale, label[..., 2:4], label[..., 4] > 0


def _five(kind: str, label: Num[Array, "B N 5"]) -> Float[Array, "B N 5"]:
    label = jnp.asarray(label)
    if label.ndim != 3 or label.shape[-1] != 5:
        raise ValueError(f"a label of {kind} is [B, N, 5], got {label.shape}")
    return label.astype(jnp.promote_types(label.dtype, jnp.float32))


def _maps(output: Num[Array, "B h w M"], least: int) -> tuple[Float[Array, "B h w M"], int]:
    """The output, at least float32, and how many maps it has more than `least`."""
    output = jnp.asarray(output)
    if output.ndim != 4 or output.shape[-1] < least:
        raise ValueError(
            f"objects are found in maps [B, h, w, {least} or more], got {output.shape}"
        )
    maps = output.astype(jnp.promote_types(output.dtype, jnp.float32))
    return maps, maps.shape[-1] - least


def _centres(
    centres: Float[Array, "B N 2"], shape: tuple[int, ...]
) -> tuple[Float[Array, "B N 2"], Int[Array, "B N 2"], Float[Array, "1 1 2"]]:
    """Centres in cells, the cells that hold them, and the cells of the image, of `[B, h, w, …]`."""
    scale = jnp.array([[shape[1:3]]], centres.dtype)
    place = centres * scale
    # A centre on the lower or right edge of the image lies in the last cell.
    last = jnp.array([[shape[1:3]]], jnp.int32) - 1
    return place, jnp.clip(jnp.floor(place).astype(jnp.int32), 0, last), scale


def _at(maps: Float[Array, "B h w M"], cells: Int[Array, "B N 2"]) -> Float[Array, "B N M"]:
    """The maps at some cells of each image."""
    return jax.vmap(lambda m, c: m[c[:, 0], c[:, 1]])(maps, cells)
