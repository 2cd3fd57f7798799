"""The toy problem's command: methods run, their ends in a table, in toy.json and in toy.png."""

import importlib.metadata
import json
import platform
import re
import shlex
import time
from collections.abc import Mapping, Sequence
from typing import Any

import jax
from rich import box
from rich.console import Console
from rich.table import Table

from experiments import toy_figure
from experiments.commands import Toy
from experiments.errors import UserError
from experiments.problems import toy
from jmtl.methods import METHODS, nearest


def run(command: Toy, console: Console) -> None:
    """Run the methods on the toy problem; print, save and draw where they end.

    Raises:
        UserError: an unknown method, a number out of its range, or no method that serves K = 2.
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
    ends = {name: toy.ends(paths) for name, paths in done.items()}
    command.out.mkdir(parents=True, exist_ok=True)
    times = {"seconds": round(seconds, 1), "processor_seconds": round(work, 1)}
    saved = times | record(command, done, ends, refused)
    (command.out / "toy.json").write_text(text(saved))
    toy_figure.draw(done, command.scale, command.steps, command.out / "toy.png")
    title = f"toy problem, f₁ × {command.scale:g}, after {command.steps:,} steps of Adam"
    console.print(ends_table(title, ends))
    for line in refused:
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    whole = [name for name, rows in ends.items() if all(row["reached"] for row in rows)]
    console.print(f"from every start to the front: {', '.join(whole) or 'none'}", soft_wrap=True)
    console.print(
        f"{seconds:.1f} s ({work:.1f} s of processor), compiling included", highlight=False
    )
    console.print(f"toy.json and toy.png: {command.out}", soft_wrap=True, highlight=False)


def ends_table(title: str, ends: Mapping[str, Sequence[Mapping[str, Any]]]) -> Table:
    """Where every start of every method ended, of seed 0; `reached` counts the seeds.

    Args:
        title: above the table.
        ends: by method, what `toy.ends` returns.
    """
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in ("method", "start", "x₁", "x₂", "f₁", "f₂", "to front", "reached"):
        table.add_column(name, justify="left" if name == "method" else "right", no_wrap=True)
    for method, rows in ends.items():
        for i, start in enumerate(toy.STARTS):
            seeds = [row["reached"] for row in rows if row["start"] == list(start)]
            first = rows[i]
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


def record(
    command: Toy,
    done: Mapping[str, toy.Paths],
    ends: Mapping[str, Sequence[Mapping[str, Any]]],
    refused: Sequence[str],
) -> dict[str, Any]:
    """What toy.json holds: the command, versions, options, and every end."""
    return {
        "command": command_line(command),
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in ("jax", "optax", "numpy")},
        },
        "device": jax.devices()[0].device_kind,
        "scale": command.scale,
        "steps": command.steps,
        "learning_rate": toy.LEARNING_RATE,
        "reached_within": toy.REACHED,
        "not_served": list(refused),
        "methods": {
            name: {
                "compiling_seconds": round(paths.compiling, 2),
                "running_seconds": round(paths.running, 2),
                "ends": list(ends[name]),
            }
            for name, paths in done.items()
        },
    }


def command_line(command: Toy) -> str:
    """The command that repeats this one."""
    methods = ["--methods", *command.methods] if command.methods else []
    given = ["--steps", command.steps, "--scale", command.scale, "--seeds", command.seeds]
    words = [*methods, *map(str, given), "--out", str(command.out)]
    return shlex.join(["python", "-m", "experiments", "toy", *words])


def text(saved: Mapping[str, Any]) -> str:
    """JSON with every innermost object on a line of its own."""
    spread = json.dumps(saved, indent=1, ensure_ascii=False, allow_nan=False)
    return re.sub(r"\{[^{}]*\}", lambda inner: " ".join(inner[0].split()), spread) + "\n"
