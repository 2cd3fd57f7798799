"""The toy problem drawn: a panel for each method, trajectories over contours of f₁ + f₂."""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import contourpy
import jax
import jax.numpy as jnp
import matplotlib as mpl
import numpy as np
from jaxtyping import Float
from matplotlib.cm import ScalarMappable
from matplotlib.collections import PathCollection
from matplotlib.colors import ListedColormap
from matplotlib.lines import Line2D
from matplotlib.path import Path
from matplotlib.transforms import Affine2D

from experiments.page.style import ACCENTS, INK, PAPER, REST, WIDTH, Drawing, new_figure
from experiments.page.words import count, listed
from experiments.problems import toy

LIMIT = 10.5
COLUMNS = 6
"""The most panels in a row."""

BANDS = 16
"""Colours of time."""

CLOSE = 0.02
"""What a drawn line may be off by, in the plane's units: a tenth of a pixel of the page."""

_REACHED: dict[str, Any] = {"marker": "o", "markersize": 5.0, "markerfacecolor": ACCENTS[2]}
_MISSED: dict[str, Any] = {"marker": "X", "markersize": 5.5, "markerfacecolor": INK}
_START: dict[str, Any] = {"marker": "o", "markersize": 2.8, "color": INK}
_EDGE: dict[str, Any] = {"markeredgecolor": PAPER, "markeredgewidth": 0.6}


