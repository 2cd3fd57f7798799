"""Runs of a tiny model on arrays in memory, whose compiled programs are shared between runs."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments import run
from experiments.config import RunConfig

CONFIG = RunConfig(
    problem="multi_digits",
    method="pcgrad",
    method_options={"pcgrad": {}},
    seed=0,
    steps=35,
    batch_size=16,
    optimizer="adam",
    learning_rate=1e-2,
    weight_decay=0.0,
    encoder="mlp",
    encoder_options={"hidden": [8], "dropout": 0.3},
    head_options={},
    strategy="auto",
    at="parameters",
    input="resident",
    steps_per_dispatch=10,
    checkpoint_every=10,
    measure_every=0,
    devices=1,
    parallel="jit",
)

_PROGRAMS: dict[Any, Any] = {}
_STATES: dict[Any, Any] = {}


class Digits:
    """A split of noise in the shape of MultiDigits."""

    def __init__(self, n: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.arrays = {
            "image": rng.integers(0, 17, (n, 10, 10)).astype(np.uint8),
            "left": rng.integers(0, 10, n).astype(np.int32),
            "right": rng.integers(0, 10, n).astype(np.int32),
        }

    def __len__(self) -> int:
        return len(self.arrays["left"])

    def __getitems__(self, keys: Sequence[int]) -> list[dict[str, Any]]:
        return [{name: values[k] for name, values in self.arrays.items()} for k in keys]


SPLITS = {"train": Digits(300, 0), "test": Digits(50, 1)}


def install(monkeypatch: Any, shared: bool = True, splits: Any = SPLITS) -> None:
    """Runs read `splits`; with `shared`, runs that differ in no program compile it once."""
    monkeypatch.setattr(run, "open_splits", lambda problem, data_dir: splits.__getitem__)
    if not shared:
        return
    shells, states, runners = run.shell, run.state_of, run._runner
    of_run: list[Any] = [None]

    def runner(config: RunConfig, *rest: Any) -> Any:
        of_run[0] = dataclasses.replace(config, steps=0, checkpoint_every=0)
        return runners(config, *rest)

    def shell(*given: Any) -> Any:
        on = shells(*given)

        def compile_(step: Any, to_batch: Any, state: Any, feed: Any, steps: int, rows: Any) -> Any:
            key = (repr(of_run[0]), steps)
            if key not in _PROGRAMS:
                _PROGRAMS[key] = on.compile(step, to_batch, state, feed, steps, rows)
            return _PROGRAMS[key]

        return on._replace(compile=compile_)

    def state_of(config: RunConfig, *rest: Any) -> Any:
        *rest, on_devices = rest
        if config.model_parallel > 1:
            return states(config, *rest, on_devices)
        key = repr(dataclasses.replace(config, steps=0, checkpoint_every=0))
        if key not in _STATES:
            _STATES[key] = states(config, *rest)
        return on_devices.place(_STATES[key])

    monkeypatch.setattr(run, "_runner", runner)
    monkeypatch.setattr(run, "shell", shell)
    monkeypatch.setattr(run, "state_of", state_of)
    monkeypatch.setattr(run, "scorer", lambda *args: lambda *args: {})


class Stopped(Exception):
    """What a watcher raises to end a run."""


def train(
    config: RunConfig, folder: Path, resume: bool = False, stop_at: int | None = None
) -> tuple[dict[str, Any] | None, list[str]]:
    """The run's summary, None if it was stopped at a record; and what it told the person."""
    notes: list[str] = []

    def logged(record: Any) -> None:
        if record["step"] == stop_at:
            raise Stopped

    watcher = run.Watcher(logged=logged, note=notes.append)
    try:
        summary = run.train(config, folder, data_dir=Path("unused"), resume=resume, watcher=watcher)
    except Stopped:
        return None, notes
    assert json.loads((folder / "summary.json").read_text()) == summary
    return summary, notes


def left_behind(folder: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The summary and the metrics of a run, without times: the same whatever happened to it."""
    summary = json.loads((folder / "summary.json").read_text())
    del summary["seconds"]
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    for line in lines:
        assert line.pop("examples_per_second") > 0
    return summary, lines


def contents(folder: Path) -> dict[str, bytes]:
    """Every file under a folder."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
