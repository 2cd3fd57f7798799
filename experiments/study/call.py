"""One call of a program: what its trainings are told, and what they give."""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

import jax
import numpy as np

import jmtl
from experiments.config import make_method
from experiments.parts import build_model, build_optimizer
from experiments.problem import Problem
from experiments.study import training
from experiments.study.config import Program, StudyConfig, Training
from experiments.study.data import Data
from experiments.study.training import Common, Compiled, Setting, Told
from jmtl.method import Method


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
    stepped: Callable[[int], None],
    compiling: Sequence[Future[Compiled]],
) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Train the rows of one call; returns the arrays to keep `[len(rows), ...]`, and times.

    Dispatches beside which another program compiled (`compiling`) are told apart in the times.
    """
    told = training.place(told_of(config, item, rows), config.devices, shared=False)
    batch = config.batch_size * first_method(config, item, problem).batches
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
        stepped(config.evaluate_every * len(rows))
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
