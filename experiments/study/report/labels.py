"""Names beside points, moved so that they cover each other and the points as little as possible."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jaxtyping import Float

from experiments.page.style import HALO, MUTED

_ANGLES = np.deg2rad(np.arange(0, 360, 15))
_DISTANCES = (5.0, 10.0, 17.0, 26.0, 38.0, 52.0, 70.0, 92.0, 120.0)
_LEADER = 9.0
"""From this distance of a name to its point on, in points, a line joins them."""


def label(
    axes: Any,
    points: Float[np.ndarray, "N 2"],
    texts: Sequence[str],
    colours: Sequence[str],
    bold: Sequence[bool],
    others: Float[np.ndarray, "M 2"],
    fontsize: float = 7.5,
) -> None:
    """Write a text beside each point, with a line to it where it had to move away.

    Each text, in order, takes the place that covers least, and of several the nearest.

    Args:
        axes: with their final limits, in a figure whose layout is final.
        points: in data coordinates, inside the axes.
        texts: N of them; the first choose first.
        colours: of the texts.
        bold: whether each is.
        others: points that are not named but should not be covered.
        fontsize: in points.
    """
    renderer = axes.figure.canvas.get_renderer()
    unit = axes.figure.dpi / 72
    frame = axes.get_window_extent(renderer)
    at = axes.transData.transform(points)
    back = axes.transData.inverted().transform
    around = np.concatenate([at, axes.transData.transform(others)]) if len(others) else at
    marks = np.concatenate([around - 3 * unit, around + 3 * unit], axis=1)
    taken = np.empty((0, 4))
    lines: list[tuple[np.ndarray, np.ndarray]] = []
    for i, text in enumerate(texts):
        style = {"fontsize": fontsize, "fontweight": "bold" if bold[i] else "normal"}
        probe = axes.text(0, 0, text, **style)
        extent = probe.get_window_extent(renderer)
        probe.remove()
        boxes, reach = _candidates(at[i], np.array([extent.width, extent.height]), unit)
        cost = (
            reach
            + 1e4 * _outside(boxes, (frame.x0, frame.y0, frame.x1, frame.y1))
            + 300 * _overlap(boxes, taken)
            + 40 * _overlap(boxes, marks)
            + 60 * _crossings(at[i], boxes, lines)
        )
        chosen = boxes[int(np.argmin(cost))]
        taken = np.concatenate([taken, chosen[None]])
        near = np.clip(at[i], chosen[:2], chosen[2:])
        if np.linalg.norm(near - at[i]) > _LEADER * unit:
            lines.append((at[i], near))
            axes.plot(*back([at[i], near]).T, color=MUTED, linewidth=0.5, alpha=0.8, zorder=4)
        x, y = back((chosen[:2] + chosen[2:]) / 2)
        axes.text(
            x,
            y,
            text,
            ha="center",
            va="center_baseline",
            color=colours[i],
            zorder=9,
            gid=f"{HALO}{i}",
            **style,
        )


def _candidates(
    point: Float[np.ndarray, "2"], size: Float[np.ndarray, "2"], unit: float
) -> tuple[Float[np.ndarray, "C 4"], Float[np.ndarray, " C"]]:
    """Boxes (x0, y0, x1, y1) at each angle and distance around a point, and their distances."""
    boxes, reach = [], []
    for distance in _DISTANCES:
        for angle in _ANGLES:
            direction = np.array([np.cos(angle), np.sin(angle)])
            side = np.sign(np.round(direction, 6)) * np.minimum(1, np.abs(direction) * 1.5)
            centre = point + direction * distance * unit + side * size / 2
            boxes.append(np.concatenate([centre - size / 2, centre + size / 2]))
            # Beside a point reads better than above or below it.
            reach.append(distance * (1 + 0.1 * abs(direction[1])))
    return np.array(boxes), np.array(reach)


def _outside(boxes: Float[np.ndarray, "C 4"], frame: Sequence[float]) -> Float[np.ndarray, " C"]:
    """By how many pixels each box leaves the frame."""
    low = np.maximum(0, frame[:2] - boxes[:, :2])
    high = np.maximum(0, boxes[:, 2:] - frame[2:])
    return (low + high).sum(axis=1)


def _overlap(
    boxes: Float[np.ndarray, "C 4"], others: Float[np.ndarray, "M 4"]
) -> Float[np.ndarray, " C"]:
    """How many of the others each box covers; those that it touches count for 0.3 at least."""
    if not len(others):
        return np.zeros(len(boxes))
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    area = np.prod(np.maximum(0, high - low), axis=2)
    whole = np.prod(others[:, 2:] - others[:, :2], axis=1)
    return np.sum(area / whole + 0.3 * (area > 0), axis=1)


def _crossings(
    point: Float[np.ndarray, "2"],
    boxes: Float[np.ndarray, "C 4"],
    lines: Sequence[tuple[np.ndarray, np.ndarray]],
) -> Float[np.ndarray, " C"]:
    """How many of the lines drawn so far a line from the point to each box would cross."""
    ends = np.clip(point, boxes[:, :2], boxes[:, 2:])

    def side(a: np.ndarray, b: np.ndarray, c: np.ndarray) -> np.ndarray:
        u, v = b - a, c - a
        return np.sign(u[..., 0] * v[..., 1] - u[..., 1] * v[..., 0])

    found = np.zeros(len(boxes))
    for a, b in lines:
        found += (side(point, ends, a) != side(point, ends, b)) & (
            side(a, b, point) != side(a, b, ends)
        )
    return found
