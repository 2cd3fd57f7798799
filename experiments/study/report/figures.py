"""The figures of a report, drawn from its numbers."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator

from experiments.page.style import ACCENTS, INK, MUTED, PAPER, REST, Drawing, new_figure
from experiments.study.report import along
from experiments.study.report.curves import Bands
from experiments.study.report.front import front
from experiments.study.report.looks import Look, looks
from experiments.study.report.pieces import legend, robust


def drawings(
    summary: Mapping[str, Any], cost: Mapping[str, Any], bands: Mapping[str, Bands]
) -> Iterator[Drawing]:
    """Every figure that the study has the numbers for.

    Args:
        summary: of `report.summary`.
        cost: of `report.cost`.
        bands: by arm, of `report.curves`.
    """
    kinds = {name: arm["kind"] for name, arm in summary["arms"].items()}
    ranked = [name for name in summary["order"] if kinds[name] == "method"]
    of_arms = looks(kinds, ranked)
    for made in (
        differences(summary, of_arms),
        front(summary, of_arms),
        along.training(summary, of_arms, bands),
        along.conflict(summary, of_arms, bands),
        along.weights(summary, bands),
        along.residuals(summary, of_arms, bands),
        profile(summary, of_arms),
        steps(cost, of_arms),
        sensitivity(summary),
    ):
        if made is not None:
            yield made


def differences(summary: Mapping[str, Any], of_arms: Mapping[str, Look]) -> Drawing | None:
    """Each arm's paired difference to equal weights with its interval, a panel a task."""
    tasks = summary["tasks"]
    names = [
        name
        for name in summary["order"]
        if any((_difference(summary, name, task) or {}).get("mean") is not None for task in tasks)
    ]
    if not names:
        return None
    columns = min(len(tasks), 2)
    rows = -(-len(tasks) // columns)
    figure = new_figure(rows * (0.8 + 0.165 * len(names)))
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True)
    y = np.arange(len(names))[::-1]
    for axes, (task, about) in zip(panels.flat, tasks.items(), strict=False):
        found = [_difference(summary, name, task) or {} for name in names]
        _clip(axes, found)
        axes.axvline(0, color=INK, linewidth=0.9)
        for at, name, value in zip(y, names, found, strict=True):
            if value.get("mean") is None:
                continue
            look = of_arms[name]
            colour = look.colour if look.told else MUTED
            sure = value.get("p_holm") is not None and value["p_holm"] <= summary["level"]
            low, high = axes.get_xlim()
            if not low <= value["mean"] <= high:
                _beyond(axes, at, value["mean"], colour)
                continue
            if value["low"] is not None:
                axes.plot([value["low"], value["high"]], [at, at], color=colour, linewidth=1.3)
            axes.plot(
                value["mean"],
                at,
                marker="D" if sure else "o",
                markersize=5 if sure else 4,
                color=colour,
                markerfacecolor=colour if sure else PAPER,
            )
        better = "→ better" if about["higher_is_better"] else "← better"
        axes.set_title(f"{task}: {about['metric']}, minus equal weights")
        axes.set_xlabel(better)
        axes.grid(axis="y", visible=False)
        axes.set_yticks(y, names, fontsize=7.5)
        axes.set_ylim(-0.8, len(names) - 0.2)
        axes.xaxis.set_major_locator(MaxNLocator(5))
    for axes in panels.flat[len(tasks) :]:
        axes.set_visible(False)
    sure = summary["answer"]["differ"]
    alt = (
        f"Differences of {len(names)} arms to equal weights with 95 % intervals, sorted by mean "
        f"rank. After Holm's correction {len(sure)} differ"
        + (f": {', '.join(sure)}." if sure else ".")
    )
    return Drawing(
        "differences",
        figure,
        alt,
        "Paired over seeds, with 95 % intervals; filled diamonds differ from equal weights after "
        "Holm's correction, circles do not. Arms in the order of their mean rank; what lies far "
        "off the others is a number at the edge.",
    )


def _beyond(axes: Any, at: float, value: float, colour: str) -> None:
    """A value outside the limits, as a number at the edge that it lies beyond."""
    left = value < axes.get_xlim()[0]
    axes.text(
        0.01 if left else 0.99,
        at,
        (f"◂ {value:.2g}" if left else f"{value:.2g} ▸").replace("-", "−"),
        transform=axes.get_yaxis_transform(),
        ha="left" if left else "right",
        va="center_baseline",
        fontsize=7.5,
        color=colour,
    )


def _clip(axes: Any, found: Sequence[Mapping[str, Any]]) -> None:
    """A horizontal range that holds 0 and all but what lies far off."""
    means = np.array([value["mean"] for value in found if value.get("mean") is not None])
    if not len(means):
        return
    low, high = robust(means)
    reach = 0.3 * (high - low)
    ends = [
        end
        for value in found
        if value.get("mean") is not None and low - reach <= value["mean"] <= high + reach
        for end in (value["mean"], value["low"], value["high"])
        if end is not None
    ]
    low, high = min(0.0, *ends), max(0.0, *ends)
    margin = 0.05 * max(high - low, 1e-9)
    axes.set_xlim(low - margin, high + margin)


