"""Where dispatches lie, what is saved when, and that metrics are read one dispatch behind."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jmtl.train.loop import TrainingFailed, dispatches, fit
from jmtl.train.step import StepMetrics


@given(st.integers(0, 50), st.integers(0, 50), st.integers(1, 12))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_dispatches_cover_every_step_once_and_end_on_multiples(start, more, every):
    stop = start + more
    found = list(dispatches(start, stop, every))
    assert [t for first, steps in found for t in range(first, first + steps)] == list(
        range(start, stop)
    )
    for first, steps in found:
        assert 1 <= steps <= every
        assert (first + steps) % every == 0 or first + steps == stop


@given(st.integers(1, 40), st.integers(1, 9), st.integers(0, 5))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_a_run_continued_at_a_multiple_repeats_the_same_dispatches(stop, every, at):
    middle = min(at * every, stop - stop % every)
    whole = list(dispatches(0, stop, every))
    assert whole == [*dispatches(0, middle, every), *dispatches(middle, stop, every)]


class Trace:
    """A device that counts: what was run, reported and saved, in order."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.events: list[Any] = []
        self.fails_at = fails_at

    def run(self, state: int, first: int, steps: int) -> tuple[int, StepMetrics]:
        assert state == first
        self.events.append(("run", first + steps))
        ends = np.arange(first, first + steps)
        failed = np.full((steps, 2), -1)
        if self.fails_at is not None:
            failed[ends >= self.fails_at] = (self.fails_at, 1)
        blank = np.zeros(steps)
        return state + steps, StepMetrics(blank, blank, blank, blank, blank, blank, failed)

    def fit(
        self, start: int, stop: int, every: int, save_every: int, look_at: tuple[int, ...] = ()
    ) -> int:
        return fit(
            start,  # type: ignore[arg-type]
            self.run,  # type: ignore[arg-type]
            start=start,
            stop=stop,
            every=every,
            report=lambda done: self.events.append(("report", done.step)),
            save=lambda step, state: self.events.append(("save", step, state)),
            save_every=save_every,
            look=lambda step, state: self.events.append(("look", step, state)),
            look_at=look_at,
        )  # type: ignore[return-value]


def test_metrics_are_read_after_the_next_dispatch_has_started():
    trace = Trace()
    assert trace.fit(0, 40, every=10, save_every=40) == 40
    assert trace.events == [
        ("run", 10),
        ("run", 20),
        ("report", 10),
        ("run", 30),
        ("report", 20),
        ("run", 40),
        ("report", 30),
        ("report", 40),
        ("save", 40, 40),
    ]


def test_saves_lie_on_multiples_and_at_the_end():
    trace = Trace()
    trace.fit(10, 57, every=10, save_every=20)
    assert [event for event in trace.events if event[0] == "save"] == [
        ("save", 20, 20),
        ("save", 40, 40),
        ("save", 50, 50),  # a longer run goes on from here
        ("save", 57, 57),
    ]
    assert [event[1] for event in trace.events if event[0] == "report"] == [20, 30, 40, 50, 57]


def test_looks_are_after_the_metrics_of_their_step_and_before_what_is_saved():
    trace = Trace()
    trace.fit(0, 30, every=10, save_every=20, look_at=(10, 20))
    assert trace.events == [
        ("run", 10),
        ("report", 10),
        ("look", 10, 10),
        ("run", 20),
        ("report", 20),
        ("look", 20, 20),
        ("save", 20, 20),
        ("run", 30),
        ("report", 30),
        ("save", 30, 30),
    ]
    refused = Trace(fails_at=15)
    with pytest.raises(TrainingFailed):
        refused.fit(0, 30, every=10, save_every=30, look_at=(10, 20))
    assert [event for event in refused.events if event[0] == "look"] == [("look", 10, 10)]


@pytest.mark.parametrize("fails_at", [0, 9, 15, 20, 39])
def test_nothing_is_saved_from_a_failure_on(fails_at):
    trace = Trace(fails_at)
    with pytest.raises(TrainingFailed) as failure:
        trace.fit(0, 60, every=10, save_every=20)
    assert (failure.value.step, failure.value.task) == (fails_at, 1)
    saved = [event[1] for event in trace.events if event[0] == "save"]
    assert saved == list(range(20, fails_at + 1, 20))
    reported = [event[1] for event in trace.events if event[0] == "report"]
    assert reported == list(range(10, 10 * (fails_at // 10 + 1) + 1, 10))


def test_nothing_left_to_do():
    trace = Trace()
    assert trace.fit(30, 30, every=10, save_every=10) == 30
    assert trace.events == []


def test_seconds_add_up():
    seconds = []

    def slow(state, first, steps):
        return state + steps, Trace().run(first, first, steps)[1]

    fit(
        0,  # type: ignore[arg-type]
        slow,  # type: ignore[arg-type]
        start=0,
        stop=30,
        every=10,
        report=lambda done: seconds.append(done.seconds),
        save=lambda step, state: None,
        save_every=30,
    )
    assert len(seconds) == 3
    assert all(0 <= s < 1 for s in seconds)
