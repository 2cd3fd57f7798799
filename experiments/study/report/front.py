"""The figure of the front: each method's point among those of static weights."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from matplotlib.patches import Rectangle

from experiments.page.style import HALO, INK, MUTED, PAPER, REST, Drawing, new_figure
from experiments.study import fronts
from experiments.study.report.labels import label
from experiments.study.report.looks import Look
from experiments.study.report.pieces import robust

MOST_PAIRS = 6
"""Of tasks, in one figure."""

CROWDED = 0.3
"""Where methods fill less than this part of the panel they get one of their own."""

_ALONE: Mapping[str, Any] = {"color": MUTED, "linewidth": 1.0, "linestyle": (0, (4, 2))}


class Points(NamedTuple):
    """What a panel shows of a pair of tasks.

    Attributes:
        pair: the tasks' names.
        signs: `[2]` 1 where higher is better, else -1.
        of: by arm, `[2, 3]`: mean, low and high on either task; no interval: the mean.
        static: equal weights and the points of the front, among the arms.
        methods: the methods and nulls among the arms.
        alone: each task's single-task mean, None where there is none.
    """

    pair: tuple[str, str]
    signs: Float[np.ndarray, "2"]
    of: Mapping[str, Float[np.ndarray, "2 3"]]
    static: Sequence[str]
    methods: Sequence[str]
    alone: tuple[float | None, float | None]


def front(summary: Mapping[str, Any], of_arms: Mapping[str, Look]) -> Drawing | None:
    """Each method's point among the points of static weights, a panel a pair of tasks."""
    pairs = list(itertools.combinations(summary["tasks"], 2))[:MOST_PAIRS]
    found = [points for pair in pairs if len((points := _points(summary, pair)).of) > 1]
    if not found:
        return None
    off = _one_pair(found[0], summary, of_arms) if len(found) == 1 else None
    figure, outside = off or _many_pairs(found, summary, of_arms)
    names = summary["answer"]["outside_front"]
    methods = sum(arm["kind"] == "method" for arm in summary["arms"].values())
    alt = (
        f"Test metrics of {' against '.join(pairs[0]) if len(pairs) == 1 else 'pairs of tasks'}: "
        f"{summary['front']['points']} static weights, their front, and {methods} methods. "
    ) + (
        f"Outside the front, by tests: {', '.join(names)}."
        if names
        else "No method is shown to lie outside the front."
    )
    return Drawing("front", figure, alt, _caption(len(found), len(figure.axes), outside))


def _caption(pairs: int, panels: int, outside: Sequence[str]) -> str:
    said = "Means over seeds; up and to the right is better. "
    if pairs == 1:
        said += (
            "Crosses are 95 % intervals, of static weights and of the arms in colour; those of "
            "the grey methods are about as wide. The line is the front of static weights: below "
            "and left of it lies what is no better than fixed weights. Numbers beside squares are "
            "the weights."
        )
    else:
        said += (
            "Squares are static weights, the line their front on these two tasks alone: what lies "
            "inside here may be outside on the others."
        )
    if pairs == 1 and panels > 1:
        said += (
            " Below, where the methods lie, without crosses but with bars as long as the median "
            "interval."
        )
    if outside:
        said += f" Far off, and not shown: {', '.join(dict.fromkeys(outside))}."
    return said


def _one_pair(
    points: Points, summary: Mapping[str, Any], of_arms: Mapping[str, Look]
) -> tuple[Any, list[str]]:
    """The whole, and where the methods are crowded a second panel of them alone."""
    whole = _range(points)
    near = _crowd(points) if len(points.methods) > 2 else whole
    crowded = bool(np.prod(np.ptp(near, axis=1) / np.ptp(whole, axis=1)) < CROWDED)
    figure = new_figure(10.2 if crowded else 6.0)
    panels = figure.subplots(2, 1, height_ratios=[4, 5.4]) if crowded else [figure.subplots()]
    _panel(panels[0], points, summary, of_arms, whole, crosses=True)
    if crowded:
        width, height = np.ptp(near, axis=1)
        frame = Rectangle((near[0, 0], near[1, 0]), width, height, fill=False, edgecolor=INK)
        panels[0].add_patch(frame)
        _panel(panels[1], points, summary, of_arms, near, crosses=False)
        _typical(panels[1], points)
    _key(figure, panels[0])
    # The places of names depend on the final layout.
    figure.canvas.draw()
    figure.set_layout_engine("none")
    _names(panels[0], points, of_arms, whole, rest=not crowded, fixed=True)
    if crowded:
        _names(panels[1], points, of_arms, near, rest=True, fixed=True)
    return figure, [n for n in points.of if not _inside(points.of[n][:, 0], whole)]


