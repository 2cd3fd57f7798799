"""`python -m experiments toy`: methods run on the toy problem, and the report of where they end."""

import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from experiments.commands import Toy
from experiments.errors import UserError
from experiments.page.files import csv_text
from experiments.page.report import write_report
from experiments.problems import toy
from experiments.toy.figure import draw
from experiments.toy.page import page
from experiments.toy.rows import COLUMNS, rows
from experiments.toy.summary import summary, text
from jmtl.methods import METHODS, nearest


def run(command: Toy, console: Console) -> None:
    """Run the methods on the toy problem; print where they end, and write a report of it.

    Raises:
        UserError: an unknown method, a number out of its range, no method that serves K = 2, or a
            folder that cannot be written to.
    """
    for name in command.methods:
        if name not in METHODS:
            raise UserError(f"unknown method {name!r}: {nearest(name, METHODS)}")
    if min(command.steps, command.seeds) < 1:
        raise UserError("--steps and --seeds must be at least 1")
    if not 0 < command.scale < float("inf"):
        raise UserError(f"--scale must be positive, got {command.scale}")
    refused: list[str] = []
    began, worked = time.perf_counter(), time.process_time()
    done = toy.run(
        command.methods or tuple(METHODS),
        command.scale,
        command.steps,
        command.seeds,
        refused.append,
    )
    seconds, work = time.perf_counter() - began, time.process_time() - worked
    if not done:
        raise UserError("; ".join(refused))
    found = summary(command, done, refused, seconds, work)
    write(found, done, command.out)
    title = f"toy problem, f₁ × {command.scale:g}, after {command.steps:,} steps of Adam"
    console.print(ends_table(title, {n: found["methods"][n]["ends"] for n in done}))
    for line in (*refused, *found["answer"]["text"]):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    said = f"report.html, with summary.json, table.csv and figures/: {command.out}"
    console.print(said, soft_wrap=True, highlight=False)


def write(found: Mapping[str, Any], done: Mapping[str, toy.Paths], folder: Path) -> None:
    """Write the report: `report.html`, `summary.json`, `table.csv` and `figures/`.

    Args:
        found: of `experiments.toy.summary`.
        done: by method, what `toy.run` returns.
        folder: where the files go; made if it is not there.

    Raises:
        UserError: the folder cannot be written to.
    """
    files = {"summary.json": text(found), "table.csv": csv_text(COLUMNS, rows(found))}
    write_report(folder, files, lambda: [draw(found, done)], partial(page, found))


def ends_table(title: str, ends: Mapping[str, Sequence[Mapping[str, Any]]]) -> Table:
    """Where every start of every method ended, of seed 0; `reached` counts the seeds.

    Args:
        title: above the table.
        ends: by method, what `toy.ends` returns.
    """
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("method", "start", "x₁", "x₂", "f₁", "f₂", "to front", "reached"):
        table.add_column(name, justify="left" if name == "method" else "right", no_wrap=True)
    for method, found in ends.items():
        for i, start in enumerate(toy.STARTS):
            seeds = [row["reached"] for row in found if row["start"] == list(start)]
            first = found[i]
            numbers = (*first["end"], *first["losses"], first["distance"])
            reached = f"{sum(seeds)}/{len(seeds)}" if len(seeds) > 1 else ("no", "yes")[seeds[0]]
            table.add_row(
                "" if i else method,
                f"{start[0]:g}, {start[1]:g}",
                *("none" if number is None else f"{number:.2f}" for number in numbers),
                reached,
                end_section=i == len(toy.STARTS) - 1,
            )
    return table
