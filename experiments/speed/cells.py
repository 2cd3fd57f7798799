"""A cell of the table: a model with K tasks, all its methods, strategies and peers, interleaved."""

import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

import jmtl
from experiments.speed.clock import Run, Spread, interleaved
from experiments.speed.floor import Passes, Rates, floor, parts
from experiments.speed.models import MODELS, Dtype, Sizes, build, draw, to_batch
from experiments.speed.steps import Program, compile_steps, make_method, strategies_of
from jmtl.gradients import Strategy
from jmtl.train.state import init_params

STEPS = 10
"""Of a dispatch, unless the command says another number: `train` has a hundred."""


class Cell(NamedTuple):
    """What is timed side by side.

    Attributes:
        model: a name in `MODELS`.
        tasks: K.
        methods: names; equal weights are always there.
        strategies: how task gradients are computed.
        dtype: what the model computes in.
        rows: examples a step; None is the model's own number.
        steps: of a dispatch.
    """

    model: str
    tasks: int
    methods: tuple[str, ...]
    strategies: tuple[Strategy, ...] = ("auto",)
    dtype: Dtype = "float32"
    rows: int | None = None
    steps: int = STEPS

    def __str__(self) -> str:
        """The cell in a few words."""
        return f"{self.model}, K = {self.tasks}, batch {sizes_of(self).rows}, {self.dtype}"


class Row(NamedTuple):
    """One program's cost.

    Attributes:
        model: a name in `MODELS`.
        batch: examples a step.
        tasks: K.
        dtype: what the model computes in.
        source: "jmtl", or the way of a PyTorch peer.
        method: its name.
        strategy: how its task gradients are computed; "" for peers.
        milliseconds: the median step.
        low: its first quartile.
        high: its third quartile.
        of_equal: over jmtl's equal-weights step.
        floor: milliseconds that the step cannot be faster than.
        of_floor: the median over the floor.
        megabytes: temporaries and outputs of the compiled step; on a GPU, PyTorch's peak beside
            parameters and optimiser; NaN where unknown.
        compile_seconds: tracing and compiling; NaN for peers.
        transfers: copies between host and device in a step as the profiler saw them; None where
            it was not asked, or nothing runs apart from the host.
        parts: milliseconds of the floor, by part.
    """

    model: str
    batch: int
    tasks: int
    dtype: str
    source: str
    method: str
    strategy: str
    milliseconds: float
    low: float
    high: float
    of_equal: float
    floor: float
    of_floor: float
    megabytes: float
    compile_seconds: float
    transfers: float | None
    parts: dict[str, float]


class Timed(NamedTuple):
    """A program of a cell before it is timed: a `Row` without its times, and the steps of a run."""

    source: str
    method: str
    strategy: str
    run: Run
    megabytes: float
    compile_seconds: float
    transfers: float | None
    steps: int = 1


def sizes_of(cell: Cell) -> Sizes:
    """The model's sizes with the cell's number of rows."""
    sizes = MODELS[cell.model]
    return sizes if cell.rows is None else sizes._replace(rows=cell.rows)


def measure(
    cell: Cell,
    passes: Passes,
    rates: Rates,
    repeats: int,
    seconds: float,
    with_peers: bool,
    trace: bool,
    say: Callable[[str], None],
    late: Callable[[], bool] = lambda: False,
) -> list[Row]:
    """Compile and time everything in a cell.

    Args:
        cell: what to time.
        passes: of the model, as the cell has it.
        rates: of the machine, in the cell's dtype.
        repeats: rounds.
        seconds: the least that one timing lasts.
        with_peers: whether PyTorch is timed too.
        trace: whether a profiler counts copies between host and device.
        say: told what cannot be measured.
        late: whether the time is over: then nothing more is compiled.
    """
    built = build(sizes_of(cell), cell.tasks, cell.dtype)
    timed: list[Timed] = []
    for name in dict.fromkeys(("equal", *cell.methods)):
        method = make_method(name, cell.tasks)
        for strategy in strategies_of(method, cell.strategies):
            if timed and late():
                say(f"{cell}: {name} {strategy}: left out, the time being over")
                continue
            try:
                program = compile_steps(built, method, strategy, cell.steps)
                program.run(1)
            except jax.errors.JaxRuntimeError as error:  # no memory, above all
                say(f"{cell}: {name} {strategy}: {str(error).splitlines()[0][:120]}")
                continue
            timed.append(_timed(name, strategy, program, trace))
    if with_peers:
        timed += _peers(cell, say)
    taken = interleaved([one.run for one in timed], repeats, seconds)
    times = [Spread(*(x / one.steps for x in time)) for one, time in zip(timed, taken, strict=True)]
    return rows(cell, passes, rates, timed, times)


