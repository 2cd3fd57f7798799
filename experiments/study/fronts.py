"""Fronts: which points no other beats, and the volume that they dominate. Higher is better."""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float


def pareto(points: Float[np.ndarray, "N D"]) -> Bool[np.ndarray, " N"]:
    """Which points are on the Pareto front.

    A point is on it where no other is at least as good in every coordinate and better in one; equal
    points are on it together. -inf is allowed: a training that failed.

    Raises:
        ValueError: `points` are not `[N, D]`, or one is NaN.
    """
    points = _points(points)
    others, own = points[None, :], points[:, None]
    return ~np.any(np.all(others >= own, axis=-1) & np.any(others > own, axis=-1), axis=1)


def dominated(point: Float[np.ndarray, " D"], points: Float[np.ndarray, "N D"]) -> bool:
    """Whether one of the `points` is at least as good as `point` in every coordinate.

    A method whose point is dominated by a front of static weights has shown nothing that a choice
    of weights does not give. Mixtures of points do not count: no training gives them. A point equal
    to `point` counts, so leave the point itself out.

    Raises:
        ValueError: the sizes differ, or a number is NaN.
    """
    points = _points(points)
    return bool(np.any(np.all(points >= _vector("point", point, points), axis=-1)))


def hypervolume(points: Float[np.ndarray, "N D"], reference: Float[np.ndarray, " D"]) -> float:
    """The volume that a front dominates above a reference point (Zitzler & Thiele 1998).

    Exact. D = 2 takes a sort; every further coordinate takes a recursion over the points as WFG
    does (While, Bradstreet & Barone, A fast way of calculating exact hypervolumes, 2012), sorted so
    that each level also loses a coordinate: at worst in N^(D−2) calls, in practice far fewer.
    Points that do not exceed the reference in every coordinate add nothing. The volume has the unit
    of the product of the coordinates, and so depends on their scales and on the reference: name
    both.

    Args:
        points: `[N, D]`, D ≥ 1, not +inf.
        reference: `[D]` finite; a point that every sensible point exceeds.

    Returns:
        The volume, 0 or more.

    Raises:
        ValueError: the sizes differ, or a number is NaN or infinite where it may not be.
    """
    points = _points(points)
    return _volume(_front(_above(points, _vector("reference", reference, points))))


def gain(
    point: Float[np.ndarray, " D"],
    points: Float[np.ndarray, "N D"],
    reference: Float[np.ndarray, " D"],
) -> float:
    """The hypervolume that `point` adds to the front of `points`.

    0 where the point is dominated. Computed as the point's own box less what the others cover of
    it, so that a small gain does not drown in the difference of two large volumes.

    Raises:
        ValueError: as `hypervolume`.
    """
    points = _points(points)
    reference = _vector("reference", reference, points)
    box = _above(_vector("point", point, points)[None], reference)
    if not len(box):
        return 0.0
    covered = np.minimum(box, _above(points, reference))
    return float(np.prod(box)) - _volume(_front(covered))


def _volume(front: Float[np.ndarray, "N D"]) -> float:
    """The volume above 0 of distinct positive points of which none dominates another."""
    if not len(front):
        return 0.0
    d = front.shape[1]
    if d == 1:
        return float(np.max(front))
    front = front[np.argsort(front[:, -1], kind="stable")]
    rest, last = front[:, :-1], front[:, -1]
    if d == 2:
        return float(np.sum(rest[:, 0] * np.diff(last, prepend=0)))
    # Below its last coordinate a point meets only those that come after it, whose last coordinates
    # are as large: what it adds to them is a prism over a volume of one dimension less.
    added = [
        float(np.prod(rest[i])) - _volume(_front(np.minimum(rest[i], rest[i + 1 :])))
        for i in range(len(front))
    ]
    return float(np.dot(last, added))


def _front(points: Float[np.ndarray, "N D"]) -> Float[np.ndarray, "M D"]:
    points = np.unique(points, axis=0)
    return points[pareto(points)]


def _above(
    points: Float[np.ndarray, "N D"], reference: Float[np.ndarray, " D"]
) -> Float[np.ndarray, "M D"]:
    """The points that exceed the reference in every coordinate, relative to it."""
    if np.any(points == np.inf) or not np.all(np.isfinite(reference)):
        raise ValueError("a hypervolume needs points below +inf and a finite reference")
    return (points - reference)[np.all(points > reference, axis=-1)]


def _points(points: Any) -> Float[np.ndarray, "N D"]:
    points = np.asarray(points, float)
    if points.ndim != 2 or points.shape[1] == 0:
        raise ValueError(f"points must be [N, D] with D ≥ 1, got shape {points.shape}")
    if np.any(np.isnan(points)):
        raise ValueError(
            f"point {int(np.argwhere(np.isnan(points))[0, 0])} holds NaN: leave it out"
        )
    return points


def _vector(name: str, x: Any, points: Float[np.ndarray, "N D"]) -> Float[np.ndarray, " D"]:
    x = np.asarray(x, float)
    if x.shape != points.shape[1:]:
        raise ValueError(
            f"{name} must be [{points.shape[1]}] as the points are [N, {points.shape[1]}], "
            f"got shape {x.shape}"
        )
    if np.any(np.isnan(x)):
        raise ValueError(f"{name} holds NaN")
    return x
