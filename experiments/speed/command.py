"""`speed`: what is measured, in which order, and where it is shown and kept."""

import dataclasses
import itertools
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

from experiments.errors import UserError
from experiments.speed import aggregation, cells, floor, report, seeds
from experiments.speed.cells import Cell
from experiments.speed.models import MODELS, Dtype
from experiments.speed.options import Options, parse
from experiments.speed.steps import all_strategies, make_method
from experiments.study.devices import choose
from jmtl.gradients import STRATEGIES, Strategy
from jmtl.methods import METHODS, nearest
from jmtl.train import records

Say = Callable[[str], None]


class Seeds(NamedTuple):
    """A measurement of seed-throughput, by `experiments.speed.seeds`."""

    model: str
    tasks: int
    seeds: tuple[int, ...]
    dtype: Dtype = "float32"
    rows: int | None = None
    method: str = "pcgrad"

    def __str__(self) -> str:
        """In a few words."""
        return f"{self.model}, K = {self.tasks}, seeds {', '.join(map(str, self.seeds))}"


class Stack(NamedTuple):
    """A measurement of aggregation alone, by `experiments.speed.aggregation`."""

    tasks: int
    parameters: int
    methods: tuple[str, ...]

    def __str__(self) -> str:
        """In a few words."""
        return f"aggregation, K = {self.tasks}, {self.parameters:,} parameters"


Item = Cell | Seeds | Stack

STUDY = Seeds("study", 2, (10,))
"""The recipe of MultiDigits, ten seeds of an arm at once, as a study trains them."""

COMPARED = ("pcgrad", "upgrad", "cagrad", "nash", "graddrop", "famo")

GPU: tuple[Item, ...] = (
    Cell("lenet", 2, ("pcgrad",)),
    Cell("resnet18", 3, ("pcgrad",), dtype="bfloat16", rows=128),
    Seeds("lenet", 2, (1, 8, 32, 128)),
    Cell("transformer", 3, ("pcgrad",), dtype="bfloat16", rows=64),
    Stack(8, 100_000_000, ("pcgrad", "upgrad", "cagrad", "nash", "graddrop")),
    STUDY,
    Seeds("mlp", 2, (1, 8, 32, 128)),
    Cell("resnet18", 8, COMPARED, dtype="bfloat16", rows=128),
    Cell("lenet", 8, COMPARED),
    Cell("lenet", 8, ("pcgrad",), all_strategies()),
    Cell("resnet18", 3, ("pcgrad",), all_strategies(), "bfloat16", 128),
    Cell("transformer", 8, ("pcgrad",), all_strategies(), "bfloat16", 64),
    Cell("mlp", 2, COMPARED),
    Cell("mlp", 8, COMPARED),
    Cell("lenet", 40, ("pcgrad",)),
    Cell("resnet18-64", 3, ("pcgrad",), dtype="bfloat16", rows=64),
    Cell("mlp", 40, COMPARED),
)
"""What is measured on a GPU, in order of weight: those left out for want of time are the last."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line of `python -m experiments.speed`; returns its exit code."""
    try:
        run(parse(sys.argv[1:] if arguments is None else arguments))
    except UserError as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return 0


def check(options: Options) -> None:
    """Refuse options in one line.

    Raises:
        UserError: a name that there is not, a number out of its range, peers without PyTorch, or
            a folder that cannot be written.
    """
    for flag, names, known in (
        ("model", options.models, MODELS),
        ("method", options.methods, METHODS),
        ("strategy", options.strategies, STRATEGIES),
    ):
        for name in names:
            if name not in known:
                raise UserError(f"unknown {flag} {name!r}: {nearest(name, known)}")
    for flag in ("tasks", "seeds", "aggregation", "repeats", "batch", "dispatch"):
        value = getattr(options, flag)
        numbers = value if isinstance(value, tuple) else () if value is None else (value,)
        if any(number < 1 for number in numbers):
            raise UserError(f"--{flag} must be at least 1, got {min(numbers)}")
    for flag in ("seconds", "minutes"):
        value = getattr(options, flag)
        if value is not None and not 0 < value < float("inf"):
            raise UserError(f"--{flag} must be positive, got {value:g}")
    for name, k in itertools.product(options.methods, options.tasks):
        try:
            batches = make_method(name, k).batches
        except ValueError as error:
            raise UserError(f"--methods {name}: {error}") from error
        if batches > 1:
            raise UserError(f"--methods {name}: it takes {batches} batches a step; not timed here")
    if options.peers:
        try:
            import torch  # noqa: F401
        except ImportError:
            raise UserError(
                "--peers needs PyTorch, which is not installed: pip install torch torchjd"
            ) from None
    if options.out is not None:
        try:
            records.check_writable(options.out)
        except records.OutputError as error:
            raise UserError(str(error)) from error


def plan(options: Options) -> tuple[Item, ...]:
    """What the options ask for, in order."""
    if options.preset == "gpu":
        return GPU
    strategies: tuple[Strategy, ...] = options.strategies or all_strategies()  # type: ignore[assignment]
    steps = options.dispatch
    items: list[Item] = [
        Cell(model, k, options.methods, strategies, options.dtype, options.batch, steps)
        for model, k in itertools.product(options.models, options.tasks)
    ]
    if options.seeds:
        items += [
            Seeds(model, min(options.tasks), options.seeds, options.dtype, options.batch)
            for model in options.models
        ]
        items.append(STUDY)
    items += [Stack(max(options.tasks), n, options.methods) for n in options.aggregation]
    return tuple(items)


