"""The report of a study: its numbers, its figures, and a page to read."""

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.errors import UserError
from experiments.study.report import cost as costs
from experiments.study.report import summary as summaries
from experiments.study.report.curves import curves, curves_csv
from experiments.study.report.figures import drawings
from experiments.study.report.page import page
from experiments.study.report.rows import COLUMNS, rows
from experiments.study.report.style import house_style, save_png
from experiments.study.results import Results


def write(results: Results, folder: Path) -> dict[str, Any]:
    """Write a study's report.

    `summary.json`, `table.csv` and `curves.csv` hold no times: they are the same to the byte
    wherever the study's trainings are. `cost.json` and `cost.csv` hold the times, `report.html` and
    `figures/` both.

    Args:
        results: of a finished study.
        folder: where the files go; made if it is not there.

    Returns:
        What summary.json holds.

    Raises:
        UserError: the folder cannot be written to.
    """
    found = summaries.summary(results)
    spent = costs.cost(results)
    bands = curves(results)
    try:
        (folder / "figures").mkdir(parents=True, exist_ok=True)
        _write(folder / "summary.json", _json(found))
        _write(folder / "table.csv", _csv(COLUMNS, rows(found)))
        _write(folder / "curves.csv", curves_csv(bands, list(found["tasks"])))
        _write(folder / "cost.json", _json(spent))
        _write(folder / "cost.csv", _csv(costs.COLUMNS, costs.rows(spent)))
        with house_style():
            drawn = list(drawings(found, spent, bands))
            for old in (folder / "figures").glob("*.png"):
                old.unlink()
            for drawing in drawn:
                save_png(drawing, folder / "figures")
            _write(folder / "report.html", page(found, spent, drawn))
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror or error}") from error
    return found


def _write(path: Path, text: str) -> None:
    path.write_bytes(text.encode())


def _json(found: Mapping[str, Any]) -> str:
    return json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()
