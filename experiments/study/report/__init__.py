"""The report of a study: its numbers, its figures, and a page to read."""

from functools import partial
from pathlib import Path
from typing import Any

from experiments.page.files import csv_text, json_text
from experiments.page.report import write_report
from experiments.study.report import cost as costs
from experiments.study.report import summary as summaries
from experiments.study.report.curves import curves, curves_csv
from experiments.study.report.figures import drawings
from experiments.study.report.page import page
from experiments.study.report.rows import COLUMNS, rows
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
    files = {
        "summary.json": json_text(found),
        "table.csv": csv_text(COLUMNS, rows(found)),
        "curves.csv": curves_csv(bands, list(found["tasks"])),
        "cost.json": json_text(spent),
        "cost.csv": csv_text(costs.COLUMNS, costs.rows(spent)),
    }
    write_report(
        folder, files, lambda: list(drawings(found, spent, bands)), partial(page, found, spent)
    )
    return found
