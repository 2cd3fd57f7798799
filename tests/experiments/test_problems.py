"""Every problem that needs no download trains; its short recipe beats what knows no inputs."""

import dataclasses
import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import commands, parts, run
from experiments.cli import resolve
from experiments.config import RunConfig
from experiments.problems import PROBLEMS
from jmtl.data import source
from jmtl.data.several import by_source
from jmtl.data.smart_home import VOCABULARY
from jmtl.tasks import check_labels

OFFLINE = [name for name, problem in PROBLEMS.items() if problem.offline]

TINY = {
    "digit_attributes": {"encoder_options": {"hidden": (16,)}},
    "multi_digits": {"encoder_options": {"hidden": (16,)}},
    "smart_home": {
        "encoder_options": {"vocabulary": len(VOCABULARY), "width": 8},
        "batch_size": 16,
    },
    "tabular": {"encoder_options": {"hidden": (8,)}},
}
"""By problem, what makes 50 steps of it a matter of seconds."""

SHORT = {
    "digit_attributes": {"steps": 500},
    "multi_digits": {"steps": 500},
    "smart_home": {"steps": 300},
    "tabular": {"steps": 300},
}
"""By problem, what makes its recipe short."""


def config_of(name: str, **changes) -> RunConfig:
    """The recipe of a problem on one device, changed."""
    config = resolve(commands.Train(name, devices=1), None)
    return dataclasses.replace(config, **changes)


def train(config: RunConfig, folder: Path, data_dir: Path) -> dict:
    return run.train(config, folder, data_dir=data_dir, resume=False, watcher=run.Watcher())


@pytest.mark.parametrize("name", OFFLINE)
def test_fifty_steps_of_pcgrad(name, tmp_path, data_dir):
    config = config_of(
        name, **{"steps": 50, "steps_per_dispatch": 25, "checkpoint_every": 50} | TINY[name]
    )
    summary = train(config, tmp_path / "run", data_dir)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    before, after = (json.loads(line)["losses"] for line in lines)
    for task in PROBLEMS[name].tasks:
        assert math.isfinite(summary["test"][task.name][task.main])
    # Batches differ, and a task may have few labels in one: it takes one loss that falls.
    assert all(math.isfinite(loss) for loss in after.values())
    assert min(after[task] / before[task] for task in after) < 1
    # Every split's labels are what the tasks take.
    problem = PROBLEMS[name]
    splits = parts.open_splits(problem, data_dir)
    for split in map(splits, ("train", "validation", "test")):
        arrays = source.read(split, by_source(lambda _, n: np.arange(n), source.lengths(split)))
        check_labels(problem.tasks, problem.to_batch(arrays))


def constant(task, label, present):
    """The one answer, whatever the inputs, that fits a task's labels best."""
    classes = task.head.features
    if task.head.kind in ("classification", "tagging"):
        known = label[present].ravel()
        return np.log(np.bincount(known[known >= 0], minlength=classes) + 1e-6)
    return label[present].reshape(-1, classes).mean(axis=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", OFFLINE)
def test_the_short_recipe_beats_a_constant_answer(name, tmp_path, data_dir):
    config = config_of(name, **SHORT[name])
    train(config, tmp_path / "run", data_dir)
    problem = PROBLEMS[name]
    splits = parts.open_splits(problem, data_dir)
    found = run.restored(config, tmp_path / "run", parts.example_of(splits("train")), print)
    scores = run.scores(config, problem, found.state, splits("validation"))
    training, validation = (
        problem.to_batch(jax.tree.map(jnp.asarray, source.as_arrays(splits(split))))
        for split in ("train", "validation")
    )
    for task in problem.tasks:
        label, present = (np.asarray(x[task.label]) for x in (training.labels, training.present))
        answer = jnp.asarray(constant(task, label, present), jnp.float32)
        label = validation.labels[task.label]
        places = label.shape[1:] if task.head.kind == "tagging" else ()
        shape = (len(label), *places, *answer.shape)
        stats = task.metric.update(
            jnp.broadcast_to(answer, shape), label, jnp.asarray(validation.present[task.label])
        )
        blind = float(task.metric.compute(stats)[task.main])
        sign = 1 if task.metric.higher_is_better[task.main] else -1
        assert sign * (scores[task.name][task.main] - blind) > 0.1 * abs(blind), task.name
