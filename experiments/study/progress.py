"""A study's live progress: a bar over all updates, and which program runs."""

import contextlib
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from experiments.study.run import Watcher


@contextlib.contextmanager
def progress(console: Console) -> Iterator[Watcher]:
    """A bar on a terminal; elsewhere a line a call."""
    total = done = 0

    def plain_began(programs: int, updates: int) -> None:
        nonlocal total
        total = updates
        console.print(f"{programs} programs, {updates:,} updates", highlight=False)

    def plain_stepped(updates: int) -> None:
        nonlocal done
        done += updates

    def plain_entered(program: str, call: int, calls: int) -> None:
        part = f", call {call + 1} of {calls}" if calls > 1 else ""
        console.print(f"{done / max(total, 1):4.0%} {program}{part}", highlight=False)

    if not console.is_terminal:
        yield Watcher(plain_began, plain_entered, plain_stepped, console.print)
        return
    with Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=30),
        TaskProgressColumn(),
        TextColumn("{task.completed:,.0f} updates"),
        TimeRemainingColumn(compact=True),
        console=console,
    ) as bars:
        bar = bars.add_task("study", total=None)

        def entered(program: str, call: int, calls: int) -> None:
            part = f" {call + 1}/{calls}" if calls > 1 else ""
            bars.update(bar, description=f"{program}{part}")

        yield Watcher(
            lambda programs, updates: bars.update(bar, total=updates),
            entered,
            lambda updates: bars.advance(bar, updates),
            bars.console.print,
        )
