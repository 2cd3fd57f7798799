"""`python -m experiments dial`: the grid trained, compared and drawn.

dial.json holds every cell's numbers with six digits, table.csv its comparisons, dial.png the
figure; the trainings lie in a study's folder for each width.
"""

import csv
import io
import json
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from experiments.commands import Dial as Command
from experiments.dial import config, figure, results, sentences
from experiments.dial.config import Dial
from experiments.errors import UserError
from experiments.study import run as runs
from experiments.study.command import parse_seeds
from experiments.study.devices import choose, saved_devices
from experiments.study.progress import progress
from experiments.study.report.seeds import plain
from experiments.study.report.style import house_style, save_png
from jmtl.train import records

COLUMNS = (
    "width", "conflict", "scale", "comparison", "chosen", "mean", "low", "high", "p", "p_holm",
    "seeds", "conflict_rate", "cosine", "norm_ratio",
)  # fmt: skip


def run(command: Command, console: Console) -> None:
    """Train what is not there yet of a dial; write dial.json, table.csv and the figure.

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
    """Write what a finished dial found, and print it."""
    found = plain(results.find(folder))
    found["answer"] = sentences.answer(found)
    records.write_json(folder / "dial.json", found)
    (folder / "table.csv").write_text(table(found))
    with house_style():
        save_png(figure.draw(found), folder)
    for text in found["answer"]:
        console.print(text, highlight=False, soft_wrap=True)
    console.print(f"dial.json, table.csv and dial.png: {folder}", soft_wrap=True, highlight=False)


def table(found: Mapping[str, Any]) -> str:
    """Every cell's comparisons as CSV."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(_rows(found))
    return buffer.getvalue()


def _rows(found: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for cell in found["cells"]:
        for name, compared in cell["compared"].items():
            family = results.COMPARISONS[name][0]
            yield {
                **{key: cell[key] for key in COLUMNS if key in cell},
                "comparison": name,
                "chosen": next(iter(cell["chosen"][family])),
                **{key: value for key, value in compared.items() if key in COLUMNS},
            }


def command_line(command: Command) -> str:
    """The command that repeats this one, where it lies and what it reads apart."""
    words = ["python", "-m", "experiments", "dial"]
    default = Command()
    for name, value in vars(command).items():
        if name in ("out", "data_dir", "resume") or value == getattr(default, name):
            continue
        given = value if isinstance(value, tuple) else (value,)
        words += ["--" + name.replace("_", "-"), *map(str, given)]
    return shlex.join(words)


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
