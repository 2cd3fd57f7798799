"""`python -m experiments dial`: the grid trained, compared and drawn.

report.html is the page to read; summary.json holds its numbers with six digits, table.csv every
cell's comparisons, methods.csv the methods over all cells. The trainings lie in a study's folder
for each width.
"""

import itertools
import json
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console

from experiments.commands import Dial as Command
from experiments.commands import command_line
from experiments.dial import config, figure, results, sentences
from experiments.dial.config import Dial
from experiments.dial.page import page
from experiments.errors import UserError
from experiments.page.files import csv_text, json_text
from experiments.page.report import write_report
from experiments.study import run as runs
from experiments.study.command import parse_seeds
from experiments.study.devices import choose, saved_devices
from experiments.study.progress import progress
from experiments.study.report.seeds import plain
from jmtl.train import records

COLUMNS = (
    "width", "conflict", "scale", "comparison", "measure", "chosen", "mean", "low", "high", "p",
    "p_holm", "seeds", "conflict_rate", "cosine", "norm_ratio",
)  # fmt: skip


def run(command: Command, console: Console) -> None:
    """Train what is not there yet of a dial; write its report.

    Raises:
        UserError: one line, before anything is trained where that is possible.
    """
    saved = saved_devices(command.out / "config.json", "dial", "devices")
    devices = choose(command.devices, None, saved if command.resume else None)
    dial = Dial(
        conflicts=command.conflicts,
        scales=command.scales,
        widths=command.widths,
        methods=config.methods(command.methods),
        learning_rates=command.learning_rates,
        seeds=parse_seeds(command.seeds),
        steps=command.steps,
        evaluate_every=min(command.evaluate_every, command.steps),
        batch_size=command.batch_size,
        devices=devices,
    )
    config.check(dial)
    studies = {width: config.study(dial, width) for width in dial.widths}
    for study in studies.values():
        runs.check(study)
    folder = command.out
    _open(folder, dial, command)
    for width, study in studies.items():
        console.print(f"width {width}", highlight=False)
        at = folder / f"width-{width}"
        with progress(console) as watcher:
            runs.study(
                study,
                at,
                data_dir=command.data_dir,
                resume=(at / "study.json").exists(),
                watcher=watcher,
                about={"command": command_line(command), "not_served": []},
            )
    write(folder, console)


def write(folder: Path, console: Console) -> None:
    """Write the report of a finished dial, and print what it found.

    Raises:
        UserError: there is none, or the folder cannot be written to.
    """
    found = plain(results.find(folder))
    found["answer"] = sentences.answer(found)
    files = {
        "summary.json": json_text(found),
        "table.csv": csv_text(COLUMNS, _rows(found)),
        "methods.csv": csv_text(("method", "mean", "chosen"), _methods(found)),
    }
    write_report(folder, files, lambda: [figure.draw(found)], partial(page, found))
    for text in found["answer"]:
        console.print(text, highlight=False, soft_wrap=True)
    said = f"report.html, with summary.json, table.csv, methods.csv and figures/: {folder}"
    console.print(said, soft_wrap=True, highlight=False)


def _rows(found: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Every cell's comparisons by both measures."""
    for cell, measure in itertools.product(found["cells"], ("compared", "compared by error")):
        for name, compared in cell[measure].items():
            chosen = {}
            if measure == "compared":
                chosen["chosen"] = next(iter(cell["chosen"][name.split(" − ")[0]]))
            yield {
                **{key: cell[key] for key in COLUMNS if key in cell},
                "comparison": name,
                "measure": {"compared": "metric", "compared by error": "error"}[measure],
                **chosen,
                **{key: value for key, value in compared.items() if key in COLUMNS},
            }


def _methods(found: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for name, method in found["methods"].items():
        yield {"method": name, **method}


def _open(folder: Path, dial: Dial, command: Command) -> None:
    """Begin a dial's folder, or see that it holds this dial.

    Raises:
        UserError: it holds something else, or cannot be written to.
    """
    path = folder / "config.json"
    if not path.exists():
        if command.resume:
            raise UserError(f"no conflict dial in {folder}: leave out --resume to start one")
        if folder.exists() and any(folder.iterdir()):
            raise UserError(f"{folder} holds other files: name another --out")
        try:
            records.check_writable(folder)
        except records.OutputError as error:
            raise UserError(str(error)) from error
        about = {"command": command_line(command), "versions": records.versions()}
        records.write_json(path, {**about, "dial": config.plain(dial)})
        return
    if not command.resume:
        raise UserError(
            f"{folder} already holds a conflict dial: pass --resume to continue it, or another "
            "--out"
        )
    try:
        saved = json.loads(path.read_text())["dial"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    if lines := records.differing(saved, config.plain(dial)):
        raise UserError(
            f"the dial in {folder} has another grid: {'; '.join(lines[:4])}. Give the saved "
            "values, or another --out"
        )
