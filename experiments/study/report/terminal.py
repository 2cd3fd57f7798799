"""A study's table on the terminal: the page's main columns, narrower."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console, Group
from rich.table import Table
from rich.text import Text

from experiments.study.report import write
from experiments.study.report.answer import digits
from experiments.study.results import Results

_MARKS = {"better": ("▲", "green"), "worse": ("▼", "red")}


def report(results: Results, folder: Path, console: Console) -> None:
    """Write a study's report, print its table, and say where the files are.

    Raises:
        UserError: the folder cannot be written to.
    """
    console.print(study_table(write(results, folder)))
    said = f"report.html, with summary.json, table.csv and figures/: {folder}"
    console.print(said, soft_wrap=True, highlight=False)


def study_table(summary: Mapping[str, Any]) -> Group:
    """Every arm by mean rank: test metrics and differences to equal weights; then the answer.

    Args:
        summary: of `experiments.study.report.write`.
    """
    setting = summary["setting"]
    title = f"{setting['problem']}, test split, means over {len(setting['seeds'])} seeds"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column("arm", overflow="fold")
    heads = ["rank"]
    for task in summary["tasks"]:
        heads += [task, "− equal"]
    for head in heads:
        table.add_column(head, justify="right", no_wrap=True)
    for name in summary["order"]:
        arm = summary["arms"][name]
        lost = f" ({arm['lost']} lost)" if arm["lost"] else ""
        cells = [Text(name).append(lost, "red"), _number(arm["rank"], ".1f")]
        for task, about in summary["tasks"].items():
            d = digits(summary, task)
            cells.append(_number(arm["metrics"].get(task, {}).get(about["metric"]), f".{d}f"))
            sure = summary["answer"]["sure"].get(name, {}).get(task)
            cells.append(_difference(arm["difference"].get(task), d, sure))
        style = "bold" if arm["kind"] == "equal" else "" if arm["kind"] == "method" else "dim"
        table.add_row(*cells, style=style)
    metrics = ", ".join(f"{task} {about['metric']}" for task, about in summary["tasks"].items())
    legend = (
        f"{metrics}; − equal: paired difference to equal weights ± half of its 95 % interval, "
        "▲ better and ▼ worse after Holm's correction"
    )
    return Group(table, Text(legend, "dim"), *(Text(text) for text in summary["answer"]["text"]))


def _number(value: Mapping[str, Any] | None, form: str) -> Text:
    return Text("–" if value is None or value["mean"] is None else format(value["mean"], form))


def _difference(value: Mapping[str, Any] | None, d: int, sure: str | None) -> Text:
    text = _number(value, f"+.{d}f")
    if value is not None and value["low"] is not None:
        text.append(f" ±{(value['high'] - value['low']) / 2:.{d}f}", "dim")
    mark, colour = _MARKS[sure] if sure else (" ", "")
    return text.append(f" {mark}", colour)
