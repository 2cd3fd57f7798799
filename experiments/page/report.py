"""A report: files of numbers, figures, and the page that shows both."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from experiments.errors import UserError
from experiments.page.files import write_text
from experiments.page.style import Drawing, house_style, save_pngs


def write_report(
    folder: Path,
    files: Mapping[str, str],
    draw: Callable[[], Sequence[Drawing]],
    page: Callable[[Sequence[Drawing]], str],
) -> None:
    """Write a report's files, its figures into `figures/`, and `report.html`.

    Args:
        folder: where they go; made if it is not there.
        files: texts by name.
        draw: makes the figures; called in the page's style.
        page: the page as HTML, of the figures.

    Raises:
        UserError: the folder cannot be written to.
    """
    try:
        (folder / "figures").mkdir(parents=True, exist_ok=True)
        for name, text in files.items():
            write_text(folder / name, text)
        with house_style():
            drawn = draw()
            save_pngs(drawn, folder / "figures")
            write_text(folder / "report.html", page(drawn))
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror or error}") from error
