"""The page of the toy problem's report: its sections and its tables."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from experiments.page import markup
from experiments.page.document import Section, document, figure
from experiments.page.markup import Cell, Column, number, number_cell
from experiments.page.style import Drawing
from experiments.toy.answer import point

TITLE = "The toy problem of CAGrad, Nash-MTL and FAMO"


def page(found: Mapping[str, Any], drawn: Sequence[Drawing]) -> str:
    """The page, as HTML."""
    answer = found["answer"]
    sections = [
        Section("setting", "Setting", [_setting(found["setting"])]),
        Section("paths", "Where they go", [*map(figure, drawn), methods(found), ends(found)]),
        Section("cost", "Cost", [cost(found)]),
    ]
    files = (
        "Every number of this page is in <code>summary.json</code> and <code>table.csv</code>. The "
        "figure is in <code>figures/</code>."
    )
    return document(TITLE, answer["question"], answer["text"], sections, files)


def _setting(setting: Mapping[str, Any]) -> str:
    def whole(name: str) -> str:
        return number(setting[name], ",d")

    starts = ", ".join(f"({number(a, 'g')}, {number(b, 'g')})" for a, b in setting["starts"])
    items = (
        (
            "losses",
            f"{number(setting['scale'], 'g')} f₁ and f₂, of a point (x₁, x₂); methods see them "
            "minus their lower bounds: positive, with the same gradients",
        ),
        ("starts", starts),
        (
            "descent",
            f"{whole('steps')} steps of Adam with learning rate "
            f"{number(setting['learning_rate'], 'g')}",
        ),
        (
            "reached",
            f"what ends nearer than {number(setting['reached_within'], 'g')} to the Pareto front",
        ),
        (
            "methods",
            f"{whole('methods')}, with their default options but for <code>static</code>, whose "
            "weights undo the scale of f₁, and <code>famo</code>, which has no decay, as in its "
            "paper",
        ),
        (
            "seeds",
            f"{whole('seeds')} for each of the {whole('methods_that_draw')} methods that draw at "
            f"random; {whole('descents')} descents in all, {whole('reached')} of which reach the "
            "front",
        ),
        (
            "not served",
            "<br>".join(
                escape(line.removeprefix("not served: ")) for line in setting["not_served"]
            ),
        ),
        *markup.origin(setting),
        ("device", escape(setting["device"])),
    )
    return markup.facts((name, html) for name, html in items if html)


def methods(found: Mapping[str, Any]) -> str:
    """Every method: from which starts it reaches the front, and how far off it ends at most."""
    group = "from this start"
    columns = [
        Column("method"),
        Column("reached", note="descents that end on the front"),
        *(Column(point(start), group) for start in found["setting"]["starts"]),
        Column("farthest end", note="its distance to the front"),
        Column("largest residual", note="of the method's solver, on the way"),
    ]
    rows = []
    for name in found["order"]:
        method = found["methods"][name]
        cells = [
            Cell(escape(name), name),
            _part(method["reached"], method["descents"]),
            *(_from(part["reached"], method["seeds"]) for part in method["from"]),
            number_cell(method["farthest"], "z.2f"),
            number_cell(method["residual"], ".2g"),
        ]
        rows.append((_kind(name), cells))
    note = (
        "Methods by the share of their descents that reach the front. Green: reached with every "
        "seed, orange: with none; a method that does not draw has no seed, and its starts are yes "
        "or no. On the front the gradients oppose each other: methods whose condition asks for a "
        "gain of every task have no answer there, and a residual near or above 1. A head sorts "
        "its column."
    )
    return markup.table("methods-table", "Who reaches the front", columns, rows, note)


def ends(found: Mapping[str, Any]) -> str:
    """Where every descent ended."""
    columns = [
        Column("method"),
        Column("start"),
        Column("seed"),
        Column("x₁", "end"),
        Column("x₂", "end"),
        Column("f₁", "losses there", note="with its scale"),
        Column("f₂", "losses there"),
        Column("to front", note="distance"),
        Column("reached", text=True),
        Column("largest residual"),
    ]
    rows = [(_kind(name), list(cells)) for name, cells in _ends(found)]
    table = markup.table(
        "ends-table", "The end of every descent", columns, rows, "Methods in the order above."
    )
    return markup.folded("All ends in numbers", table)


def _ends(found: Mapping[str, Any]) -> Iterator[tuple[str, Iterator[Cell]]]:
    for name in found["order"]:
        for i, end in enumerate(found["methods"][name]["ends"]):
            yield name, _end(name, i % len(found["starts"]), end)


def _end(name: str, start: int, end: Mapping[str, Any]) -> Iterator[Cell]:
    a, b = end["start"]
    yield Cell(escape(name), name)
    yield Cell(f"({number(a, 'g')}, {number(b, 'g')})", start)
    yield number_cell(end["seed"], "d")
    for value in (*end["end"], *end["losses"], end["distance"]):
        yield number_cell(value, "z.2f")
    yield Cell("yes" if end["reached"] else "no", int(not end["reached"]), "text")
    yield number_cell(end["residual"], ".2g")


def cost(found: Mapping[str, Any]) -> str:
    """Times of every method's program."""
    spent = found["cost"]
    columns = [Column("method"), Column("compiling, s"), Column("running, s"), Column("descents")]
    rows = []
    for name in sorted(spent["methods"], key=lambda n: spent["methods"][n]["running"]):
        cells = [
            Cell(escape(name), name),
            number_cell(spent["methods"][name]["compiling"], ".2f"),
            number_cell(spent["methods"][name]["running"], ".2f"),
            number_cell(found["methods"][name]["descents"], "d"),
        ]
        rows.append((_kind(name), cells))
    note = (
        "Seconds to compile a method's program, which descends from every start with every seed at "
        f"once, and to run it; together {number(spent['compiling_seconds'], ',.1f')} and "
        f"{number(spent['running_seconds'], ',.1f')}. From the first method to the last it took "
        f"{number(spent['seconds'], ',.1f')}, and {number(spent['processor_seconds'], ',.1f')} of "
        "the processor's time over all cores. All was measured once."
    )
    return markup.table("cost-table", "Cost of every method", columns, rows, note)


def _part(n: int, of: int) -> Cell:
    return Cell(f"{number(n, 'd')} of {number(of, 'd')}", n / of)


def _from(reached: int, seeds: int) -> Cell:
    """Whether a start reaches the front, or with how many seeds."""
    kind = "better" if reached == seeds else "" if reached else "worse"
    if seeds == 1:
        return Cell("yes" if reached else "no", reached, kind)
    return _part(reached, seeds)._replace(kind=kind)


def _kind(name: str) -> str:
    """Equal weights stand out, as in a study's tables."""
    return "equal" if name == "equal" else ""
