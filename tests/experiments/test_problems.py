"""Every problem that needs no download trains; its short recipe beats what knows no inputs."""

import dataclasses
import json
import math
from pathlib import Path

import numpy as np
import pytest

from experiments import commands, constant, parts, resume, run
from experiments.cli import resolve
from experiments.config import RunConfig
from experiments.problems import PROBLEMS, scenes
from jmtl.data import source
from jmtl.data.scenes import draw, look
from jmtl.data.several import by_source
from jmtl.data.smart_home import VOCABULARY
from jmtl.tasks import check_labels

OFFLINE = [name for name, problem in PROBLEMS.items() if problem.offline]

TINY = {
    "digit_attributes": {"encoder_options": {"hidden": (16,)}},
    "multi_digits": {"encoder_options": {"hidden": (16,)}},
    "scenes": {
        "encoder_options": {"widths": (4,), "convolutions": (1,)},
        "input": "resident",  # rendered here
        "batch_size": 4,
    },
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
    "scenes": {"steps": 2_000},
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


def smaller_scenes(monkeypatch, size: int) -> None:
    """Runs of scenes are at another resolution."""
    found = PROBLEMS | {"scenes": scenes.at(size)}
    for module in (run, resume):
        monkeypatch.setattr(module, "find_problem", found.__getitem__)


@pytest.fixture
def splits_of(monkeypatch, data_dir):
    """By problem, its splits; few scenes at 16×16 pixels, without TFDS."""

    def splits(name: str):
        if name != "scenes":
            return parts.open_splits(PROBLEMS[name], data_dir)
        smaller_scenes(monkeypatch, 16)
        rendered = {
            split: look(*draw(count, seed), 16)
            for seed, (split, count) in enumerate({"train": 32, "validation": 8, "test": 8}.items())
        }
        monkeypatch.setattr(run, "open_splits", lambda problem, data_dir: rendered.__getitem__)
        return rendered.__getitem__

    return splits


@pytest.mark.parametrize("name", OFFLINE)
def test_fifty_steps_of_pcgrad(name, tmp_path, data_dir, splits_of):
    splits = splits_of(name)
    config = config_of(
        name, **{"steps": 50, "steps_per_dispatch": 25, "checkpoint_every": 50} | TINY[name]
    )
    summary = train(config, tmp_path / "run", data_dir)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    before, after = (json.loads(line)["losses"] for line in lines)
    problem = run.find_problem(name)
    for task in problem.tasks:
        assert math.isfinite(summary["test"][task.name][task.main])
    # Batches differ, and a task may have few labels in one: it takes one loss that falls.
    assert all(math.isfinite(loss) for loss in after.values())
    assert min(after[task] / before[task] for task in after) < 1
    # Every split's labels are what the tasks take.
    for split in map(splits, ("train", "validation", "test")):
        arrays = source.read(split, by_source(lambda _, n: np.arange(n), source.lengths(split)))
        check_labels(problem.tasks, problem.to_batch(arrays))


@pytest.mark.slow
@pytest.mark.parametrize("name", OFFLINE)
def test_the_short_recipe_beats_a_constant_answer(name, tmp_path, data_dir, monkeypatch):
    smaller_scenes(monkeypatch, 32)
    config = config_of(name, **SHORT[name])
    train(config, tmp_path / "run", data_dir)
    problem = run.find_problem(name)
    splits = parts.open_splits(problem, data_dir)
    found = resume.restored(config, tmp_path / "run", parts.example_of(splits("train")), print)
    scores = run.scorer(config, problem)(found.state, splits("validation"))
    blind = constant.scores(problem, data_dir, "validation")
    for task in problem.tasks:
        ours, theirs = scores[task.name][task.main], blind[task.name][task.main]
        sign = 1 if task.metric.higher_is_better[task.main] else -1
        assert sign * (ours - theirs) > 0.05 * abs(theirs), task.name
