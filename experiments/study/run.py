"""A study from its configuration to its files: finished calls are kept, and not run again."""

import dataclasses
import io
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

import jmtl
from experiments.config import find_problem, make_method
from experiments.errors import UserError
from experiments.parts import build_model, build_optimizer, example_of, open_splits
from experiments.problem import Problem
from experiments.study import training
from experiments.study.config import SHIFT, Program, StudyConfig, Training, calls, programs
from experiments.study.results import call_path, read_call
from experiments.study.training import Common, Compiled, Setting, Told
from jmtl.data import source
from jmtl.method import Method
from jmtl.train import records


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


class Data(NamedTuple):
    """A problem's splits on the devices.

    Attributes:
        example: one raw example `[1, ...]` by feature.
        rows: examples by split.
        training: `[n, ...]` by feature.
        validation: batches `[N, B, ...]` by feature, and weights `[N, B]`.
        test: likewise.
    """

    example: Mapping[str, Any]
    rows: Mapping[str, int]
    training: Any
    validation: Any
    test: Any


def open_data(problem: Problem, data_dir: Path, devices: int) -> Data:
    """A problem's splits, put on the devices.

    Raises:
        UserError: the data cannot be had, or it has no validation split.
    """
    splits = open_splits(problem, data_dir)
    found = {name: splits(name) for name in ("train", "validation", "test")}

    def placed(tree: Any) -> Any:
        return training.place(tree, devices, shared=True)

    return Data(
        example_of(found["train"]),
        {name: len(split) for name, split in found.items()},
        placed(source.as_arrays(found["train"])),
        placed(training.evaluation_arrays(found["validation"])),
        placed(training.evaluation_arrays(found["test"])),
    )


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
    made_for(config, folder, resume)
    data = open_data(problem, data_dir, config.devices)
    try:
        _write_plan(config, folder, data, about)
        _run(config, problem, folder, data, watcher)
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror or error}") from error
    except records.OutputError as error:
        raise UserError(str(error)) from error


def check(config: StudyConfig) -> None:
    """Refuse a study that cannot be run."""
    if not config.seeds:
        raise UserError("--seeds: give at least one seed, as 0-9 or 0 1 2")
    if len(set(config.seeds)) != len(config.seeds):
        raise UserError(f"--seeds: {sorted(config.seeds)} has a seed twice")
    if min(config.seeds) < 0 or max(config.seeds) >= SHIFT:
        raise UserError(f"--seeds must be in [0, {SHIFT})")
    for field in ("steps", "evaluate_every", "batch_size", "width", "devices"):
        if getattr(config, field) < 1:
            flag = "--" + field.replace("_", "-")
            raise UserError(f"{flag} must be at least 1, got {getattr(config, field)}")
    if config.steps % config.evaluate_every:
        raise UserError(
            f"--steps {config.steps} must be a multiple of --evaluate-every {config.evaluate_every}"
        )
    if config.devices > jax.device_count():
        raise UserError(f"--devices {config.devices}: there are {jax.device_count()}")
    if config.width % config.devices:
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


