"""The page of a dial's report: its sections and its tables."""

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from experiments.dial.sentences import FAMILY, sure
from experiments.page import markup
from experiments.page.document import Section, document, figure
from experiments.page.markup import Cell, Column, interval, number, number_cell
from experiments.page.style import Drawing

METHODS = ("surgery", "losses")
"""The families whose choice is a method."""

QUESTION = (
    "Four tasks share an encoder; one of them, parity, is turned against the others: a share p of "
    "its labels is permuted, its loss is multiplied by 10ˢ, and the encoder is made narrower. "
    "Where does gradient surgery pay, against equal weights and against fixed weights that were "
    "tuned?"
)


def page(found: Mapping[str, Any], drawn: Sequence[Drawing]) -> str:
    """The page, as HTML."""
    sections = [
        Section("setting", "Setting", [_setting(found)]),
        Section("phases", "Where it pays", [*map(figure, drawn), _cells(found)]),
        Section("methods", "Each method alone", [_methods(found)]),
    ]
    files = (
        "Every number of this page is in <code>summary.json</code>, those of the tables in "
        "<code>table.csv</code> and <code>methods.csv</code>. The figure is in "
        "<code>figures/</code>."
    )
    return document("The conflict dial", QUESTION, found["answer"], sections, files)


def _setting(found: Mapping[str, Any]) -> str:
    dial = found["dial"]

    def numbers(name: str) -> str:
        return ", ".join(number(value, "g") for value in dial[name])

    tasks = "; ".join(f"{escape(task)} ({escape(m)})" for task, m in found["tasks"].items())
    items = (
        ("tasks", tasks),
        ("p", f"{numbers('conflicts')}: of the training images, whose parity is another image's"),
        ("s", f"{numbers('scales')}: parity's loss × 10ˢ"),
        ("widths", f"{numbers('widths')}, of one hidden layer"),
        ("methods", escape(", ".join(dial["methods"]))),
        ("learning rates", numbers("learning_rates")),
        ("seeds", f"{number(len(dial['seeds']), 'd')}"),
        (
            "training",
            f"{number(dial['steps'], ',d')} steps of Adam on batches of "
            f"{number(dial['batch_size'], 'd')}; {number(found['trainings'], ',d')} trainings, "
            f"{number(found['failed'], ',d')} of which stopped being finite",
        ),
        ("comparison", escape(found["rule"])),
        *markup.origin(found),
    )
    return markup.facts(items)


def _cells(found: Mapping[str, Any]) -> str:
    names = list(found["cells"][0]["compared"])
    columns = [
        Column("width"),
        Column("p", note="share of labels permuted"),
        Column("s", note="loss × 10ˢ"),
        *(
            column
            for name in names
            for column in (Column("gain", name), Column("chosen", name, text=True))
            if column.name == "gain" or name.split(" − ")[0] in METHODS
        ),
        Column("conflict rate", "equal weights", note="share of pairs of tasks that conflict"),
        Column("cosine", "equal weights", note="of parity's gradient with the others'"),
    ]
    rows = [("", list(_cell(found, cell, names))) for cell in found["cells"]]
    note = (
        "Mean differences of log(metric) with their 95 % intervals, green or orange where they "
        "hold after Holm's correction, and what was chosen most often. A head sorts its column."
    )
    table = markup.table("cells-table", "Every cell", columns, rows, note)
    return markup.folded("All cells in numbers", table)


def _cell(
    found: Mapping[str, Any], cell: Mapping[str, Any], names: Sequence[str]
) -> Iterator[Cell]:
    yield number_cell(cell["width"], "d")
    yield number_cell(cell["conflict"], "g")
    yield number_cell(cell["scale"], "g")
    for name in names:
        compared = cell["compared"][name]
        kind = {1: "better", -1: "worse", 0: ""}[sure(compared, found["level"])]
        html = number(compared["mean"], "+.3f")
        if compared["low"] is not None:
            html += f" {interval(compared, '+.3f')}"
        yield Cell(html, compared["mean"], kind)
        if (family := name.split(" − ")[0]) in METHODS:
            chosen = next(iter(cell["chosen"][family]))
            yield Cell(escape(chosen), chosen, "text")
    yield number_cell(cell["conflict_rate"], ".2f")
    yield number_cell(cell["cosine"], "+.3f")


def _methods(found: Mapping[str, Any]) -> str:
    columns = [
        Column("method"),
        Column("family", text=True),
        Column("− best fixed weight", note="mean over all cells"),
        Column("chosen", note="cells × seeds in which it was the best of its family"),
    ]
    rows = [
        (
            "",
            [
                Cell(escape(name), name),
                Cell(escape(FAMILY[found["families"][name]].lower()), None, "text"),
                number_cell(method["mean"], "+.3f"),
                number_cell(method["chosen"], "d"),
            ],
        )
        for name, method in found["methods"].items()
    ]
    note = "Each method with its own choice of learning rate, less the best fixed weight."
    return markup.table("methods-table", "Methods over all cells", columns, rows, note)
