"""Metrics of numbers and directions: sums of errors, exact but for the median angle."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Num

from jmtl.losses import aligned, directed, positive, present_only
from jmtl.metrics.metric import Metric, defined, ratio

ANGLE_BINS = 18_000
"""Of the histogram that the median angle is read from: 0.01° each."""

WITHIN = (11.25, 22.5, 30.0)
"""The angles, in degrees, that NYUv2's normals are counted within."""


class Errors(NamedTuple):
    """Sums over the elements of the labels present.

    Attributes:
        absolute: `[]` the sum of `|output - label|`.
        squared: `[]` the sum of `(output - label)²`.
        elements: `[]` the number of elements.
    """

    absolute: Float[Array, ""]
    squared: Float[Array, ""]
    elements: Int[Array, ""]


class DepthErrors(NamedTuple):
    """Sums over the pixels with a depth.

    Attributes:
        absolute: `[]` the sum of `|output - label|`.
        relative: `[]` the sum of `|output - label| / label`.
        pixels: `[]` their number.
    """

    absolute: Float[Array, ""]
    relative: Float[Array, ""]
    pixels: Int[Array, ""]


class Angles(NamedTuple):
    """Sums over the pixels with a normal.

    Attributes:
        total: `[]` the sum of the angles, in degrees.
        within: `[3]` how many are below each of `WITHIN`.
        histogram: `[18000]` how many lie in each 0.01°.
    """

    total: Float[Array, ""]
    within: Int[Array, "3"]
    histogram: Int[Array, " bins"]


def regression() -> Metric:
    """Mean absolute and root mean squared error over the elements of the labels present.

    Returns:
        `update` takes outputs and labels `[B, ...]` (or outputs `[B, ..., 1]` for labels
        `[B, ...]`) and gives `Errors`. `compute` gives `mae` and `rmse` in the label's unit, NaN
        with no label at all. The sums are float32: over some 10⁴ batches, add them in float64 on
        the host.
    """

    def update(
        output: Num[Array, "B *d"], label: Num[Array, "B *d"], present: Bool[Array, " B"]
    ) -> Errors:
        output, label = aligned(output, label)
        error = present_only(output - label, present)
        elements = present.sum(dtype=jnp.int32) * (error.size // max(error.shape[0], 1))
        return Errors(jnp.abs(error).sum(), jnp.square(error).sum(), elements)

    def compute(errors: Errors) -> dict[str, Float[Array, ""]]:
        mae = ratio(errors.absolute, errors.elements)
        rmse = jnp.sqrt(ratio(errors.squared, errors.elements))
        return defined({"mae": mae, "rmse": rmse}, errors.elements)

    return Metric(update, compute, {"mae": False, "rmse": False})


def depth() -> Metric:
    """Mean absolute and mean relative error over all pixels of a split that have a depth.

    Returns:
        `update` takes labels `[B, H, W]`, of which those above 0 count, and outputs of that shape
        or `[B, H, W, 1]`, and gives `DepthErrors`. `compute` gives `abs_error` in the label's
        unit and `rel_error`, as a share of the true depth; NaN with no pixel at all.
    """

    def update(
        output: Num[Array, "B *d"], label: Num[Array, "B *d"], present: Bool[Array, " B"]
    ) -> DepthErrors:
        output, label = aligned(output, label)
        counted = present_only(positive(label), present)
        label = jnp.where(counted, label, 1)
        error = jnp.where(counted, jnp.abs(output - label), 0)
        return DepthErrors(error.sum(), (error / label).sum(), counted.sum(dtype=jnp.int32))

    def compute(errors: DepthErrors) -> dict[str, Float[Array, ""]]:
        scores = {
            "abs_error": ratio(errors.absolute, errors.pixels),
            "rel_error": ratio(errors.relative, errors.pixels),
        }
        return defined(scores, errors.pixels)

    return Metric(update, compute, {"abs_error": False, "rel_error": False})


def normals() -> Metric:
    """The five metrics of NYUv2: mean and median angle, and the shares within three angles.

    The angle is between the true normal and the output, whatever their lengths; an output of
    exactly 0 is taken to be at a right angle. Mean and shares are those of all pixels of a split
    that have a normal. The median (of an even number of pixels, the lower one of the middle) is
    read from a histogram, and is within 0.01° of the exact one.

    Returns:
        `update` takes outputs and labels `[B, H, W, 3]`, of which those that are not all zeros
        count, and gives `Angles`. `compute` gives `mean_angle` and `median_angle` in degrees, and
        `within_11.25`, `within_22.5` and `within_30` in [0, 1]; NaN with no pixel at all.

    References:
        Fouhey et al., *Data-Driven 3D Primitives for Single Image Understanding*, ICCV 2013;
        Eigen & Fergus, ICCV 2015.
    """

    def update(
        output: Num[Array, "B *d 3"], label: Num[Array, "B *d 3"], present: Bool[Array, " B"]
    ) -> Angles:
        if output.shape[-1:] != (3,):
            raise ValueError(f"normals are [B, ..., 3], got {output.shape}")
        output, label = aligned(output, label)
        counted = present_only(directed(label), present)
        found = jnp.where(counted, _angle(output, label), 0)
        bins = jnp.clip(jnp.floor(found * (ANGLE_BINS / 180)), 0, ANGLE_BINS - 1)
        bins = jnp.where(counted, bins.astype(jnp.int32), ANGLE_BINS).ravel()
        return Angles(
            found.sum(),
            jnp.stack([(counted & (found < w)).sum(dtype=jnp.int32) for w in WITHIN]),
            jnp.bincount(bins, length=ANGLE_BINS + 1)[:-1],
        )

    def compute(angles: Angles) -> dict[str, Float[Array, ""]]:
        below = jnp.cumsum(jnp.asarray(angles.histogram))
        pixels = below[-1]
        middle = pixels - pixels // 2
        bin_ = jnp.minimum(jnp.searchsorted(below, middle), ANGLE_BINS - 1)
        there = jnp.asarray(angles.histogram)[bin_]
        inside = ratio(middle - (below[bin_] - there), there)
        scores = {
            "mean_angle": ratio(angles.total, pixels),
            "median_angle": (bin_ + inside) * (180 / ANGLE_BINS),
        }
        shares = ratio(jnp.asarray(angles.within), pixels)
        scores |= dict(zip(_SHARES, shares, strict=True))
        return defined(scores, pixels)

    better = {"mean_angle": False, "median_angle": False} | dict.fromkeys(_SHARES, True)
    return Metric(update, compute, better)


_SHARES = tuple(f"within_{angle:g}" for angle in WITHIN)


def _angle(a: Float[Array, "*d 3"], b: Float[Array, "*d 3"]) -> Float[Array, "*d"]:
    """Degrees between two vectors, accurate near 0° and 180° too, where an arc cosine is not."""
    a, b = (x / jnp.maximum(jnp.abs(x).max(-1, keepdims=True), _TINY) for x in (a, b))
    sine, cosine = jnp.linalg.norm(jnp.cross(a, b), axis=-1), (a * b).sum(-1)
    still = (sine == 0) & (cosine == 0)
    return jnp.where(still, 90.0, jnp.degrees(jnp.arctan2(sine, cosine)))


_TINY = float(jnp.finfo(jnp.float32).tiny)
