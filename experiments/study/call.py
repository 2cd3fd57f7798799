"""One call of a program: what its trainings are told, and what they give."""

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import jax
import numpy as np

import jmtl
from experiments.across import place
from experiments.config import find_problem, find_recipe, make_method
from experiments.parts import build_model, build_optimizer
from experiments.problem import Problem
from experiments.study import training
from experiments.study.config import Program, StudyConfig, Training
from experiments.study.data import Data
from experiments.study.results import Curves
from experiments.study.training import Common, Compiled, Setting, Told
from jmtl.method import Method
from jmtl.train import checkpoint

ROUNDS = 3
"""In which the programs' dispatches are timed beside one another."""

SAVE_SECONDS = 120.0
"""Between checkpoints of a call that is not finished."""


def setting_of(config: StudyConfig, item: Program, problem: Problem) -> Setting:
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
        problem=lambda told: problem.turned(told.knobs, told.seed),
        model=lambda at: build_model(
            config.encoder,
            config.encoder_options,
            config.head_options,
            at,
            config.sharing,
            config.sharing_options,
        ),
        method=method,
        optimizer=lambda told: build_optimizer(
            config.optimizer,
            told.learning_rate,
            told.weight_decay if decays else 0.0,
            config.schedule,
        ),
        metrics=config.metrics,
        batch_size=config.batch_size,
        every=config.evaluate_every,
        measure_every=config.evaluate_every,
        augment=find_recipe(problem, config.recipe)[1].augment,
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
        knobs={
            name: array(arm.knobs.get(name, rest) for arm in arms)
            for name, rest in find_problem(config.problem).knobs.items()
            if any(name in arm.knobs for arm in config.arms)
        },
    )


def train_call(
    config: StudyConfig,
    item: Program,
    rows: Sequence[Training],
    compiled: Compiled,
    common: Common,
    data: Data,
    problem: Problem,
    stepped: Callable[[int], None],
    compiling: Sequence[Future[Compiled]],
    unfinished: Path,
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Train the rows of one call; returns the arrays to keep `[len(rows), ...]`, and times.

    Args:
        config: the study.
        item: the program.
        rows: trainings of the call.
        compiled: the program for such a call.
        common: for such a call.
        data: the problem's splits.
        problem: the problem.
        stepped: told of updates done, of all trainings together.
        compiling: dispatches beside which another program compiles are told apart in the times.
        unfinished: a folder for checkpoints of a call that takes long; goes on from there.
    """
    told = place(told_of(config, item, rows), config.devices, shared=False)
    batch = config.batch_size * first_method(config, item, problem).batches
    began = time.perf_counter()
    params, model_state = common.params(told)
    state = compiled.init(told, params, model_state)
    best = common.first(told, params, model_state, data.validation)
    curves = _blank_curves(config)
    alone: list[float] = []
    beside: list[float] = []
    judging: list[float] = []
    start = 0
    handle = checkpoint.open_checkpoints(unfinished, keep=1)
    try:
        if checkpoint.steps(unfinished):
            with contextlib.suppress(checkpoint.NoCheckpoint):
                found = checkpoint.restore(handle, (state, best, curves))
                start, (state, best, curves) = found.step, found.state
                curves = jax.tree.map(np.array, curves)
        stepped(start * len(rows))
        saved = time.perf_counter()
        for first in range(start, config.steps, config.evaluate_every):
            at = training.start(first, batch, data.rows["train"], config.evaluate_every)
            disturbed = not all(future.done() for future in compiling)
            before = time.perf_counter()
            state, record = compiled.advance(state, told, data.training, *at)
            jax.block_until_ready(state)
            between = time.perf_counter()
            step = first + config.evaluate_every
            best, main = common.settle(
                best, told, state.params, state.model_state, np.int32(step), data.validation
            )
            for name, values in jax.device_get({**record._asdict(), "validation": main}).items():
                curves[name][:, first // config.evaluate_every] = values
            (beside if disturbed else alone).append(between - before)
            judging.append(time.perf_counter() - between)
            stepped(config.evaluate_every * len(rows))
            if time.perf_counter() - saved > SAVE_SECONDS and step < config.steps:
                checkpoint.save(handle, step, (state, best, curves))
                saved = time.perf_counter()
    finally:
        checkpoint.close(handle)
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
    kept |= {f"curve/{name}": values for name, values in curves.items()}
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


def timed_beside(
    config: StudyConfig,
    plan: Sequence[Program],
    made: Mapping[str, Compiled],
    common: Common,
    data: Data,
    problem: Problem,
) -> dict[str, list[float]]:
    """By program, the seconds of its first dispatch: `ROUNDS` times, the programs taking turns."""
    found: dict[str, list[float]] = {item.name: [] for item in plan}
    for _ in range(ROUNDS):
        for item in plan:
            told = told_of(config, item, item.trainings[: config.width])
            placed = place(told, config.devices, shared=False)
            batch = config.batch_size * first_method(config, item, problem).batches
            at = training.start(0, batch, data.rows["train"], config.evaluate_every)
            state = made[item.name].init(placed, *common.params(placed))
            jax.block_until_ready(state)
            before = time.perf_counter()
            jax.block_until_ready(made[item.name].advance(state, placed, data.training, *at))
            found[item.name].append(round(time.perf_counter() - before, 6))
    return found


def _blank_curves(config: StudyConfig) -> dict[str, np.ndarray]:
    """Room for what `Curves` holds, `[W, T, ...]`; the steps apart."""
    k = len(config.metrics)
    shapes = {"cosine": (k, k), "conflict_rate": (), "residual": ()}
    lead = (config.width, config.steps // config.evaluate_every)
    return {
        name: np.full((*lead, *shapes.get(name, (k,))), np.nan, np.float32)
        for name in Curves._fields
        if name != "steps"
    }


def first_method(config: StudyConfig, item: Program, problem: Problem) -> Method:
    """The method of the program's first arm: what it needs and takes is that of them all."""
    arm = config.arms[item.trainings[0].arm]
    return make_method(item.method, arm.options, 0, problem)


def _by_path(split: str, metrics: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    return {
        f"{split}/{task}/{name}": value
        for task, scores in metrics.items()
        for name, value in scores.items()
    }
