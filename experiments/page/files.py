"""The files of a report: what the page's numbers are in, as JSON and as CSV."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from experiments.errors import UserError


@contextmanager
def report_folder(folder: Path) -> Iterator[None]:
    """Make a folder with `figures/` in it; what cannot be written inside is a `UserError`."""
    try:
        (folder / "figures").mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror or error}") from error


def write_text(path: Path, text: str) -> None:
    """Write a text with the same bytes on every system."""
    path.write_bytes(text.encode())


def json_text(found: Mapping[str, Any]) -> str:
    """JSON, indented; a number that is not finite is refused."""
    return json.dumps(found, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def csv_text(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    """CSV with a head; what a row lacks is an empty cell."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()
