"""The loop: many steps a dispatch, metrics read one dispatch behind, checkpoints on the way."""

import time
from collections.abc import Callable, Collection, Iterator
from typing import NamedTuple

import jax
import numpy as np

from jmtl.train.state import TrainState
from jmtl.train.step import StepMetrics


class Dispatched(NamedTuple):
    """What came back from one dispatch.

    Attributes:
        step: updates done by its end.
        steps: how many of them it did.
        metrics: `StepMetrics` of NumPy arrays with a leading axis of `steps`.
        seconds: from the end of the dispatch before it to the end of this one.
    """

    step: int
    steps: int
    metrics: StepMetrics
    seconds: float


class TrainingFailed(Exception):
    """A loss or a gradient stopped being finite.

    Attributes:
        step: the step, counted from 0, whose update was refused.
        task: the position of the task, K where no single task is to blame.
    """

    def __init__(self, step: int, task: int) -> None:
        super().__init__(f"step {step}: task number {task} is not finite")
        self.step = step
        self.task = task


def dispatches(start: int, stop: int, every: int) -> Iterator[tuple[int, int]]:
    """(first step, number of steps) of each dispatch: all end on multiples of `every`, or at stop.

    Counted from step 0 wherever `start` is, so that a resumed run repeats the same programs.
    """
    while start < stop:
        steps = min(every - start % every, stop - start)
        yield start, steps
        start += steps


def fit(
    state: TrainState,
    run: Callable[[TrainState, int, int], tuple[TrainState, StepMetrics]],
    *,
    start: int,
    stop: int,
    every: int,
    report: Callable[[Dispatched], None],
    save: Callable[[int, TrainState], None],
    save_every: int,
    look: Callable[[int, TrainState], None] = lambda step, state: None,
    look_at: Collection[int] = (),
) -> TrainState:
    """Train from step `start` to step `stop`.

    Args:
        state: placed on the devices, at step `start`; donated.
        run: `(state, first step, number of steps) -> (state, metrics [steps, ...])`; may return
            before the device is done.
        start: the first step.
        stop: the step to end before.
        every: steps a dispatch.
        report: called with each dispatch's metrics, after the next one has been started.
        save: called with (step, state) at multiples of `save_every`, at `stop`, and at the last
            multiple of `every` before it, from which a longer run can go on; the state is donated
            after it returns.
        save_every: a multiple of `every`.
        look: called with (step, state) at the steps of `look_at`, before `save`; the state is
            donated after it returns. What it takes counts in no dispatch's seconds.
        look_at: ends of dispatches.

    Returns:
        The state at `stop`.

    Raises:
        TrainingFailed: once a dispatch has shown a failure; nothing is saved from there on.
    """
    pending: tuple[int, int, StepMetrics] | None = None
    last = time.perf_counter()

    def settle() -> None:
        nonlocal last, pending
        if pending is None:
            return
        end, steps, metrics = pending
        pending = None
        fetched = jax.tree.map(np.asarray, metrics)  # waits for the device
        now = time.perf_counter()
        report(Dispatched(end, steps, fetched, now - last))
        last = now
        step, task = fetched.failed[-1]
        if step >= 0:
            raise TrainingFailed(int(step), int(task))

    for first, steps in dispatches(start, stop, every):
        state, metrics = run(state, first, steps)
        settle()
        end = first + steps
        pending = (end, steps, metrics)
        if end in look_at:
            settle()
            look(end, state)
            last = time.perf_counter()
        if end % save_every == 0 or stop - end < every:
            settle()
            save(end, state)
    return state
