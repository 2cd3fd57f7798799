"""What `speed` found, as tables, and as a figure where matplotlib is."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments.speed.aggregation import Aggregation
from experiments.speed.cells import Row
from experiments.speed.seeds import Throughput

Table = tuple[str, Sequence[str], Sequence[Sequence[str]]]
"""A title, the columns, the cells by row."""

_WORDS = ("model", "dtype", "source", "method", "strategy")


def steps_table(rows: Sequence[Row]) -> Table:
    """Steps: a row a program."""
    columns = [
        *("model", "batch", "K", "dtype", "source", "method", "strategy", "ms a step"),
        *("quartiles", "÷ equal", "floor ms", "÷ floor", "MB", "compile s"),
    ]
    traced = any(row.transfers is not None for row in rows)
    cells = []
    for row in rows:
        cells.append(
            [
                row.model,
                str(row.batch),
                str(row.tasks),
                row.dtype,
                row.source,
                row.method,
                row.strategy,
                digits(row.milliseconds),
                f"{digits(row.low)} to {digits(row.high)}",
                digits(row.of_equal),
                digits(row.floor),
                digits(row.of_floor),
                digits(row.megabytes),
                digits(row.compile_seconds),
                *([digits(row.transfers)] if traced else []),
            ]
        )
    return "training steps", [*columns, *(["host copies"] if traced else [])], cells


def seeds_table(rows: Sequence[Throughput]) -> Table:
    """Seed-throughput: a row a number of seeds."""
    columns = [
        *(
            "model",
            "K",
            "dtype",
            "method",
            "seeds",
            "devices",
            "vmap",
            "one by one",
            "time ÷ one by one",
        ),
        *("torch loop", "÷ torch loop"),
    ]
    cells = [
        [
            row.model,
            str(row.tasks),
            row.dtype,
            row.method,
            str(row.seeds),
            str(row.devices),
            digits(row.vmap),
            digits(row.alone),
            digits(row.ratio),
            digits(row.torch),
            digits(row.vmap / row.torch),
        ]
        for row in rows
    ]
    return "trainings × steps a second", columns, cells


def aggregation_table(rows: Sequence[Aggregation]) -> Table:
    """Aggregation alone: a row a method."""
    columns = ["method", "K", "parameters", "ms", "quartiles", "reading ms", "÷ reading", "MB"]
    cells = [
        [
            row.method,
            str(row.tasks),
            f"{row.parameters:,}",
            digits(row.milliseconds),
            f"{digits(row.low)} to {digits(row.high)}",
            digits(row.reading),
            digits(row.of_reading),
            digits(row.megabytes),
        ]
        for row in rows
    ]
    return "aggregation alone", columns, cells


def digits(value: float | None) -> str:
    """A number with three digits that count; nothing where there is none."""
    if value is None or not math.isfinite(value):
        return ""
    if value == 0:
        return "0"
    places = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(places, 4)}f}"


def plain(table: Table) -> str:
    """A table in aligned text."""
    title, columns, cells = table
    lines = [list(columns), *map(list, cells)]
    wide = [max(len(line[i]) for line in lines) for i in range(len(columns))]
    left = [name in _WORDS for name in columns]

    def text(line: Sequence[str]) -> str:
        padded = (
            cell.ljust(width) if is_left else cell.rjust(width)
            for cell, width, is_left in zip(line, wide, left, strict=True)
        )
        return "  ".join(padded).rstrip()

    head, *body = map(text, lines)
    return "\n".join([title, head, "-" * max(map(len, [head, *body])), *body])


def show(table: Table) -> None:
    """Print a table: by rich, or as plain text where rich is not installed."""
    try:
        from rich import box
        from rich.console import Console
        from rich.table import Table as RichTable
    except ImportError:
        print(plain(table) + "\n")
        return
    title, columns, cells = table
    found = RichTable(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in columns:
        found.add_column(name, justify="left" if name in _WORDS else "right", no_wrap=True)
    for line in cells:
        found.add_row(*line)
    # A terminal or a file that is narrower would cut columns off.
    width = max(Console().width, Console(width=1000).measure(found).maximum)
    Console(width=width, soft_wrap=True).print(found)


def draw(rows: Sequence[Row], about: str, path: Path) -> bool:
    """Draw the steps, a panel a cell, the floor as a line; False where matplotlib is missing.

    Args:
        rows: of all cells.
        about: the machine, below the panels.
        path: of the PNG.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return False
    cells: dict[tuple[Any, ...], list[Row]] = {}
    for row in rows:
        cells.setdefault((row.model, row.tasks, row.batch, row.dtype), []).append(row)
    across = min(2, len(cells))
    down = -(-len(cells) // across)
    panels = list(cells.items())
    heights = [
        max(len(found) for _, found in panels[i * across : (i + 1) * across]) for i in range(down)
    ]
    inches = [0.7 + 0.19 * height for height in heights]
    figure = Figure(figsize=(5.2 * across, sum(inches) + 0.3), dpi=130, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(down, across, squeeze=False, height_ratios=inches)
    for axis in axes.flat[len(panels) :]:
        axis.set_axis_off()
    for axis, ((model, k, batch, dtype), found) in zip(axes.flat, panels, strict=False):
        _panel(axis, found)
        axis.set_title(f"{model}, K = {k}, batch {batch}, {dtype}", fontsize=8, loc="left")
    figure.supxlabel(
        f"ms a step, median and quartiles, logarithmic; black: the floor\n{about}",
        fontsize=7,
        color="#444444",
    )
    figure.savefig(path)
    return True


_COLOURS = {"jmtl": "#1f6fb4", "torch": "#e07b39", "torch loop": "#e07b39"}


def _panel(axis: Any, rows: Sequence[Row]) -> None:
    """One cell: a point a program and the line of its quartiles, on a logarithmic scale."""
    from matplotlib.ticker import LogLocator

    names = [
        f"{row.method} {row.strategy if row.source == 'jmtl' else row.source}".replace(" auto", "")
        for row in rows
    ]
    places = range(len(rows))
    for place, row in zip(places, rows, strict=True):
        colour = _COLOURS.get(row.source, "#b05a9c")
        axis.plot([row.low, row.high], [place] * 2, color=colour, linewidth=1.2, alpha=0.6)
        axis.plot(row.milliseconds, place, "o", color=colour, markersize=4)
        axis.plot([row.floor] * 2, [place - 0.4, place + 0.4], color="black", linewidth=1.4)
        where = (max(row.high, row.floor), place)
        axis.annotate(
            digits(row.milliseconds), where, (4, 0), textcoords="offset points", va="center", size=6
        )
    axis.set_yticks(list(places), names, fontsize=6.5)
    axis.invert_yaxis()
    axis.set_xscale("log")
    least = min(min(row.low, row.floor) for row in rows)
    most = max(max(row.high, row.floor) for row in rows)
    axis.set_xlim(0.8 * least, most * (most / least) ** 0.12 * 1.1)
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(lambda x, _: digits(x))
    axis.xaxis.set_minor_formatter(lambda x, _: "")
    axis.grid(axis="x", color="#e4e4e4", linewidth=0.6)
    axis.tick_params(axis="x", labelsize=6.5)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
