"""Studies that nobody trained: folders in the format of a study, with differences planted."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.config import find_problem
from experiments.study.config import Arm, StudyConfig, Training, baselines, calls, programs
from experiments.study.results import BESIDE, call_path

TRIALS = (
    {"learning_rate": 1e-3, "weight_decay": 0.0},
    {"learning_rate": 3e-3, "weight_decay": 0.0},
)
NOISE = 0.004
"""Standard deviation over seeds of an arm's metric, beside what all arms of a seed share."""


def config(
    methods: Sequence[str] = ("pcgrad", "cagrad", "uncertainty"),
    problem: str = "multi_digits",
    seeds: int = 4,
    trials: Sequence[Mapping[str, float]] = TRIALS,
    front: int = 5,
    steps: int = 100,
    every: int = 10,
) -> StudyConfig:
    """A study of baselines and methods without options."""
    found = find_problem(problem)
    names = [task.name for task in found.tasks]
    arms = [
        *baselines(found, trials, front),
        *(Arm(name, "method", name, {name: {}}, trials, names) for name in methods),
    ]
    return StudyConfig(
        problem=problem,
        arms=arms,
        seeds=tuple(range(seeds)),
        steps=steps,
        evaluate_every=every,
        batch_size=32,
        optimizer="adam",
        encoder="mlp",
        encoder_options={"hidden": [8]},
        head_options={},
        metrics={task.name: task.main for task in found.tasks},
        norm_matched=False,
        width=6,
        devices=1,
    )


def with_arms(study: StudyConfig, arms: Sequence[Arm]) -> StudyConfig:
    """The study with other arms."""
    return dataclasses.replace(study, arms=tuple(arms))


def write(
    folder: Path,
    study: StudyConfig,
    effects: Mapping[str, float] | None = None,
    broken: Mapping[str, int] | None = None,
) -> Path:
    """Write a study's folder.

    Args:
        folder: of the study.
        study: its configuration.
        effects: by arm, what its metrics are better by, as a fraction.
        broken: by arm, how many of its seeds fail before the first evaluation; -1 for all.
    """
    effects, broken = effects or {}, broken or {}
    (folder / "trainings").mkdir(parents=True)
    rng = np.random.default_rng(7)
    luck = rng.normal(0, 2 * NOISE, (len(study.seeds), len(study.metrics)))
    timing: dict[str, Any] = {}
    for program in programs(study):
        timing[program.name] = {}
        for i, trainings in enumerate(calls(program, study.width)):
            rows = [
                _training(study, row, luck[row.seed], effects, broken, rng) for row in trainings
            ]
            arrays = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
            np.savez(call_path(folder, program.name, i), **arrays)
            timing[program.name][str(i)] = {
                "steps": study.evaluate_every,
                "trainings": len(rows),
                "width": study.width,
                "seconds": 2.5,
                "dispatch_seconds": [0.01] * (study.steps // study.evaluate_every),
                "dispatch_seconds_beside_compiling": [],
                "evaluate_seconds": [0.004] * (study.steps // study.evaluate_every),
            }
    slow = {name: 1.0 + 0.1 * (len(name) % 7) for name in timing}
    timing[BESIDE] = {
        name: (0.01 * slow[name] * (1 + 0.1 * rng.random(5))).tolist() for name in slow
    }
    saved = {
        "command": f"python -m experiments study {study.problem} --seeds 0-{len(study.seeds) - 1}",
        "not_served": [],
        "versions": {"jax": "0.0", "jmtl": "0.0", "python": "3"},
        "device": "1 × none",
        "data": {"train": 800, "validation": 100, "test": 100},
        "config": dataclasses.asdict(study),
    }
    (folder / "study.json").write_text(json.dumps(saved))
    (folder / "timing.json").write_text(json.dumps(timing))
    return folder


def _training(
    study: StudyConfig,
    row: Training,
    luck: np.ndarray,
    effects: Mapping[str, float],
    broken: Mapping[str, int],
    rng: np.random.Generator,
) -> dict[str, np.ndarray]:
    """One training's arrays, in the format of a call's file without its leading axis."""
    tasks = find_problem(study.problem).tasks
    k, arm = len(tasks), study.arms[row.arm]
    steps = np.arange(study.evaluate_every, study.steps + 1, study.evaluate_every)
    times = len(steps)
    weights = np.array(arm.options.get("static", {}).get("weights", np.ones(k)), float)
    fails = broken.get(arm.name, 0)
    failed = fails < 0 or row.seed < fails
    # A heavier task is learned better, with diminishing returns; alone, a little better still.
    share = 0.02 * np.log(np.maximum(weights, 0.02)) + 0.01 * (weights == k)
    level = 0.9 + luck + share + effects.get(arm.name, 0.0) - 0.02 * row.trial
    level = level + rng.normal(0, NOISE, k)
    up = 1 - np.exp(-3 * steps / study.steps)[:, None]
    accuracy = np.clip(level * up + rng.normal(0, NOISE / 3, (times, k)), 0.01, 0.999)
    values = np.empty((times, k))
    for i, task in enumerate(tasks):
        better = task.metric.higher_is_better[study.metrics[task.name]]
        values[:, i] = accuracy[:, i] if better else 1 - accuracy[:, i]
    judged = [i for i, task in enumerate(tasks) if task.name in arm.tasks]
    signs = [1 if t.metric.higher_is_better[study.metrics[t.name]] else -1 for t in tasks]
    scores = np.mean([signs[i] * np.log(values[:, i]) for i in judged], axis=0)
    at = int(np.argmax(scores))
    nan = np.nan if failed else 1.0
    found: dict[str, np.ndarray] = {
        "score": np.asarray(-np.inf if failed else scores[at], np.float32),
        "best_step": np.asarray(0 if failed else steps[at], np.int32),
        "failed": np.asarray(3 if failed else -1, np.int32),
        "curve/validation": values * nan,
        "curve/losses": -np.log(accuracy) * nan,
        "curve/weights": np.abs(weights + rng.normal(0, 0.1, (times, k))) * nan,
        "curve/norms": (0.3 + np.arange(k) + rng.random((times, k))) * nan,
        "curve/conflict_rate": np.clip(0.4 * up[:, 0] + rng.normal(0, 0.02, times), 0, 1) * nan,
        "curve/residual": 10.0 ** rng.uniform(-8, -6, times) * nan,
    }
    cosine = np.full((times, k, k), 0.3) - 0.4 * up[:, :, None]
    cosine[:, np.arange(k), np.arange(k)] = 1.0
    found["curve/cosine"] = cosine * nan
    for split in ("validation", "test"):
        for i, task in enumerate(tasks):
            for name in (*task.metric.higher_is_better, "loss"):
                drift = 0.0 if name == study.metrics[task.name] else 0.002
                value = values[at, i] - drift + rng.normal(0, NOISE / 3) * (split == "test")
                found[f"{split}/{task.name}/{name}"] = np.asarray(value * nan, np.float32)
    return found
