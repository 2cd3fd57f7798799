"""A study from its configuration to its files: finished calls are kept, and not run again."""

import contextlib
import dataclasses
import io
import json
import os
import shutil
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from experiments.across import place
from experiments.config import find_problem
from experiments.errors import UserError
from experiments.problem import Problem
from experiments.study import training
from experiments.study.call import setting_of, timed_beside, told_of, train_call
from experiments.study.config import (
    AUTO,
    SHIFT,
    Program,
    StudyConfig,
    calls,
    from_json,
    programs,
)
from experiments.study.data import Data, open_data
from experiments.study.results import BESIDE, call_path, read_call
from experiments.study.training import Common, Compiled
from experiments.study.width import fitting
from jmtl.train import checkpoint, records


class Watcher(NamedTuple):
    """Who is told about a study while it goes on.

    Attributes:
        began: `(programs, updates of all trainings)`.
        entered: `(program, call, calls)`; before a call of a program.
        stepped: `(updates done, all trainings of the study together)`.
        note: `(text)`, something that the person should know.
    """

    began: Callable[[int, int], None] = lambda programs, updates: None
    entered: Callable[[str, int, int], None] = lambda program, call, calls: None
    stepped: Callable[[int], None] = lambda updates: None
    note: Callable[[str], None] = lambda text: None


def study(
    config: StudyConfig,
    folder: Path,
    *,
    data_dir: Path,
    resume: bool,
    watcher: Watcher,
    about: Mapping[str, Any],
) -> None:
    """Run what is not there yet of a study.

    Args:
        config: checked by `check`.
        folder: of the study; holds nothing, or with `resume` this study.
        data_dir: of all data sets.
        resume: continue the study in `folder`.
        watcher: who is told.
        about: kept in study.json beside the configuration: `command`, `not_served`.

    Raises:
        UserError: one line, before anything is written where that is possible.
    """
    check(config)
    problem = find_problem(config.problem)
    config = made_for(config, folder, resume)
    data = open_data(problem, data_dir, config.devices)
    if config.width == AUTO:
        width = fitting(config, programs(config), problem, data)
        config = dataclasses.replace(config, width=width)
    try:
        _write_plan(config, folder, data, about)
        _run(config, problem, folder, data, watcher)
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror or error}") from error
    except (records.OutputError, checkpoint.CheckpointError) as error:
        raise UserError(str(error)) from error


def check(config: StudyConfig) -> None:
    """Refuse a study that cannot be run."""
    if not config.seeds:
        raise UserError("--seeds: give at least one seed, as 0-9 or 0 1 2")
    if len(set(config.seeds)) != len(config.seeds):
        raise UserError(f"--seeds: {sorted(config.seeds)} has a seed twice")
    if min(config.seeds) < 0 or max(config.seeds) >= SHIFT:
        raise UserError(f"--seeds must be in [0, {SHIFT})")
    for field in ("steps", "evaluate_every", "batch_size", "devices"):
        if getattr(config, field) < 1:
            flag = "--" + field.replace("_", "-")
            raise UserError(f"{flag} must be at least 1, got {getattr(config, field)}")
    if config.steps % config.evaluate_every:
        raise UserError(
            f"--steps {config.steps} must be a multiple of --evaluate-every {config.evaluate_every}"
        )
    if config.devices > jax.device_count():
        raise UserError(f"--devices {config.devices}: there are {jax.device_count()}")
    if config.width < 0 or config.width % config.devices:
        raise UserError(
            f"--width {config.width} trainings do not divide over {config.devices} devices"
        )
    for arm in config.arms:
        for trial in arm.trials:
            if not 0 < trial["learning_rate"] < float("inf"):
                raise UserError(
                    f"--learning-rates must be positive, got {trial['learning_rate']:g}"
                )
            if not 0 <= trial["weight_decay"] < float("inf"):
                raise UserError(
                    f"--weight-decays must be at least 0, got {trial['weight_decay']:g}"
                )


