"""The tables of a report's page."""

from collections.abc import Iterator, Mapping
from html import escape
from typing import Any

from experiments.page import markup
from experiments.page.markup import Cell, Column, mean_cell, number, number_cell
from experiments.page.style import VARIABLES
from experiments.study.report.answer import digits
from experiments.study.report.looks import Look

_KINDS = {
    "equal": "equal weights",
    "single": "task alone",
    "front": "static weights",
    "null": "equal weights again",
}
_PLACES = {"outside": "outside", "on": "within noise", "inside": "inside"}
_SHORT = {"learning_rate": "lr", "weight_decay": "wd"}


def results(summary: Mapping[str, Any], of_arms: Mapping[str, Look]) -> str:
    """Every arm's test metrics, differences to equal weights, Δm, ranks and chosen trial."""
    columns = [Column("arm"), Column("mean rank", note="1 is best; ties share their ranks")]
    for task, about in summary["tasks"].items():
        group = f"{task}: {about['metric']}"
        columns += [
            Column("mean", group),
            Column("− equal", group, "paired difference to equal weights"),
            Column("p (Holm)", group, "paired t-test, corrected over all tests"),
        ]
    columns += [
        Column("all metrics", "Δm, %", "mean over all metrics; higher is better"),
        Column("by task", "Δm, %", "mean over each task's metrics, then over tasks"),
        Column("P(better)", note="than equal weights, for one training of each"),
        Column("front", note="outside: against each static weights better on some task", text=True),
        Column("hyperparameters", note="marked at an end of three or more values", text=True),
        Column("seeds", note="with a result, of the chosen trial"),
    ]
    rows = [
        (_kind(summary, name), [_name(summary, name, of_arms), *_result(summary, name)])
        for name in summary["order"]
    ]
    intervals = (
        "Brackets are 95 % bootstrap intervals over seeds."
        if len(summary["setting"]["seeds"]) > 1
        else "With one seed there are no intervals."
    )
    note = (
        "Arms by their mean rank over tasks and seeds, among those that train every task. "
        f"{intervals} Differences are paired over seeds; shaded where they hold after Holm's "
        "correction, green for better, orange for worse. Δm is the relative gain over each task "
        "trained alone: here <strong>higher is better</strong> (papers that print Δm as a drop "
        "have the other sign). P(better) is the probability that a training scores higher than "
        "one with equal weights. A head sorts its column."
    )
    return markup.table("results-table", "Test split, every arm", columns, rows, note)


def _result(summary: Mapping[str, Any], name: str) -> Iterator[Cell]:
    arm = summary["arms"][name]
    yield mean_cell(arm["rank"], ".1f")
    sure = summary["answer"]["sure"].get(name, {})
    for task, about in summary["tasks"].items():
        d = digits(summary, task)
        yield mean_cell(arm["metrics"].get(task, {}).get(about["metric"]), f".{d}f")
        apart = arm["difference"].get(task)
        yield mean_cell(apart, f"+.{d}f", sure.get(task, ""))
        yield number_cell(apart["p_holm"] if apart else None, ".2g")
    for convention in ("metrics", "tasks"):
        yield mean_cell(arm["delta_m"].get(convention), "+.2f")
    yield mean_cell(arm["improvement"], ".2f")
    yield _place(arm["front"])
    yield Cell(_hyperparameters(arm["hyperparameters"]) + _ends(arm["grid"]), None, "text")
    yield number_cell(arm["seeds"], "d")


def front(summary: Mapping[str, Any]) -> str:
    """Where each method lies to the front of static weights, and what it would add to it."""
    found = summary["front"]
    rows = []
    for name in summary["order"]:
        place = summary["arms"][name]["front"]
        if place:
            cells = [
                _name(summary, name, None),
                _place(place),
                number_cell(place["p_holm"], ".2g"),
                number_cell(place["gain"], ".2g"),
            ]
            rows.append((_kind(summary, name), cells))
    if not rows:
        return ""
    said = f"{number(found['points'], 'd')} static weights. "
    if found["hypervolume"] is not None:
        at = ", ".join(
            f"{escape(task)} {number(value, '.4g')}" for task, value in found["reference"].items()
        )
        said += (
            f"The hypervolume of their front above ({at}), a tenth of its range beyond its worst "
            f"values, is {number(found['hypervolume'], '.3g')}; a method's gain is what its "
            "mean adds to it, divided by it. Noise adds a little too. "
        )
    note = (
        f"{said}Inside: some static weights have equal or better means on every task. Within "
        "noise: none has, but the method is not shown to be better. Outside: against every static "
        "weights the method is better on some task, by paired one-sided tests, after Holm's "
        "correction over methods."
    )
    columns = [
        Column("method"),
        Column("place", text=True),
        Column("p (Holm)"),
        Column("hypervolume gained ÷ front's"),
    ]
    return markup.table("front-table", "Methods and the front", columns, rows, note)


