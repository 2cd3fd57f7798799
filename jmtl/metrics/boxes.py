"""Metrics of objects: mean average precision of boxes, and the error of displacements."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Bool, Float, Int

from jmtl.metrics.metric import Metric, defined, ratio
from jmtl.metrics.scores import BINS, score_bins
from jmtl.objects import detections, displacements, objects


class Matches(NamedTuple):
    """Counts of detections and objects.

    Attributes:
        hits: `[C, BINS]` detections that found an object, by class and score.
        misses: `[C, BINS]` those that found none, or one that was found before.
        objects: `[C]` the true objects.
    """

    hits: Int[Array, "C bins"]
    misses: Int[Array, "C bins"]
    objects: Int[Array, " C"]


class Displacements(NamedTuple):
    """Sums over the objects seen in both frames.

    Attributes:
        distance: `[]` the sum of the distances between found and true displacement.
        objects: `[]` their number.
    """

    distance: Float[Array, ""]
    objects: Int[Array, ""]


def detection(num_classes: int, top_k: int = 100, threshold: float = 0.5) -> Metric:
    """Mean average precision of boxes at one overlap: mAP@.5.

    In each image the detections, the best first, take the true object of their class that they
    overlap most with among those not yet taken, if intersection over union is at least `threshold`
    (COCO's matching); this is exact. Over all images, the average precision of a class is the area
    under its curve of precision by recall, precision made non-increasing, at every recall (VOC's
    since 2010; COCO reads the same curve at 101 points). The order of scores between images comes
    from a histogram: see `jmtl.metrics.scores` for its resolution. The mean is over the classes
    that have objects.

    Args:
        num_classes: C, at least 1.
        top_k: The detections of an image that count, over all classes.
        threshold: The least intersection over union, in (0, 1].

    Returns:
        `update` takes outputs `[B, h, w, C + 4]` and labels `[B, N, 5]` as `jmtl.objects` has them
        and gives `Matches`. `compute` gives `map50` (named by the threshold), in [0, 1], NaN with
        no object at all.

    Raises:
        ValueError: If `num_classes` is below 1; from `update`, if the shapes do not fit.
    """
    if num_classes < 1:
        raise ValueError(f"a detection has at least 1 class, got num_classes={num_classes}")
    name = f"map{100 * threshold:g}"

    def update(
        output: Float[Array, "B h w 4+C"], label: Float[Array, "B N 5"], present: Bool[Array, " B"]
    ) -> Matches:
        if output.shape[-1] != num_classes + 4:
            raise ValueError(
                f"a detection of {num_classes} classes has outputs [B, h, w, {num_classes + 4}], "
                f"got {output.shape}"
            )
        true, found = objects(label), detections(output, top_k)
        real = true.real & present[:, None]
        overlaps = jax.vmap(overlap)(found.boxes, true.boxes)
        same = found.classes[..., None] == true.classes[:, None]
        overlaps = jnp.where(same & real[:, None], overlaps, 0)
        hit = jax.vmap(partial(match, threshold=threshold))(overlaps)
        counted = present[:, None] & (found.scores > -jnp.inf)
        cells = found.classes * BINS + score_bins(found.scores)

        def count(chosen: Bool[Array, "B K"]) -> Int[Array, "C bins"]:
            kept = jnp.where(chosen, cells, num_classes * BINS).ravel()
            counts = jnp.bincount(kept, length=num_classes * BINS + 1)
            return counts[:-1].reshape(num_classes, BINS)

        classes = jnp.where(real, true.classes, num_classes).ravel()
        totals = jnp.bincount(classes, length=num_classes + 1)[:-1]
        return Matches(count(counted & hit), count(counted & ~hit), totals)

    def compute(sums: Matches) -> dict[str, Float[Array, ""]]:
        hits, misses = (jnp.asarray(x) for x in sums[:2])
        total = jnp.asarray(sums.objects)
        found, wrong = (lax.cumsum(x, axis=1, reverse=True) for x in (hits, misses))
        # The best precision at this recall or a higher one.
        precision = lax.cummax(ratio(found, found + wrong), axis=1)
        area = (ratio(hits, total[:, None]) * precision).sum(axis=1)
        mean = ratio(jnp.where(total > 0, area, 0).sum(), (total > 0).sum())
        return defined({name: mean}, total.sum())

    return Metric(update, compute, {name: True})


def tracking() -> Metric:
    """The mean distance between found and true displacement, over all objects of a split.

    Returns:
        `update` takes outputs `[B, h, w, 2]` and labels `[B, N, 5]` as `jmtl.objects` has them and
        gives `Displacements`. `compute` gives `tracking_error`, as a share of the image's sides,
        NaN with no object at all.
    """

    def update(
        output: Float[Array, "B h w 2"], label: Float[Array, "B N 5"], present: Bool[Array, " B"]
    ) -> Displacements:
        found, true, seen = displacements(output, label)
        seen = seen & present[:, None]
        distance = jnp.linalg.norm(jnp.where(seen[..., None], found - true, 0), axis=-1)
        return Displacements(distance.sum(), seen.sum(dtype=jnp.int32))

    def compute(sums: Displacements) -> dict[str, Float[Array, ""]]:
        return defined({"tracking_error": ratio(sums.distance, sums.objects)}, sums.objects)

    return Metric(update, compute, {"tracking_error": False})


def overlap(one: Float[Array, "K 4"], other: Float[Array, "N 4"]) -> Float[Array, "K N"]:
    """Intersection over union of boxes `[K, 4]` and `[N, 4]`: top, left, bottom, right.

    Returns:
        `[K, N]` in [0, 1], 0 where neither box has an area.
    """
    one, other = one[:, None], other[None]
    first, last = (
        jnp.maximum(one[..., :2], other[..., :2]),
        jnp.minimum(one[..., 2:], other[..., 2:]),
    )
    both = jnp.maximum(last - first, 0).prod(-1)
    either = _area(one) + _area(other) - both
    return jnp.where(either > 0, both / jnp.where(either > 0, either, 1), 0)


def _area(boxes: Float[Array, "*d 4"]) -> Float[Array, "*d"]:
    return (boxes[..., 2:] - boxes[..., :2]).prod(-1)


def match(overlaps: Float[Array, "K N"], threshold: float) -> Bool[Array, " K"]:
    """Which detections find an object, each object found once, the first detection first.

    Args:
        overlaps: `[K, N]` of detections, the best first, and objects; 0 where they must not match.
        threshold: The least overlap of a match, above 0.

    Returns:
        `[K]`.
    """

    def step(free: Bool[Array, " N"], row: Float[Array, " N"]) -> tuple[Array, Array]:
        row = jnp.where(free, row, 0)
        best = row.argmax()
        hit = row[best] >= threshold
        return free & ~(hit & (jnp.arange(len(row)) == best)), hit

    return lax.scan(step, jnp.ones(overlaps.shape[1], bool), overlaps)[1]