def made_for(config: StudyConfig, folder: Path, resume: bool) -> StudyConfig:
    """The configuration with the saved width where it leaves that open.

    Raises:
        UserError: the folder is not this study's.
    """
    path = folder / "study.json"
    if not path.exists():
        if resume:
            raise UserError(f"no study in {folder}: leave out --resume to start one")
        if folder.exists() and any(folder.iterdir()):
            raise UserError(f"{folder} holds other files: name another --out")
        return config
    if not resume:
        raise UserError(
            f"{folder} already holds a study: pass --resume to continue it, or another --out"
        )
    try:
        saved = plain(from_json(json.loads(path.read_text())["config"], folder))
        if config.width == AUTO:
            config = dataclasses.replace(config, width=saved["width"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    if lines := records.differing(saved, plain(config)):
        more = f" and {len(lines) - 4} more" if len(lines) > 4 else ""
        raise UserError(
            f"the study in {folder} has another configuration: {'; '.join(lines[:4])}{more}. "
            "Give the saved values, or another --out"
        )
    return config


def plain(config: StudyConfig) -> dict[str, Any]:
    """The configuration as JSON gives it back."""
    found: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(config)))
    return found


def _write_plan(config: StudyConfig, folder: Path, data: Data, about: Mapping[str, Any]) -> None:
    records.check_writable(folder)
    path = folder / "study.json"
    if path.exists():
        return
    (folder / "trainings").mkdir(exist_ok=True)
    saved = {
        **about,
        "versions": records.versions(),
        "device": f"{config.devices} × {jax.devices()[0].device_kind}",
        "data": dict(data.rows),
        "config": plain(config),
    }
    records.write_json(path, saved)


def _run(config: StudyConfig, problem: Problem, folder: Path, data: Data, watcher: Watcher) -> None:
    plan = programs(config)
    todo = {
        item.name: [
            (i, rows)
            for i, rows in enumerate(calls(item, config.width))
            if read_call(call_path(folder, item.name, i)) is None
        ]
        for item in plan
    }
    updates = sum(len(item.trainings) for item in plan) * config.steps
    watcher.began(len(plan), updates)
    left = sum(len(rows) for found in todo.values() for _, rows in found) * config.steps
    watcher.stepped(updates - left)
    common = common_of(config, plan[0], problem, data)
    every, plan = plan, [item for item in plan if todo[item.name]]
    made: dict[str, Compiled] = {}
    with ThreadPoolExecutor(1) as ahead:
        # A program is compiled while the one before it trains.
        rest = (problem, data, common)
        coming = [ahead.submit(compiled_for, config, item, *rest) for item in plan[:1]]
        for item, after in zip(plan, [*plan[1:], None][: len(plan)], strict=True):
            made[item.name] = compiled = coming.pop().result()
            if after is not None:
                coming.append(ahead.submit(compiled_for, config, after, *rest))
            for i, rows in todo[item.name]:
                watcher.entered(item.name, i, len(calls(item, config.width)))
                unfinished = folder / "unfinished" / f"{item.name}.{i:03d}"
                found, times = train_call(
                    config,
                    item,
                    rows,
                    compiled,
                    common,
                    data,
                    problem,
                    watcher.stepped,
                    coming[:1],
                    unfinished,
                )
                _save_call(call_path(folder, item.name, i), found)
                _add_times(folder / "timing.json", item.name, i, times)
                shutil.rmtree(unfinished, ignore_errors=True)
    with contextlib.suppress(OSError):
        (folder / "unfinished").rmdir()
    timing = json.loads((folder / "timing.json").read_text())
    if BESIDE not in timing:
        for item in every:
            if item.name not in made:
                made[item.name] = compiled_for(config, item, problem, data, common)
        timing[BESIDE] = timed_beside(config, every, made, common, data, problem)
        records.write_json(folder / "timing.json", timing)


def common_of(config: StudyConfig, item: Program, problem: Problem, data: Data) -> Common:
    """What all programs of a study share; any of them will do."""
    return training.common(setting_of(config, item, problem), data.example, config.devices)


def compiled_for(
    config: StudyConfig, item: Program, problem: Problem, data: Data, common: Common
) -> Compiled:
    """A program, compiled for the calls of a study."""
    told = place(told_of(config, item, item.trainings[:1]), config.devices, shared=False)
    n = data.rows["train"]
    feed = (data.training, *training.start(0, 1, n, config.evaluate_every))
    made = training.program(setting_of(config, item, problem), n, config.devices)
    return training.compile_now(made, told, *common.params(told), feed)


def _save_call(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Whole or not at all."""
    buffer = io.BytesIO()
    np.savez(buffer, **{name: arrays[name] for name in sorted(arrays)})  # type: ignore[arg-type]
    part = path.with_suffix(".part")
    part.write_bytes(buffer.getvalue())
    os.replace(part, path)


def _add_times(path: Path, program: str, call: int, times: Mapping[str, Any]) -> None:
    saved = json.loads(path.read_text()) if path.exists() else {}
    saved.setdefault(program, {})[str(call)] = times
    records.write_json(path, saved)
