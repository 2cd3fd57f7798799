"""`scenes` by one network for all tasks, by one network a task, and by a constant answer.

python -m experiments.scenes_report --out experiments/results/scenes

Trains PCGrad by the recipe, and each task alone by the recipe but for a third of the steps, so that
together they have twice as many. Writes metrics.json, table.csv and scenes.png. What is finished is
not trained again.
"""

import argparse
import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from experiments import constant, run, scenes_figure, show
from experiments.cli import resolve
from experiments.commands import Train
from experiments.config import RunConfig
from experiments.page.files import csv_text, write_text
from experiments.problems.scenes import PROBLEM
from jmtl.train import records

TOGETHER = "pcgrad"
"""The method that trains all tasks."""

COLUMNS = ("constant", "alone", TOGETHER)
"""Of the table."""


def arms(steps: int, alone: int) -> dict[str, RunConfig]:
    """What is trained, by name: all tasks by PCGrad, and each alone. One device trains.

    A task alone is the weight 1 for it and 0 for the others.

    Args:
        steps: of all tasks together.
        alone: steps of each task alone.
    """
    names = [task.name for task in PROBLEM.tasks]
    found = {TOGETHER: resolve(Train(PROBLEM.name, method=TOGETHER, steps=steps, devices=1), None)}
    for name in names:
        weights = ",".join(f"{other}={int(other == name)}" for other in names)
        command = Train(PROBLEM.name, method="static", weights=weights, steps=alone, devices=1)
        found[name] = resolve(command, None)
    return found


def table(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A row for each metric of each task, with a column for each of `COLUMNS`.

    Args:
        found: what metrics.json holds.
    """
    rows = []
    for task in PROBLEM.tasks:
        by_column = {
            "constant": found["constant"][task.name],
            "alone": found["runs"][task.name]["test"][task.name],
            TOGETHER: found["runs"][TOGETHER]["test"][task.name],
        }
        for metric in by_column["constant"]:
            numbers = {column: by_column[column][metric] for column in COLUMNS}
            rows.append({"task": task.name, "metric": metric, **numbers})
    return rows


def measured(config: RunConfig, folder: Path, data_dir: Path, watcher: run.Watcher) -> Any:
    """Train a run, or finish it, and what it took.

    The times are None for a run that was begun before: they would be of its last part.
    """
    began, worked = time.perf_counter(), time.process_time()
    summary, begun = run.train_or_continue(config, folder, data_dir, watcher)
    times = (time.perf_counter() - began, time.process_time() - worked, os.getloadavg()[2])
    names = ("seconds", "processor_seconds", "load_of_15_minutes")
    return {
        "steps": summary["steps"],
        "examples": summary["steps"] * config.batch_size,
        **dict(zip(names, [None] * 3 if begun else [round(t, 1) for t in times], strict=True)),
        "test": summary["test"],
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Train what is missing, and write the table and the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    steps = PROBLEM.recipe.steps
    parser.add_argument("--steps", type=int, default=steps, help="of all tasks together")
    parser.add_argument("--alone-steps", type=int, default=steps // 3, help="of each task alone")
    parser.add_argument("--runs", type=Path, default=Path("runs/scenes"))
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--out", type=Path, default=Path("runs/scenes"))
    command = parser.parse_args(arguments)
    console = Console()
    command.out.mkdir(parents=True, exist_ok=True)
    path = command.out / "metrics.json"
    known = json.loads(path.read_text())["runs"] if path.exists() else {}
    found: dict[str, Any] = {
        "versions": records.versions(),
        "device": f"{os.cpu_count()} cores, {jax.devices()[0].device_kind}",
        "constant": constant.scores(PROBLEM, command.data_dir, "test"),
        "runs": {},
    }
    with show.progress(console) as bar:
        for name, config in arms(command.steps, command.alone_steps).items():
            if known.get(name, {}).get("steps") != config.steps:
                folder = command.runs / name
                known[name] = measured(config, folder, command.data_dir, bar(name))
            found["runs"][name] = known[name]
            path.write_text(json.dumps(found, indent=1) + "\n")
    rows = table(found)
    write_text(command.out / "table.csv", csv_text(tuple(rows[0]), rows))
    scenes_figure.of_run(command.runs / TOGETHER, command.data_dir, command.out / "scenes.png")
    for row in rows:
        numbers = "  ".join(f"{column} {row[column]:.4f}" for column in COLUMNS)
        console.print(f"{row['task']:<13}{row['metric']:<18}{numbers}", highlight=False)


if __name__ == "__main__":
    main()