def _timed(method: str, strategy: str, program: Program, trace: bool) -> Timed:
    copies = transfers(program.run) if trace else None
    return Timed(
        "jmtl",
        method,
        strategy,
        program.run,
        program.megabytes,
        program.compile_seconds,
        copies if copies is None else copies / program.steps,
        program.steps,
    )


def _peers(cell: Cell, say: Callable[[str], None]) -> list[Timed]:
    from experiments import peers

    setting = peer_setting(cell)
    found, notes = peers.peers(setting, tuple(dict.fromkeys(("equal", *cell.methods))))
    for note in notes:
        say(note)
    timed = []
    for peer in found:
        try:
            peer.run(1)
            memory = peers.megabytes(peer)
        except Exception as error:  # theirs must not end ours
            say(f"{cell}: {peer.source} {peer.method}: {' '.join(str(error).split())[:120]}")
            continue
        nan = float("nan")
        timed.append(Timed(peer.source, peer.method, "", peer.run, memory, nan, None))
    return timed


def peer_setting(cell: Cell) -> Any:
    """What PyTorch begins from: jmtl's parameters and batch."""
    from experiments import peers

    sizes = sizes_of(cell)
    built = build(sizes, cell.tasks, cell.dtype)
    raw = draw(sizes, cell.tasks)
    inputs = to_batch(sizes, built.tasks, raw).inputs
    params, _ = init_params(jax.random.key(1), built.net, inputs)
    return peers.Setting(
        sizes, cell.tasks, params, np.asarray(inputs), np.asarray(raw["labels"]), cell.dtype
    )


def rows(
    cell: Cell, passes: Passes, rates: Rates, timed: Sequence[Timed], times: Sequence[Spread]
) -> list[Row]:
    """The table's rows of a cell; its first program is the step with equal weights."""
    found = []
    for one, time in zip(timed, times, strict=True):
        method: jmtl.Method = make_method(one.method, cell.tasks)
        least = floor(parts(passes, cell.tasks, method), rates)
        total = sum(least.values())
        found.append(
            Row(
                model=cell.model,
                batch=sizes_of(cell).rows,
                tasks=cell.tasks,
                dtype=cell.dtype,
                source=one.source,
                method=one.method,
                strategy=one.strategy,
                milliseconds=1e3 * time.median,
                low=1e3 * time.low,
                high=1e3 * time.high,
                of_equal=time.median / times[0].median,
                floor=1e3 * total,
                of_floor=time.median / total,
                megabytes=one.megabytes,
                compile_seconds=one.compile_seconds,
                transfers=one.transfers,
                parts={name: 1e3 * part for name, part in least.items()},
            )
        )
    return found


def transfers(run: Run, times: int = 4) -> float | None:
    """Copies between host and device in a run, from a profiler's trace; None on a CPU."""
    if jax.default_backend() == "cpu":
        return None
    with tempfile.TemporaryDirectory() as folder:
        with jax.profiler.trace(folder):
            run(times)
        found = [
            jax.profiler.ProfileData.from_file(str(path))
            for path in Path(folder).rglob("*.xplane.pb")
        ]
        planes = [plane for profile in found for plane in profile.planes]
        names = [
            event.name
            for plane in planes
            if plane.name.startswith("/device:")
            for line in plane.lines
            for event in line.events
        ]
    # Nothing at all is a profiler that may not look.
    return sum(1 for name in names if _COPY.search(name)) / times if names else None


_COPY = re.compile(r"memcpy\W*(h2d|d2h|htod|dtoh)", re.IGNORECASE)