def along(summary: Mapping[str, Any], of_arms: Mapping[str, Look]) -> str:
    """What was recorded along the way, as means over the whole training."""
    tasks = list(summary["tasks"])
    columns = [
        Column("arm"),
        Column("conflict rate"),
        Column("cosine"),
        Column("magnitude similarity"),
        *(Column(task, "weight") for task in tasks),
        Column("largest residual"),
        Column("kept step"),
    ]
    rows = []
    for name in summary["order"]:
        arm = summary["arms"][name]
        found = arm["along"]
        cells = [
            _name(summary, name, of_arms),
            mean_cell(found["conflict_rate"], ".3f"),
            mean_cell(found["cosine"], ".3f"),
            mean_cell(found["magnitude_similarity"], ".3f"),
            *(mean_cell(found["weights"][task], ".3g") for task in tasks),
            number_cell(found["residual"], ".2g"),
            mean_cell(arm["best_step"], ",.0f"),
        ]
        rows.append((_kind(summary, name), cells))
    note = (
        "Means over the whole training, with 95 % intervals over seeds. A residual says how far a "
        "solver stopped from its optimality condition; 0 stands for a closed form."
    )
    found = markup.table("along-table", "Along the way, every arm", columns, rows, note)
    return markup.folded("All arms in numbers", found)


def cost(found: Mapping[str, Any]) -> str:
    """Times of every compiled program."""
    programs = found["programs"]
    columns = [
        Column("program"),
        Column("ms a step"),
        Column("÷ equal"),
        Column("trainings"),
        Column("seconds in all"),
    ]
    rows = []
    for name in sorted(programs, key=lambda name: programs[name]["milliseconds"] or 0.0):
        program = programs[name]
        cells = [
            Cell(escape(name), name),
            number_cell(program["milliseconds"], ".3g"),
            mean_cell(program["ratio"], ".2f"),
            number_cell(program["trainings"], "d"),
            number_cell(program["seconds"], ".1f"),
        ]
        rows.append(("", cells))
    note = (
        f"Milliseconds for a step of one training, where {number(found['width'], 'd')} train at "
        "once; the programs took turns, on the same machine, when all trainings were done. Ratios "
        f"are to the program {escape(found['reference'])}, which trains equal weights: the median "
        "over turns, in brackets the least and the most. Seconds are those of the trainings "
        f"themselves, {number(found['seconds'], ',.0f')} together, with evaluation and while other "
        "programs were compiled."
    )
    return markup.table("cost-table", "Cost of every program", columns, rows, note)


def trials(summary: Mapping[str, Any]) -> str:
    """The validation score of every trial."""
    columns = [
        Column("arm"),
        Column("trial"),
        Column("hyperparameters", text=True),
        Column("validation score"),
        Column("lost to the best"),
        Column("chosen", text=True),
    ]
    rows = []
    for name in summary["order"]:
        arm = summary["arms"][name]
        for h, trial in enumerate(arm["trials"]):
            chosen = h == arm["trial"]
            cells = [
                _name(summary, name, None),
                number_cell(h + 1, "d"),
                Cell(_hyperparameters(trial["hyperparameters"]), None, "text"),
                mean_cell(trial, ".4f"),
                number_cell(trial["loss"], ".2%"),
                Cell("chosen" if chosen else "", int(not chosen), "text"),
            ]
            rows.append((_kind(summary, name), cells))
    note = (
        "The score is the mean over the arm's tasks of ±log(metric) at the kept step, over seeds; "
        "none where a training failed. What is lost is a part of the metric."
    )
    found = markup.table("trials-table", "Trials of every arm", columns, rows, note)
    return markup.folded("All trials in numbers", found)


def _name(summary: Mapping[str, Any], name: str, of_arms: Mapping[str, Look] | None) -> Cell:
    """An arm's name with its colour in the figures, what it is, and whether it failed."""
    arm = summary["arms"][name]
    look = of_arms[name] if of_arms else None
    swatch = ""
    if look is not None and look.told and arm["kind"] != "single":
        colour = VARIABLES[look.colour]
        swatch = f'<span class="swatch" style="background: var(--{colour})"></span>'
    tags = _tag(_KINDS[arm["kind"]]) if arm["kind"] in _KINDS else ""
    if arm["failed"]:
        tags += _tag("failed", bad=True)
    elif arm["lost"]:
        tags += _tag(f"{number(arm['lost'], 'd')} lost", bad=True)
    return Cell(swatch + escape(name) + tags, name)


def _tag(html: str, bad: bool = False) -> str:
    return f' <span class="tag{" bad" if bad else ""}">{html}</span>'


def _kind(summary: Mapping[str, Any], name: str) -> str:
    arm = summary["arms"][name]
    return arm["kind"] + (" failed" if arm["failed"] else "")


def _place(place: Mapping[str, Any] | None) -> Cell:
    if place is None:
        return Cell(markup.NONE, None, "text")
    return Cell(_PLACES[place["place"]], place["place"], "text")


def _hyperparameters(chosen: Mapping[str, float]) -> str:
    return ", ".join(
        f"{_short(name)} {number(value, 'g')}"
        for name, value in chosen.items()
        if value or name != "weight_decay"
    )


def _ends(grid: Mapping[str, Mapping[str, Any]]) -> str:
    """Marks of what was chosen at an end of what was tried."""
    return "".join(
        _tag(f"{tried['end']} {_short(name)} tried")
        for name, tried in grid.items()
        if tried["end"] in ("least", "largest")
    )


def _short(name: str) -> str:
    return escape(_SHORT.get(name, name.rpartition(".")[2]))
