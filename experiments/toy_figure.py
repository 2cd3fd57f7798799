"""The toy problem drawn: a panel for each method, trajectories over contours of f₁ + f₂."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from experiments.problems import toy

WIDTH = 1200
"""Of the image, in pixels, whatever the number of panels."""

DPI = 150
LIMIT = 10.5
COLUMNS = 6
"""The most panels in a row."""


def terrain(points: int = 400) -> tuple[np.ndarray, np.ndarray]:
    """The plane's axis `[points]` and f₁ + f₂, at scale 1, on it `[points, points]`: x₂ by rows."""
    axis = np.linspace(-LIMIT, LIMIT, points)
    x1, x2 = np.meshgrid(axis, axis)
    plane = jnp.asarray(np.stack([x1.ravel(), x2.ravel()], axis=1))
    both = jax.vmap(lambda x: toy.losses(x, 1.0).sum())(plane)
    return axis, np.asarray(both).reshape(points, points)


def levels(values: np.ndarray, count: int = 9) -> np.ndarray:
    """Heights of contours: quantiles of each half plane, so that valleys and bowls both show."""
    half = len(values) // 2
    shares = np.linspace(0.02, 0.95, count)
    return np.unique(np.quantile([values[:half].ravel(), values[half:].ravel()], shares, axis=1))


def draw(done: Mapping[str, toy.Paths], scale: float, steps: int, path: Path) -> None:
    """Draw the trajectories of seed 0 and write a PNG, 1200 pixels wide.

    Args:
        done: by method, what `toy.run` returns.
        scale: of f₁, for the title; the contours are of the sum at scale 1.
        steps: of Adam, for the title.
        path: of the image.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    count = len(done)
    columns = min(COLUMNS, count)
    rows = -(-count // columns)
    left, right, head, foot = 0.42, 0.08, 0.5, 0.68  # inches, as are gap and side
    gap = 0.24
    width = WIDTH / DPI
    side = (width - left - right) / (columns + (columns - 1) * 0.06)
    height = head + rows * side + (rows - 1) * gap + foot
    figure = Figure(figsize=(width, height), dpi=DPI)
    canvas = FigureCanvasAgg(figure)
    axes = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    figure.subplots_adjust(
        left=left / width,
        right=1 - right / width,
        bottom=foot / height,
        top=1 - head / height,
        wspace=0.06,
        hspace=gap / side,
    )
    background = terrain()
    for axis, name in zip(axes.flat, done, strict=False):
        _panel(axis, background, name, done[name])
    for axis in axes.flat[count:]:
        axis.set_axis_off()
    for axis in axes[:, 0]:
        axis.set_ylabel("$x_2$", labelpad=-2, fontsize=8)
    for axis in axes.flat[max(0, count - columns) : count]:
        axis.set_xlabel("$x_1$", labelpad=0, fontsize=8)
        axis.tick_params(labelbottom=True)
    figure.suptitle(
        f"From five starts, {steps:,} steps of Adam on {scale:g} $f_1$ and $f_2$; "
        "contours of $f_1 + f_2$; n/5: ends on the front",
        x=left / width,
        y=1 - 0.06 / height,
        ha="left",
        va="top",
        fontsize=9,
    )
    _legend(figure, height, steps)
    canvas.draw()
    # 256 colours take half the bytes; maximum coverage keeps those of time apart.
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    image.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
        path, optimize=True
    )


def _panel(axis: Any, background: tuple[np.ndarray, np.ndarray], name: str, paths: Any) -> None:
    """One method: contours, front, trajectories coloured along time, starts and ends."""
    from matplotlib.collections import LineCollection

    plane, values = background
    axis.contour(plane, plane, values, levels(values), **_CONTOURS)
    x1 = np.linspace(-7, 7, 141)
    axis.plot(x1, toy.front(x1), color="#222222", linewidth=3, solid_capstyle="round")
    for trajectory in paths.points[0]:
        pieces = np.stack([trajectory[:-1], trajectory[1:]], axis=1)
        time = np.linspace(0, 1, len(pieces))
        axis.add_collection(LineCollection(list(pieces), cmap=_time(), array=time, linewidth=1.5))
    starts, final = np.asarray(toy.STARTS), paths.points[0, :, -1].astype(np.float64)
    axis.plot(*starts.T, "o", color="#222222", markersize=3, zorder=4)
    reached = toy.distance(final) <= toy.REACHED
    for who, (marker, colour) in ((reached, _REACHED), (~reached, _MISSED)):
        axis.plot(
            *final[who].T,
            marker,
            markersize=5.5,
            markerfacecolor=colour,
            markeredgecolor="white",
            markeredgewidth=0.6,
            zorder=5,
        )
    axis.set(xlim=(-LIMIT, LIMIT), ylim=(-LIMIT, LIMIT), aspect="equal")
    axis.set_xticks([-7, 0, 7])
    axis.set_yticks([-8, 0, 8])
    axis.tick_params(length=2, pad=1.5, labelsize=6)
    axis.set_title(f"{name}  {reached.sum()}/{len(reached)}", fontsize=8, pad=3)


_CONTOURS: dict[str, Any] = {"colors": "#c3c9d1", "linewidths": 0.6, "linestyles": "solid"}
_REACHED = ("o", "#16825d")
_MISSED = ("X", "#c8102e")


def _time() -> Any:
    """The colours of time, without the ends that vanish on white."""
    import matplotlib as mpl
    from matplotlib.colors import LinearSegmentedColormap

    chosen = mpl.colormaps["plasma_r"](np.linspace(0.1, 0.85, 64))
    return LinearSegmentedColormap.from_list("time", chosen)


def _legend(figure: Any, height: float, steps: int) -> None:
    """What the marks mean, and the scale of time, below the panels."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.lines import Line2D

    marks = [
        Line2D([], [], color="#222222", linewidth=3, label="Pareto front"),
        Line2D([], [], color="#222222", marker="o", markersize=3, linestyle="", label="start"),
    ]
    for (marker, colour), label in ((_REACHED, "end on the front"), (_MISSED, "end elsewhere")):
        marks.append(
            Line2D([], [], color=colour, marker=marker, markersize=5, linestyle="", label=label)
        )
    figure.legend(
        handles=marks,
        loc="lower left",
        bbox_to_anchor=(0.04, 0),
        ncols=len(marks),
        frameon=False,
        fontsize=7.5,
        columnspacing=1.6,
        handletextpad=0.5,
    )
    where = figure.add_axes((0.72, 0.2 / height, 0.18, 0.07 / height))
    bar = figure.colorbar(ScalarMappable(cmap=_time()), cax=where, orientation="horizontal")
    bar.set_ticks([0, 1], labels=["0", f"{steps:,} steps"])
    bar.ax.tick_params(length=0, pad=1.5, labelsize=6.5)
    bar.outline.set_visible(False)
