"""Programs timed in turn, so that a noisy machine disturbs all of them alike."""

import statistics
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

Run = Callable[[int], None]
"""Runs a program n times, and returns when all of it is done."""


class Spread(NamedTuple):
    """Seconds a run of one program over the rounds.

    Attributes:
        median: of all rounds.
        best: the least of all.
        low: the first quartile.
        high: the third quartile.
    """

    median: float
    best: float
    low: float
    high: float


def interleaved(runs: Sequence[Run], repeats: int, seconds: float) -> list[Spread]:
    """Time programs in turn.

    Args:
        runs: the programs.
        repeats: rounds; each times every program once.
        seconds: the least that one timing lasts, by running a short program many times.

    Returns:
        For each program the seconds that one run takes.
    """
    counts = []
    for run in runs:
        run(1)  # loads the program
        began = time.perf_counter()
        run(1)
        counts.append(max(1, int(seconds / (time.perf_counter() - began)) + 1))
    took: list[list[float]] = [[] for _ in runs]
    for _ in range(repeats):
        for i, (run, count) in enumerate(zip(runs, counts, strict=True)):
            if count > 1:
                run(1)  # its own data in the caches, its own threads awake
            began = time.perf_counter()
            run(count)
            took[i].append((time.perf_counter() - began) / count)
    return [spread(times) for times in took]


def spread(times: Sequence[float]) -> Spread:
    """The median, the least and the quartiles of one or more times."""
    if len(times) == 1:
        return Spread(times[0], times[0], times[0], times[0])
    low, median, high = statistics.quantiles(times, n=4, method="inclusive")
    return Spread(median, min(times), low, high)
