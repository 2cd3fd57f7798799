"""A trace of a few dispatches of a run: what device and host did when."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax

Run = Callable[[Any, int, int], Any]

FIRST, LAST = 2, 5
"""Dispatches, counted from 0, from the one to before the other: after those that compile."""


@contextlib.contextmanager
def traced(run: Run, folder: Path | None, note: Callable[[str], None]) -> Iterator[Run]:
    """`fit`'s run, of which a few dispatches are traced by JAX's profiler.

    Args:
        run: `(state, first step, number of steps) -> …`.
        folder: of the trace, for Perfetto (`perfetto_trace.json.gz`, https://ui.perfetto.dev) and
            for XProf; None for no trace.
        note: told where it lies, or that there were too few dispatches.

    Yields:
        The run to give to `fit`.
    """
    if folder is None:
        yield run
        return
    done, tracing = 0, False
    options = jax.profiler.ProfileOptions()
    options.python_tracer_level = 0  # every call of Python would bury what is looked for

    def stop() -> None:
        nonlocal tracing
        if tracing:
            tracing = False
            jax.profiler.stop_trace()

    def annotated(state: Any, first: int, steps: int) -> Any:
        nonlocal done, tracing
        if done == FIRST:
            jax.profiler.start_trace(folder, create_perfetto_trace=True, profiler_options=options)
            tracing = True
        elif done == LAST:
            stop()
        done += 1
        with jax.profiler.StepTraceAnnotation("dispatch", step_num=first):
            return run(state, first, steps)

    try:
        yield annotated
    finally:
        stop()
    if done > FIRST:
        note(f"a trace of dispatches {FIRST + 1} to {min(done, LAST)}: {folder}")
    else:
        note(f"no trace: it begins at dispatch {FIRST + 1}, and there were {done}")