def run(options: Options, say: Say | None = None) -> dict[str, Any]:
    """Measure, show, and keep; returns what speed.json holds.

    Args:
        options: of the command line.
        say: told how it goes, a line at a time; default: standard error.

    Raises:
        UserError: see `check`; or the disk is full.
    """
    if options.seeds:
        choose(None, None, None)  # a device a core
    check(options)
    say = say or (lambda text: print(text, file=sys.stderr, flush=True))
    found: dict[str, Any] = {**about(options), "steps": [], "seeds": [], "aggregation": []}
    notes: list[str] = found["notes"]

    def note(text: str) -> None:
        if text not in notes:
            notes.append(text)
            say(f"note: {text}")

    load, threads = found["load"], found["threads"]
    if load is not None and load > threads / 2:
        note(
            f"the machine was busy before this began (load {load:.1f} on {threads} threads): its "
            "times say little, and PyTorch's threads, which wait by spinning, say least "
            "(OMP_WAIT_POLICY=passive helps them)"
        )
    try:
        _measure(options, found, note, say)
        _finish(options, found, say)
    except records.OutputError as error:
        raise UserError(str(error)) from error
    return found


def about(options: Options) -> dict[str, Any]:
    """What a reader must know of the machine and of the command."""
    threads = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    peers = None
    if options.peers:
        from experiments import peers as module

        peers = module.prepare(threads or 1)
    return {
        "versions": records.versions(),
        "device": f"{jax.device_count()} × {jax.devices()[0].device_kind}",
        "backend": jax.default_backend(),
        "machine": platform.machine(),
        "threads": threads or 1,
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "peers": peers,
        # The folder is where this lies, on a machine of somebody's own.
        "options": dataclasses.asdict(dataclasses.replace(options, out=None)),
        "rates": {},
        "notes": [],
        "left_out": [],
    }


def _measure(options: Options, found: dict[str, Any], note: Say, say: Say) -> None:
    """Every item of the plan, in order, until the time is over."""
    limit = options.minutes or (8.0 if options.preset == "gpu" else float("inf"))
    began = time.perf_counter()
    rates: dict[str, floor.Rates] = {}
    passes: dict[Any, floor.Passes] = {}

    def rates_of(dtype: Dtype) -> floor.Rates:
        if dtype not in rates:
            rates[dtype] = floor.measure_rates(dtype)
            found["rates"][dtype] = rates[dtype]
            say(floor.shown(rates[dtype], dtype))
        return rates[dtype]

    def minutes() -> float:
        return (time.perf_counter() - began) / 60

    def late() -> bool:
        return minutes() > limit

    for item in plan(options):
        if late():
            found["left_out"].append(str(item))
            continue
        say(f"{minutes():5.1f} min  {item}")
        if isinstance(item, Cell):
            sizes = cells.sizes_of(item)
            kind = (item.model, sizes.rows, item.dtype)
            if kind not in passes:
                passes[kind] = floor.count_passes(sizes, item.dtype)
            found["steps"] += cells.measure(
                item,
                passes[kind],
                rates_of(item.dtype),
                options.repeats,
                options.seconds,
                options.peers,
                options.trace or options.preset == "gpu",
                note,
                late,
            )
        elif isinstance(item, Seeds):
            found["seeds"] += _seeds(options, item, note, late)
        else:
            found["aggregation"] += aggregation.measure(
                item.tasks,
                item.parameters,
                item.methods,
                rates_of("float32"),
                options.repeats,
                options.seconds,
            )
        found["minutes"] = round(minutes(), 2)
        if options.out is not None:
            records.write_json(options.out / "speed.json", found)


def _seeds(
    options: Options, item: Seeds, note: Say, late: Callable[[], bool]
) -> list[seeds.Throughput]:
    """The throughput of each number of seeds, with the PyTorch loop beside it."""
    cell = Cell(item.model, item.tasks, (item.method,), dtype=item.dtype, rows=item.rows)
    peer = None
    if options.peers:
        from experiments import peers

        made, _ = peers.peers(cells.peer_setting(cell), (item.method,))
        peer = next((one.run for one in made if one.source == "torch loop"), None)
    return seeds.measure(
        item.model,
        cells.sizes_of(cell),
        item.tasks,
        item.method,
        item.seeds,
        item.dtype,
        options.repeats,
        options.seconds,
        peer,
        note,
        late,
    )


def _finish(options: Options, found: dict[str, Any], say: Say) -> None:
    """Print the tables, draw the figure."""
    for rows, table in (
        (found["steps"], report.steps_table),
        (found["seeds"], report.seeds_table),
        (found["aggregation"], report.aggregation_table),
    ):
        if rows:
            report.show(table(rows))  # type: ignore[operator]
    where = f"{found['device']}, {found['threads']} threads, jax {jax.__version__}"
    where += f"; {found['peers']}" if found["peers"] else ""
    print(where)
    for dtype, rates in found["rates"].items():
        print(floor.shown(rates, dtype))
    for text in found["notes"]:
        print("note:", text)
    if found["left_out"]:
        print("left out, the time being over:", "; ".join(found["left_out"]))
    if options.out is not None:
        records.write_json(options.out / "speed.json", found)
        drawn = found["steps"] and report.draw(found["steps"], where, options.out / "speed.png")
        print(f"speed.json{' and speed.png' if drawn else ''}: {options.out}")
        if found["steps"] and not drawn:
            say("no figure: matplotlib is not installed")