def made_for(config: StudyConfig, folder: Path, resume: bool) -> None:
    """Refuse a folder that is not this study's."""
    path = folder / "study.json"
    if not path.exists():
        if resume:
            raise UserError(f"no study in {folder}: leave out --resume to start one")
        if folder.exists() and any(folder.iterdir()):
            raise UserError(f"{folder} holds other files: name another --out")
        return
    if not resume:
        raise UserError(
            f"{folder} already holds a study: pass --resume to continue it, or another --out"
        )
    try:
        saved = json.loads(path.read_text())["config"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None
    if lines := records.differing(saved, plain(config)):
        more = f" and {len(lines) - 4} more" if len(lines) > 4 else ""
        raise UserError(
            f"the study in {folder} has another configuration: {'; '.join(lines[:4])}{more}. "
            "Give the saved values, or another --out"
        )


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
    common = training.common(setting(config, plan[0], problem), data.example, config.devices)
    n = data.rows["train"]

    def compile_(item: Program) -> Compiled:
        told = training.place(told_of(config, item, item.trainings[:1]), config.devices, False)
        feed = (data.training, *training.start(0, 1, n, config.evaluate_every))
        made = training.program(setting(config, item, problem), n, config.devices)
        return training.compile_now(made, told, *common.params(told), feed)

    plan = [item for item in plan if todo[item.name]]
    with ThreadPoolExecutor(1) as ahead:
        # A program is compiled while the one before it trains.
        coming = [ahead.submit(compile_, item) for item in plan[:1]]
        for item, after in zip(plan, [*plan[1:], None][: len(plan)], strict=True):
            compiled = coming.pop().result()
            if after is not None:
                coming.append(ahead.submit(compile_, after))
            for i, rows in todo[item.name]:
                watcher.entered(item.name, i, len(calls(item, config.width)))
                found, times = train_call(
                    config, item, rows, compiled, common, data, problem, watcher, coming[:1]
                )
                _save_call(call_path(folder, item.name, i), found)
                _add_times(folder / "timing.json", item.name, i, times)


def setting(config: StudyConfig, item: Program, problem: Problem) -> Setting:
    """What the trainings of a program share."""
    decays = any(trial["weight_decay"] for arm in config.arms for trial in arm.trials)

    def method(told: Told) -> Method:
        options = {name: dict(given) for name, given in item.options.items()}
        for key, value in told.options.items():
            owner, _, option = key.rpartition(".")
            options.setdefault(owner, {})[option] = value
        made = make_method(item.method, options, told.seed, problem)
        return jmtl.norm_matched(made) if item.matched else made

    return Setting(
        problem=lambda knobs: problem,
        model=lambda at: build_model(
            config.encoder, config.encoder_options, config.head_options, at
        ),
        method=method,
        optimizer=lambda told: build_optimizer(
            config.optimizer, told.learning_rate, told.weight_decay if decays else 0.0
        ),
        metrics=config.metrics,
        batch_size=config.batch_size,
        every=config.evaluate_every,
    )


def told_of(config: StudyConfig, item: Program, rows: Sequence[Training]) -> Told:
    """What the trainings of a call are told, `[W, ...]`: a short call repeats its first."""
    filled = [*rows, *[rows[0]] * (config.width - len(rows))]
    arms = [config.arms[row.arm] for row in filled]
    trials = [arm.trials[row.trial] for arm, row in zip(arms, filled, strict=True)]

    def number(key: str, arm: Any, trial: Mapping[str, float]) -> Any:
        owner, _, option = key.rpartition(".")
        return trial[key] if key in trial else arm.options[owner][option]

    def array(values: Iterable[Any], dtype: Any = np.float32) -> Any:
        return np.array(list(values), dtype)

    return Told(
        seed=array(
            (config.seeds[row.seed] + arm.shift for row, arm in zip(filled, arms, strict=True)),
            np.uint32,
        ),
        learning_rate=array(trial["learning_rate"] for trial in trials),
        weight_decay=array(trial["weight_decay"] for trial in trials),
        options={
            key: array(number(key, arm, trial) for arm, trial in zip(arms, trials, strict=True))
            for key in item.traced
        },
        judges=array([task in arm.tasks for task in config.metrics] for arm in arms),
        knobs={},
    )


def train_call(
    config: StudyConfig,
    item: Program,
    rows: Sequence[Training],
    compiled: Compiled,
    common: Common,
    data: Data,
    problem: Problem,
    watcher: Watcher,
    compiling: Sequence[Future[Compiled]],
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Train the rows of one call; returns the arrays to keep `[len(rows), ...]`, and times.

    Dispatches beside which another program compiled (`compiling`) are told apart in the times.
    """
    told = training.place(told_of(config, item, rows), config.devices, shared=False)
    batch = config.batch_size * _batches(config, item, problem)
    began = time.perf_counter()
    params, model_state = common.params(told)
    state = compiled.init(told, params, model_state)
    best = common.first(told, params, model_state, data.validation)
    curves: list[Any] = []
    alone: list[float] = []
    beside: list[float] = []
    judging: list[float] = []
    for first in range(0, config.steps, config.evaluate_every):
        at = training.start(first, batch, data.rows["train"], config.evaluate_every)
        disturbed = not all(future.done() for future in compiling)
        before = time.perf_counter()
        state, record = compiled.advance(state, told, data.training, *at)
        jax.block_until_ready(state)
        between = time.perf_counter()
        step = np.int32(first + config.evaluate_every)
        best, main = common.settle(
            best, told, state.params, state.model_state, step, data.validation
        )
        curves.append(jax.device_get({**record._asdict(), "validation": main}))
        (beside if disturbed else alone).append(between - before)
        judging.append(time.perf_counter() - between)
        watcher.stepped(config.evaluate_every * len(rows))
    test = common.test(best, told, data.test)
    kept = jax.device_get(
        {
            "score": best.score,
            "best_step": best.step,
            "failed": state.failed[:, 0],
            **_by_path("validation", best.validation),
            **_by_path("test", test),
        }
    )
    for name in curves[0]:
        kept[f"curve/{name}"] = np.stack([curve[name] for curve in curves], axis=1)
    times = {
        "steps": config.evaluate_every,
        "trainings": len(rows),
        "width": config.width,
        "seconds": round(time.perf_counter() - began, 3),
        "dispatch_seconds": [round(x, 6) for x in alone],
        "dispatch_seconds_beside_compiling": [round(x, 6) for x in beside],
        "evaluate_seconds": [round(x, 6) for x in judging],
    }
    return {name: np.asarray(values)[: len(rows)] for name, values in kept.items()}, times


def _batches(config: StudyConfig, item: Program, problem: Problem) -> int:
    """How many batches the program's method takes a step."""
    arm = config.arms[item.trainings[0].arm]
    return make_method(item.method, arm.options, 0, problem).batches


def _by_path(split: str, metrics: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {
        f"{split}/{task}/{name}": value
        for task, scores in metrics.items()
        for name, value in scores.items()
    }


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