def profile(summary: Mapping[str, Any], of_arms: Mapping[str, Look]) -> Drawing | None:
    """The share of (task, seed) pairs on which an arm comes within some percent of the best."""
    found = summary.get("profile")
    if not found:
        return None
    figure = new_figure(3.4)
    axes = figure.subplots()
    x = np.array(found["within"])
    shares = found["shares"]
    for name in sorted(shares, key=lambda n: of_arms[n].told):
        look, share = of_arms[name], shares[name]
        if of_arms[name].colour in (INK, ACCENTS[0]) and None not in share["low"]:
            axes.fill_between(
                x, share["low"], share["high"], color=look.colour, alpha=0.1, lw=0, zorder=1
            )
        axes.plot(
            x,
            share["mean"],
            color=look.colour,
            linestyle=look.dash,
            linewidth=1.7 if look.told else 0.7,
        )
    axes.set_xlabel("percent behind the best arm of the same task and seed, at most")
    axes.set_ylabel("share of tasks and seeds")
    axes.set_ylim(-0.02, 1.02)
    axes.set_xlim(0, x[-1])
    legend(figure, of_arms, shares)
    half = {name: share["mean"][len(x) // 2] for name, share in shares.items()}
    first = max(half, key=lambda name: half[name])
    return Drawing(
        "profile",
        figure,
        f"Performance profiles of {len(shares)} arms. Within {x[len(x) // 2]:.2g} percent of the "
        f"best, {first} is most often: {half[first]:.0%} of tasks and seeds.",
        "How often an arm comes within some percent of the best arm of the same task and seed; "
        "higher and further left is better. Bands: 95 %, for equal weights and the method of the "
        "best mean rank. Agarwal et al. 2021, Dolan and Moré 2002.",
    )


def steps(cost: Mapping[str, Any], of_arms: Mapping[str, Look]) -> Drawing | None:
    """Milliseconds of one training's step, a bar a program."""
    found = {
        name: program
        for name, program in cost["programs"].items()
        if program["milliseconds"] is not None
    }
    if not found:
        return None
    names = sorted(found, key=lambda n: found[n]["milliseconds"])
    figure = new_figure(0.7 + 0.19 * len(names))
    axes = figure.subplots()
    y = np.arange(len(names))[::-1]
    values = [found[n]["milliseconds"] for n in names]
    colours = [
        INK if n == cost["reference"] else of_arms[n].colour if n in of_arms else REST
        for n in names
    ]
    axes.barh(y, values, color=colours, height=0.66)
    for at, name, value in zip(y, names, values, strict=True):
        ratio = found[name]["ratio"]
        text = f"{value:.3g}" + (f"  (×{ratio['mean']:.2f})" if ratio else "")
        axes.annotate(
            text, (value, at), (4, 0), textcoords="offset points", va="center", fontsize=7.5
        )
    axes.set_yticks(y, names, fontsize=7.5)
    axes.set_ylim(-0.7, len(names) - 0.3)
    axes.set_xlim(0, 1.25 * max(values))
    axes.set_xlabel("milliseconds for a step of one training")
    axes.grid(axis="y", visible=False)
    return Drawing(
        "cost",
        figure,
        f"Milliseconds for a step of one training, by compiled program: from {names[0]} "
        f"({values[0]:.3g}) to {names[-1]} ({values[-1]:.3g}).",
        "Median over turns that the programs took, with all trainings of a call going on at once; "
        f"× is the ratio to the program {cost['reference']!r}, which trains equal weights.",
    )


def sensitivity(summary: Mapping[str, Any]) -> Drawing | None:
    """What every trial of an arm loses to the arm's best, as a strip of cells."""
    arms = summary["arms"]
    names = [n for n in summary["order"] if arms[n]["kind"] != "front" and not arms[n]["failed"]]
    most = max((len(arms[n]["trials"]) for n in names), default=0)
    worst = [t["loss"] for n in names for t in arms[n]["trials"] if t["loss"] is not None]
    if most < 2 or not worst:
        return None
    top = max(float(np.quantile(worst, 0.9)), 1e-6)
    colours = mpl.colormaps["cividis"]
    figure = new_figure(0.9 + 0.19 * len(names))
    axes = figure.subplots()
    y = np.arange(len(names))[::-1]
    for at, name in zip(y, names, strict=True):
        for h, trial in enumerate(arms[name]["trials"]):
            lost = trial["loss"]
            share = 1.0 if lost is None else min(lost / top, 1.0)
            face = colours(1 - share)
            axes.add_patch(Rectangle((h - 0.49, at - 0.44), 0.98, 0.88, facecolor=face, lw=0))
            if h == arms[name]["trial"]:
                axes.plot(h - 0.40, at, "o", markersize=4, color="#111111", zorder=5)
            if most <= 8:
                dark = np.dot(face[:3], (0.3, 0.59, 0.11)) < 0.5
                text = "failed" if lost is None else f"{100 * lost:.2g} %" if lost else "best"
                axes.text(
                    h,
                    at,
                    text,
                    ha="center",
                    va="center",
                    fontsize=7,
                    color="#fefefe" if dark else "#111111",
                )
    axes.set_yticks(y, names, fontsize=7.5)
    axes.set_ylim(-0.6, len(names) - 0.4)
    axes.set_xlim(-0.5, most - 0.5)
    axes.grid(visible=False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    longest = max(names, key=lambda n: len(arms[n]["trials"]))
    shared = summary["setting"]["trials"]["shared"]
    marks = [
        t["short"] if h < shared else f"{h + 1}" for h, t in enumerate(arms[longest]["trials"])
    ]
    axes.set_xticks(range(most), marks, fontsize=7.5)
    if most > 4:
        axes.tick_params(axis="x", rotation=30)
    axes.set_xlabel("trial")
    return Drawing(
        "sensitivity",
        figure,
        f"Validation score of up to {most} trials for {len(names)} arms, as what each loses "
        "relative to the arm's best.",
        "How much of the metric (geometric mean over tasks) a trial loses on the validation "
        "split to the arm's best one, marked by a dot: a dark row is sensitive to its tuning.",
    )


def _difference(summary: Mapping[str, Any], name: str, task: str) -> Mapping[str, Any] | None:
    found: Mapping[str, Any] | None = summary["arms"][name]["difference"].get(task)
    return found
