"""What a person sees: live progress and tables, with rich."""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table

from experiments.config import RunConfig
from experiments.run import Watcher


@contextlib.contextmanager
def progress(console: Console) -> Iterator[Callable[[str], Watcher]]:
    """Live bars, one a run: step, losses, conflict rate, examples a second.

    Where the console is no terminal, a line is printed at every tenth of a run instead.

    Yields:
        A function that adds a bar of a name and returns its watcher.
    """
    if console.is_terminal:
        with Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=20),
            TaskProgressColumn(),
            TextColumn("{task.fields[line]}"),
            TimeRemainingColumn(compact=True),
            console=console,
        ) as bars:
            yield lambda name: _live(bars, name)
    else:
        yield lambda name: _plain(console, name)


def _live(bars: Progress, name: str) -> Watcher:
    bar = bars.add_task(name, total=None, line="waiting")

    def began(config: RunConfig, start: int) -> None:
        bars.update(bar, total=config.steps, completed=start, line="compiling")

    def logged(record: Mapping[str, Any]) -> None:
        bars.update(bar, completed=record["step"], line=line(record))

    return Watcher(began, logged, lambda text: bars.console.print(f"{name}: {text}"))


def _plain(console: Console, name: str) -> Watcher:
    total = next_line = 0

    def began(config: RunConfig, start: int) -> None:
        nonlocal total, next_line
        total = config.steps
        next_line = start + total // 10
        console.print(f"{name}: from step {start} to {total}", highlight=False)

    def logged(record: Mapping[str, Any]) -> None:
        nonlocal next_line
        if record["step"] >= min(next_line, total):
            next_line = record["step"] + total // 10
            console.print(f"{name}: {line(record)}", highlight=False, soft_wrap=True)

    return Watcher(began, logged, lambda text: console.print(f"{name}: {text}", soft_wrap=True))


def line(record: Mapping[str, Any]) -> str:
    """A logged step in one line."""
    losses = "  ".join(f"{task} {value:.3f}" for task, value in record["losses"].items())
    return (
        f"step {record['step']:,}  loss {losses}  conflict {record['conflict_rate']:.0%}  "
        f"{record['examples_per_second']:,.0f} examples/s"
    )


def scores_table(title: str, scores: Mapping[str, Mapping[str, Mapping[str, float]]]) -> Table:
    """Task × metric, a column for each method.

    Args:
        title: above the table.
        scores: by method, by task, metrics by name.
    """
    first = next(iter(scores.values()))
    table = Table(title=title, title_justify="left")
    table.add_column("task")
    table.add_column("metric")
    for method in scores:
        table.add_column(method, justify="right")
    for task, metrics in first.items():
        for i, metric in enumerate(metrics):
            cells = [_number(by_task[task].get(metric)) for by_task in scores.values()]
            last = i == len(metrics) - 1
            table.add_row("" if i else task, metric, *cells, end_section=last)
    return table


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"