def _many_pairs(
    found: Sequence[Points], summary: Mapping[str, Any], of_arms: Mapping[str, Look]
) -> tuple[Any, list[str]]:
    """A panel a pair; the names of the arms in colour alone."""
    rows = -(-len(found) // 2)
    figure = new_figure(3.4 * rows)
    panels = figure.subplots(rows, 2, squeeze=False)
    limits = [_range(points) for points in found]
    for axes, points, limit in zip(panels.flat, found, limits, strict=False):
        _panel(axes, points, summary, of_arms, limit, crosses=False)
    for axes in panels.flat[len(found) :]:
        axes.set_visible(False)
    _key(figure, panels[0, 0])
    figure.canvas.draw()
    figure.set_layout_engine("none")
    off: list[str] = []
    for axes, points, limit in zip(panels.flat, found, limits, strict=False):
        _names(axes, points, of_arms, limit, rest=False, fixed=False)
        off += [name for name in points.of if not _inside(points.of[name][:, 0], limit)]
    return figure, off


def _points(summary: Mapping[str, Any], pair: tuple[str, str]) -> Points:
    tasks, arms = summary["tasks"], summary["arms"]
    of = {}
    for name in summary["order"]:
        if arms[name]["kind"] == "single":
            continue
        values = [arms[name]["metrics"][task][tasks[task]["metric"]] for task in pair]
        if all(value["mean"] is not None for value in values):
            of[name] = np.array(
                [
                    [v["mean"] if v[p] is None else v[p] for p in ("mean", "low", "high")]
                    for v in values
                ]
            )
    alone = [(summary["single"].get(task) or {}).get("mean") for task in pair]
    return Points(
        pair,
        np.array([1.0 if tasks[task]["higher_is_better"] else -1.0 for task in pair]),
        of,
        [name for name in of if arms[name]["kind"] in ("equal", "front")],
        [name for name in of if arms[name]["kind"] in ("method", "null")],
        (alone[0], alone[1]),
    )


def _panel(
    axes: Any,
    points: Points,
    summary: Mapping[str, Any],
    of_arms: Mapping[str, Look],
    limits: Float[np.ndarray, "2 2"],
    crosses: bool,
) -> None:
    """Points, intervals, the front and the single-task lines, within limits."""
    tasks, arms = summary["tasks"], summary["arms"]
    corners = _front(np.array([points.of[name][:, 0] for name in points.static]), points.signs)
    axes.plot(*corners.T, drawstyle="steps-pre", color=MUTED, linewidth=1.4, zorder=2)
    for name in [*points.static, *points.methods]:
        kind, look = arms[name]["kind"], of_arms[name]
        fixed = kind == "front"
        colour = MUTED if fixed else look.colour
        told = look.told and not fixed
        (x, xl, xh), (y, yl, yh) = points.of[name]
        if crosses and (told or fixed):
            line = {"color": colour, "linewidth": 1.1 if told else 0.6, "zorder": 5 if told else 3}
            axes.plot([xl, xh], [y, y], **line)
            axes.plot([x, x], [yl, yh], **line)
        axes.plot(
            x,
            y,
            marker={"front": "s", "equal": "*"}.get(kind, "o"),
            markersize={"front": 4.5, "equal": 12}.get(kind, 6 if told else 4.5),
            color=colour,
            markeredgecolor=PAPER,
            markeredgewidth=0.6,
            zorder=7 if told else 6,
        )
    if points.alone[0] is not None:
        axes.axvline(points.alone[0], zorder=1, **_ALONE)
    if points.alone[1] is not None:
        axes.axhline(points.alone[1], zorder=1, **_ALONE)
    axes.plot([], [], "s-", color=MUTED, markersize=4.5, label="static weights, front")
    axes.plot([], [], "*", linestyle="", color=INK, markersize=11, label="equal weights")
    axes.plot([], [], label="task alone", **_ALONE)
    axes.plot([], [], "o", linestyle="", color=REST, markersize=4.5, label="methods")
    for i, (axis, set_limits) in enumerate(
        ((axes.xaxis, axes.set_xlim), (axes.yaxis, axes.set_ylim))
    ):
        task = points.pair[i]
        axis.set_label_text(f"{task}: {tasks[task]['metric']}")
        set_limits(*limits[i])
        axis.set_inverted(bool(points.signs[i] < 0))


def _key(figure: Any, axes: Any) -> None:
    """What the marks mean, above the panels."""
    handles, texts = axes.get_legend_handles_labels()
    figure.legend(handles, texts, loc="outside upper left", ncols=4, handlelength=1.8)


def _typical(axes: Any, points: Points) -> None:
    """The methods' median intervals as bars along the two sides that are worst."""
    along = (axes.get_xaxis_transform(), axes.get_yaxis_transform())
    limits = (axes.get_xlim(), axes.get_ylim())
    for i, width in enumerate(_median_width(points)):
        first, last = limits[i]
        start = first + 0.05 * (last - first)
        ends = [start, start + np.sign(last - first) * width]
        x, y = (ends, [0.035, 0.035]) if i == 0 else ([0.025, 0.025], ends)
        axes.plot(x, y, "|-" if i == 0 else "_-", transform=along[i], color=INK, linewidth=1.2)
        axes.text(
            np.mean(x) if i == 0 else 0.035,
            0.05 if i == 0 else np.mean(y),
            "median 95 % interval",
            transform=along[i],
            ha="center" if i == 0 else "left",
            va="bottom" if i == 0 else "center",
            rotation=0 if i == 0 else 90,
            fontsize=7.5,
            gid=f"{HALO}-typical-{i}",
            zorder=9,
        )


def _median_width(points: Points) -> Float[np.ndarray, "2"]:
    return np.median([points.of[name][:, 2] - points.of[name][:, 1] for name in points.methods], 0)


def _names(
    axes: Any,
    points: Points,
    of_arms: Mapping[str, Look],
    limits: Float[np.ndarray, "2 2"],
    rest: bool,
    fixed: bool,
) -> None:
    """Names beside the arms in colour; with `rest` beside the others, with `fixed` the weights."""
    seen = {n: x[:, 0] for n, x in points.of.items() if _inside(x[:, 0], limits)}
    told = [n for n in seen if of_arms[n].told]
    weights = [n for n in seen if fixed and n in points.static and n not in told]
    others = [n for n in seen if rest and n in points.methods and n not in told]
    named = [*told, *others, *weights]
    if not named:
        return
    label(
        axes,
        np.array([seen[name] for name in named]),
        [n.partition(":")[2].replace(",", ", ") if n in weights else n for n in named],
        [of_arms[name].colour if name in told else MUTED for name in named],
        [name in told for name in named],
        np.array([x for name, x in seen.items() if name not in named]).reshape(-1, 2),
    )


def _front(
    means: Float[np.ndarray, "N 2"], signs: Float[np.ndarray, "2"]
) -> Float[np.ndarray, "P 2"]:
    """The points that no other beats on both tasks, from the worst to the best on the first."""
    if not len(means):
        return np.empty((0, 2))
    better = means * signs
    kept = better[fronts.pareto(better)]
    return kept[np.argsort(kept[:, 0], kind="stable")] * signs


def _range(points: Points) -> Float[np.ndarray, "2 2"]:
    """Limits that hold the static weights, each task alone, and what lies no further off."""
    limits = []
    for i in range(2):
        means = {name: x[i, 0] for name, x in points.of.items()}
        core = [means[name] for name in points.static] if len(points.static) > 1 else []
        core = core or list(robust(np.array(list(means.values()))))
        if (alone := points.alone[i]) is not None:
            core.append(alone)
        low, high = min(core), max(core)
        reach = max(high - low, 1e-9)
        ends = [
            end
            for name, x in points.of.items()
            if low - reach <= means[name] <= high + reach
            for end in (x[i, :] if name in points.static else x[i, :1])
        ]
        low, high = min(*ends, low), max(*ends, high)
        limits.append([low - 0.05 * (high - low + 1e-9), high + 0.05 * (high - low + 1e-9)])
    return np.array(limits)


def _crowd(points: Points) -> Float[np.ndarray, "2 2"]:
    """Limits that hold equal weights and the methods, but for what lies far off them.

    They are never closer than what their intervals can tell apart.
    """
    names = [*points.methods, *(name for name in points.static if ":" not in name)]
    means = np.array([points.of[name][:, 0] for name in names])
    limits = []
    least = 1.15 * _median_width(points)
    for i in range(2):
        low, high = robust(means[:, i])
        margin = max(0.12 * (high - low), (least[i] - (high - low)) / 2, 1e-9)
        limits.append([low - margin, high + margin])
    return np.array(limits)


def _inside(point: Float[np.ndarray, "2"], limits: Float[np.ndarray, "2 2"]) -> bool:
    return bool(np.all((limits[:, 0] <= point) & (point <= limits[:, 1])))