def terrain(points: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """The plane's axis `[points]` and f₁ + f₂, at scale 1, on it `[points, points]`: x₂ by rows."""
    axis = np.linspace(-LIMIT, LIMIT, points)
    x1, x2 = np.meshgrid(axis, axis)
    plane = jnp.asarray(np.stack([x1.ravel(), x2.ravel()], axis=1))
    both = jax.vmap(lambda x: toy.losses(x, 1.0).sum())(plane)
    return axis, np.asarray(both).reshape(points, points)


def levels(values: np.ndarray, many: int = 9) -> np.ndarray:
    """Heights of contours: quantiles of each half plane, so that valleys and bowls both show."""
    half = len(values) // 2
    shares = np.linspace(0.02, 0.95, many)
    return np.unique(np.quantile([values[:half].ravel(), values[half:].ravel()], shares, axis=1))


def draw(found: Mapping[str, Any], done: Mapping[str, toy.Paths]) -> Drawing:
    """The trajectories of seed 0.

    Args:
        found: of `experiments.toy.summary`.
        done: by method, what `toy.run` returns.
    """
    names = found["order"]
    columns = min(COLUMNS, max(3, len(names)))
    rows = -(-len(names) // columns)
    figure = new_figure(0.65 + rows * ((WIDTH - 0.4) / columns + 0.14))
    figure.set_layout_engine("compressed", w_pad=0.02, h_pad=0.02)
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True)
    reached = {}
    for axes, name in zip(panels.flat, names, strict=False):
        rows_of = [row for row in found["methods"][name]["ends"] if row["seed"] == 0]
        reached[name] = sum(row["reached"] for row in rows_of)
        _panel(axes, f"{name}  {reached[name]}/{len(rows_of)}", done[name], rows_of)
    for axes in panels.flat[len(names) :]:
        axes.set_visible(False)
    for axes in panels[:, 0]:
        axes.set_ylabel("$x_2$", labelpad=-3, fontsize=8)
    for axes in panels.flat[max(0, len(names) - columns) : len(names)]:
        axes.set_xlabel("$x_1$", labelpad=0, fontsize=8)
        axes.tick_params(labelbottom=True)
    _legend(figure, found["setting"]["steps"])
    _contours(figure, list(panels.flat[: len(names)]))
    best = [name for name in names if reached[name] == len(toy.STARTS)]
    whole = f"From all of them the front is reached with {listed(best)}." if best else ""
    return Drawing(
        "paths",
        figure,
        f"The paths of {count(len(names), 'method')} from {len(toy.STARTS)} starts over contours "
        f"of the two losses' sum, a panel a method, with the Pareto front as a line. {whole}",
        f"Seed 0. n/{len(toy.STARTS)} beside a name counts the ends on the Pareto front, which is "
        "the thick line; a path is coloured along time, and its end is a green disc on the front "
        "and a cross elsewhere. Contours are of f₁ + f₂, both at scale 1. Methods in the order of "
        "the table below.",
    )


def _panel(axes: Any, title: str, paths: toy.Paths, ends: Sequence[Mapping[str, Any]]) -> None:
    """One method: front, trajectories coloured along time, starts and ends."""
    x1 = np.linspace(-7, 7, 15)
    axes.plot(x1, toy.front(x1), color=INK, linewidth=2.6, solid_capstyle="round")
    colours, lines = [], []
    for band, pieces in _bands(paths.points[0]):
        colours.append(_time()(band))
        lines.append(_compound(pieces))
    axes.add_collection(
        PathCollection(lines, facecolors="none", edgecolors=colours, linewidths=1.3, zorder=3),
        autolim=False,
    )
    axes.plot(*np.transpose(toy.STARTS), linestyle="", zorder=4, **_START)
    for row in ends:
        if None not in row["end"]:
            marks = _REACHED if row["reached"] else _MISSED
            axes.plot(*row["end"], linestyle="", zorder=5, **marks, **_EDGE)
    axes.set(xlim=(-LIMIT, LIMIT), ylim=(-LIMIT, LIMIT), aspect="equal")
    axes.set_xticks([-7, 0, 7])
    axes.set_yticks([-8, 0, 8])
    axes.tick_params(length=2, pad=1.5, labelsize=6)
    axes.grid(visible=False)
    axes.spines[:].set_visible(True)
    axes.set_title(title, fontsize=7.5, pad=2.5)


def _bands(points: Float[np.ndarray, "N T 2"]) -> Iterator[tuple[int, list[np.ndarray]]]:
    """By colour of time, the pieces of the trajectories in it, without what does not show."""
    ends = np.linspace(0, points.shape[1] - 1, BANDS + 1).round().astype(int)
    for band, (first, last) in enumerate(itertools.pairwise(ends)):
        pieces = []
        for trajectory in points[:, first : last + 1].astype(np.float64):
            there = np.isfinite(trajectory).all(axis=1)
            until = len(there) if there.all() else int(np.argmin(there))
            kept = simplified(trajectory[:until])
            if len(kept) > 2 or (len(kept) == 2 and np.ptp(kept, axis=0).max() > CLOSE):
                pieces.append(kept)
        if pieces:
            yield band, pieces


def simplified(line: Float[np.ndarray, "N 2"], close: float = CLOSE) -> Float[np.ndarray, "M 2"]:
    """A line through fewer of its points, nowhere farther than `close` from those left out.

    Douglas and Peucker 1973: the point farthest from the chord is kept, and so on at both sides.
    """
    keep = np.zeros(len(line), bool)
    keep[:1] = keep[-1:] = True
    spans = [(0, len(line) - 1)]
    while spans:
        a, b = spans.pop()
        if b - a < 2:
            continue
        chord, rest = line[b] - line[a], line[a + 1 : b] - line[a]
        along = np.clip(rest @ chord / max(chord @ chord, 1e-30), 0, 1)
        off = np.hypot(*(rest - along[:, None] * chord).T)
        far = int(np.argmax(off))
        if off[far] > close:
            keep[a + 1 + far] = True
            spans += [(a, a + 1 + far), (a + 1 + far, b)]
    return line[keep]


def _contours(figure: Any, panels: Sequence[Any]) -> None:
    """The same contours below every panel, as one shape that the page holds once.

    The figure's layout must be final.
    """
    axis, values = terrain()
    found = contourpy.contour_generator(axis, axis, values)
    shape = _compound(
        [simplified(np.asarray(line)) for level in levels(values) for line in found.lines(level)]
    )
    boxes = [axes.get_position() for axes in panels]
    unit = Affine2D().scale(boxes[0].width / (2 * LIMIT), boxes[0].height / (2 * LIMIT))
    figure.add_artist(
        PathCollection(
            [shape],
            facecolors="none",
            edgecolors=REST,
            linewidths=0.4,
            offsets=[((box.x0 + box.x1) / 2, (box.y0 + box.y1) / 2) for box in boxes],
            offset_transform=figure.transFigure,
            transform=unit + figure.transFigure,
            zorder=-1,
        )
    )


def _compound(lines: Sequence[np.ndarray]) -> Path:
    """Several lines as one path."""
    return Path.make_compound_path(*map(Path, lines))


def _time() -> ListedColormap:
    """The colours of time, without the ends that vanish on a light or on a dark page."""
    return ListedColormap(mpl.colormaps["plasma_r"](np.linspace(0.12, 0.68, BANDS)))


def _legend(figure: Any, steps: int) -> None:
    """What the marks mean, and the scale of time beside it, above the panels; ends the layout."""
    marks = [
        Line2D([], [], color=INK, linewidth=2.6, label="Pareto front"),
        Line2D([], [], linestyle="", label="start", **_START),
        Line2D([], [], linestyle="", label="end on the front", **_REACHED, **_EDGE),
        Line2D([], [], linestyle="", label="end elsewhere", **_MISSED, **_EDGE),
    ]
    legend = figure.legend(
        handles=marks,
        loc="outside upper left",
        ncols=len(marks),
        columnspacing=1.4,
        handletextpad=0.5,
    )
    figure.canvas.draw()
    figure.set_layout_engine("none")
    box = legend.get_window_extent().transformed(figure.transFigure.inverted())
    height = 0.07 / figure.get_figheight()
    where = figure.add_axes((0.68, (box.y0 + box.y1 - height) / 2, 0.15, height))
    bar = figure.colorbar(ScalarMappable(cmap=_time()), cax=where, orientation="horizontal")
    bar.set_ticks([])
    bar.outline.set_visible(False)
    for x, label, side in ((-0.04, "0", "right"), (1.04, f"{steps:,} steps", "left")):
        where.text(x, 0.5, label, transform=where.transAxes, ha=side, va="center", fontsize=8)
