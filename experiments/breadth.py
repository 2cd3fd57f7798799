"""Every problem that needs no download, by four methods and two ways of sharing: short runs.

python -m experiments.breadth --out experiments/results/breadth

One seed and a few hundred steps each: it shows that everything works with everything, and ranks
nothing. Writes results.json, table.csv and table.md. What is finished is not trained again.
"""

import argparse
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
from rich.console import Console

from experiments import constant, run, show
from experiments.cli import resolve
from experiments.commands import Train
from experiments.page.files import csv_text, write_text
from experiments.problems import PROBLEMS
from jmtl.train import records

METHODS = ("equal", "pcgrad", "nash", "famo")
"""One of each kind: none, surgery, a Gramian's weights, losses' weights."""

SHARINGS = ("hard", "mmoe")
"""One network, and a mixture of three for each task."""

OFFLINE = tuple(name for name, problem in PROBLEMS.items() if problem.offline)
"""The problems of the table."""

STEPS = 400
"""Of a run, unless its recipe has fewer."""


class Run(NamedTuple):
    """One training of the table."""

    problem: str
    sharing: str
    method: str

    @property
    def name(self) -> str:
        """Of its folder."""
        return "-".join(self)


def runs(problems: Sequence[str]) -> Iterator[Run]:
    """The trainings, in the order of the table."""
    for name in problems:
        for sharing in SHARINGS:
            for method in METHODS:
                yield Run(name, sharing, method)


def trained(one: Run, steps: int, folder: Path, data_dir: Path, watcher: run.Watcher) -> Any:
    """Train one run; its scores on the test split, its steps and its seconds."""
    command = Train(one.problem, method=one.method, sharing=(one.sharing,), steps=steps, devices=1)
    began = time.perf_counter()
    summary, begun = run.train_or_continue(resolve(command, None), folder, data_dir, watcher)
    seconds = None if begun else round(time.perf_counter() - began, 1)
    return {"steps": summary["steps"], "seconds": seconds, "test": summary["test"]}


def table(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for the main metric of each task, with a column for each run and the constant answer.

    Args:
        found: what results.json holds.
    """
    rows = []
    for name, constants in found["constant"].items():
        problem = PROBLEMS[name]
        for task in problem.tasks:
            row: dict[str, Any] = {"problem": name, "task": task.name, "metric": task.main}
            row["constant"] = constants[task.name][task.main]
            for sharing in SHARINGS:
                for method in METHODS:
                    one = found["runs"].get(Run(name, sharing, method).name)
                    column = f"{sharing} {method}"
                    row[column] = None if one is None else one["test"][task.name][task.main]
            rows.append(row)
    return rows


def markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows as a table of Markdown."""
    columns = list(rows[0])

    def cell(value: Any) -> str:
        return value if isinstance(value, str) else "" if value is None else f"{value:.3f}"

    lines = [columns, ["---"] * 3 + ["--:"] * (len(columns) - 3)]
    lines += [[cell(row[column]) for column in columns] for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main(arguments: Sequence[str] | None = None) -> None:
    """Train what is missing, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--problems", nargs="+", choices=OFFLINE, default=OFFLINE, metavar="NAME")
    parser.add_argument("--steps", type=int, default=STEPS, help="of a run, at most")
    parser.add_argument("--runs", type=Path, default=Path("runs/breadth"))
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--out", type=Path, default=Path("runs/breadth"))
    command = parser.parse_args(arguments)
    console = Console()
    command.out.mkdir(parents=True, exist_ok=True)
    path = command.out / "results.json"
    found: dict[str, Any] = {"constant": {}, "runs": {}}
    if path.exists():
        found = json.loads(path.read_text())
    found["versions"] = records.versions()
    found["device"] = f"{os.cpu_count()} cores, {jax.devices()[0].device_kind}"
    with show.progress(console) as bar:
        for one in runs(command.problems):
            steps = min(command.steps, PROBLEMS[one.problem].recipe.steps)
            if one.problem not in found["constant"]:
                answers = constant.scores(PROBLEMS[one.problem], command.data_dir, "test")
                found["constant"][one.problem] = answers
            if found["runs"].get(one.name, {}).get("steps") != steps:
                folder = command.runs / one.name
                found["runs"][one.name] = trained(
                    one, steps, folder, command.data_dir, bar(one.name)
                )
            write_text(path, json.dumps(found, indent=1) + "\n")
    rows = table(found)
    write_text(command.out / "table.csv", csv_text(tuple(rows[0]), rows))
    write_text(command.out / "table.md", markdown(rows))
    console.print(markdown(rows), highlight=False, markup=False, soft_wrap=True)


if __name__ == "__main__":
    main()
