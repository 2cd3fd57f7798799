"""Figures over training: curves, conflict, weights, residuals."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from experiments.page.style import INK, MUTED, Drawing, new_figure
from experiments.study.report.curves import Bands
from experiments.study.report.looks import Look, task_look
from experiments.study.report.pieces import legend, robust
from experiments.study.statistics import Interval


def training(
    summary: Mapping[str, Any], of_arms: Mapping[str, Look], bands: Mapping[str, Bands]
) -> Drawing | None:
    """Validation metrics over training, a panel a task."""
    tasks = summary["tasks"]
    columns = min(len(tasks), 2)
    rows = -(-len(tasks) // columns)
    figure = new_figure(0.7 + 2.7 * rows)
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True)
    for i, (axes, (task, about)) in enumerate(zip(panels.flat, tasks.items(), strict=False)):
        shown = {
            name: _task_band(bands[name].validation, i)
            for name, arm in summary["arms"].items()
            if arm["kind"] != "front" and (arm["kind"] != "single" or task in arm["tasks"])
        }
        _lines(axes, of_arms, _steps(bands), shown)
        axes.set_title(f"{task}: {about['metric']}, validation split")
        # The last half of training tells arms apart; its start would take the whole height.
        late = [band.mean[len(band.mean) // 2 :] for band in shown.values()]
        _late_limits(axes, late, about["higher_is_better"])
    for axes in panels.flat[len(tasks) :]:
        axes.set_visible(False)
    legend(figure, of_arms, of_arms)
    figure.supxlabel("step", fontsize=9)
    best = [n for n, look in of_arms.items() if look.told]
    return Drawing(
        "training",
        figure,
        f"Validation metrics over training steps for {', '.join(best)}; other methods in grey.",
        "Mean over seeds of the chosen trial, with 95 % bands for the arms in colour; other "
        "methods grey. The scale is that of the second half of training.",
    )


def _late_limits(axes: Any, late: Sequence[np.ndarray], higher: bool) -> None:
    ends = [v[np.isfinite(v)] for v in late if np.isfinite(v).any()]
    if not ends:
        return
    worst = np.array([v.min() if higher else v.max() for v in ends])
    low, high = robust(worst)
    everything = np.concatenate(ends)
    low, high = (low, everything.max()) if higher else (everything.min(), high)
    margin = 0.08 * max(high - low, 1e-9)
    axes.set_ylim(low - margin, high + margin)


def conflict(
    summary: Mapping[str, Any], of_arms: Mapping[str, Look], bands: Mapping[str, Bands]
) -> Drawing | None:
    """Conflict rate, cosine and magnitude similarity of the task gradients over training."""
    kinds = (
        ("conflict_rate", "pairs in conflict", "share of task pairs"),
        ("cosine", "cosine", "mean over pairs"),
        ("magnitude", "magnitude similarity", "mean over pairs"),
    )
    shown = {
        name: bands[name]
        for name, arm in summary["arms"].items()
        if arm["kind"] not in ("single", "front")
    }
    if not any(np.isfinite(b.cosine.mean).any() for b in shown.values()):
        return None
    figure = new_figure(3.1)
    panels = figure.subplots(1, 3, sharex=True)
    for axes, (field, title, side) in zip(panels, kinds, strict=True):
        found = {name: getattr(b, field) for name, b in shown.items()}
        _lines(axes, of_arms, _steps(bands), found)
        axes.set_title(title)
        axes.set_ylabel(side)
        axes.set_xlabel("step")
        axes.xaxis.set_major_locator(MaxNLocator(4))
    panels[1].axhline(0, color=INK, linewidth=0.8)
    legend(figure, of_arms, shown)
    return Drawing(
        "conflict",
        figure,
        "Share of conflicting task pairs, mean cosine and mean magnitude similarity of the task "
        "gradients over training steps, for the same arms as before.",
        "Of the task gradients that each arm meets on its own way: a conflict is a pair with a "
        "negative cosine; the similarity of norms a and b is 2ab / (a² + b²), 1 where they are "
        "equal. Mean over seeds with 95 % bands, of the steps since the record before that "
        "measured it: every one for methods that see the gradients' products, few for the others, "
        "whose lines are rougher.",
    )


def weights(summary: Mapping[str, Any], bands: Mapping[str, Bands]) -> Drawing | None:
    """Each method's weights over training, a small panel a method."""
    names = [
        name
        for name in summary["order"]
        if summary["arms"][name]["kind"] == "method" and np.isfinite(bands[name].weights.mean).any()
    ]
    if not names:
        return None
    tasks = list(summary["tasks"])
    columns = min(4, len(names))
    rows = -(-len(names) // columns)
    figure = new_figure(0.7 + 1.25 * rows)
    panels = figure.subplots(rows, columns, squeeze=False, sharex=True)
    for axes, name in zip(panels.flat, names, strict=False):
        found = bands[name]
        for i in range(len(tasks)):
            colour, dash = task_look(i)
            band = _task_band(found.weights, i)
            axes.fill_between(found.steps, band.low, band.high, color=colour, alpha=0.18, lw=0)
            axes.plot(found.steps, band.mean, color=colour, linestyle=dash, linewidth=1.3)
        axes.set_title(name, fontsize=8.5)
        axes.tick_params(labelsize=7)
        axes.xaxis.set_major_locator(MaxNLocator(3))
        axes.yaxis.set_major_locator(MaxNLocator(3))
        low, high = axes.get_ylim()
        if high - low < 0.1:  # what moves by rounding alone should look still
            axes.set_ylim((low + high) / 2 - 0.05, (low + high) / 2 + 0.05)
    for axes in panels.flat[len(names) :]:
        axes.set_visible(False)
    for column in range(columns):
        last = max(r for r in range(rows) if r * columns + column < len(names))
        panels[last, column].tick_params(labelbottom=True)
    figure.supxlabel("step", fontsize=9)
    handles = [
        Line2D([], [], color=task_look(i)[0], linestyle=task_look(i)[1], label=task)
        for i, task in enumerate(tasks)
    ]
    figure.legend(handles=handles, loc="outside upper left", ncols=min(6, len(tasks)))
    none = [
        n
        for n, arm in summary["arms"].items()
        if arm["kind"] == "method" and n not in names and not arm["failed"]
    ]
    without = f" Without weights of their own: {', '.join(none)}." if none else ""
    return Drawing(
        "weights",
        figure,
        f"The weight of each task over training steps, one panel for each of {len(names)} methods.",
        "Mean since the record before, over seeds, with 95 % bands; each panel has a scale of "
        f"its own.{without}",
    )


def residuals(
    summary: Mapping[str, Any], of_arms: Mapping[str, Look], bands: Mapping[str, Bands]
) -> Drawing | None:
    """The largest residual of each method's solver over training, on a logarithmic scale."""
    shown = {
        name: bands[name]
        for name, arm in summary["arms"].items()
        if arm["kind"] == "method" and np.nanmax(_known(bands[name].residual.mean)) > 0
    }
    if not shown:
        return None
    figure = new_figure(2.9)
    axes = figure.subplots()
    axes.set_yscale("log")
    found = {name: b.residual for name, b in shown.items()}
    _lines(axes, of_arms, _steps(bands), found, filled=False)
    axes.set_xlabel("step")
    axes.set_ylabel("largest residual")
    worst = sorted(shown, key=lambda n: -np.nanmax(_known(shown[n].residual.mean)))[:5]
    _at_the_end(axes, {n: shown[n] for n in worst if not of_arms[n].told})
    legend(figure, of_arms, shown)
    return Drawing(
        "residuals",
        figure,
        f"Largest solver residual over training steps of {len(shown)} methods, logarithmic. "
        f"Largest of all: {worst[0]}.",
        "How far each method's solver stopped from its optimality condition; methods in closed "
        "form have none. Mean over seeds of the largest since the record before.",
    )


def _at_the_end(axes: Any, shown: Mapping[str, Bands]) -> None:
    """Names beside the ends of lines, one under the other where the ends are close."""
    ends = {}
    for name, found in shown.items():
        last = np.flatnonzero(np.isfinite(found.residual.mean) & (found.residual.mean > 0))
        if last.size:
            ends[name] = found.steps[last[-1]], found.residual.mean[last[-1]]
    axes.figure.canvas.draw()
    line = 9 * axes.figure.dpi / 72
    free = np.inf
    for name in sorted(ends, key=lambda n: -ends[n][1]):
        y = axes.transData.transform(ends[name])[1]
        free = min(y, free - line)
        axes.annotate(
            name,
            ends[name],
            (6, (free - y) * 72 / axes.figure.dpi),
            textcoords="offset points",
            fontsize=7,
            va="center",
            color=MUTED,
            annotation_clip=False,
        )


def _lines(
    axes: Any,
    of_arms: Mapping[str, Look],
    steps: Int[np.ndarray, " T"],
    found: Mapping[str, Interval],
    filled: bool = True,
) -> None:
    """Lines of [T], the arms that stand out above the others and with their bands."""
    for name in sorted(found, key=lambda n: (of_arms[n].told, of_arms[n].colour == INK)):
        look, band = of_arms[name], found[name]
        if not np.isfinite(band.mean).any():
            continue
        if look.told and filled:
            axes.fill_between(
                steps, band.low, band.high, color=look.colour, alpha=0.18, lw=0, zorder=3
            )
        axes.plot(
            steps,
            band.mean,
            color=look.colour,
            linestyle=look.dash,
            linewidth=1.6 if look.told else 0.7,
            zorder=4 if look.told else 2,
        )


def _steps(bands: Mapping[str, Bands]) -> Int[np.ndarray, " T"]:
    """The times of the curves, which all arms share."""
    return next(iter(bands.values())).steps


def _task_band(band: Interval, i: int) -> Interval:
    return Interval(*(values[:, i] for values in band))


def _known(values: np.ndarray) -> np.ndarray:
    """Values, 0 where there is none at all."""
    return values if np.isfinite(values).any() else np.zeros(1)
