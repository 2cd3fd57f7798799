"""Runs that augment: resumed they end in the same bits, and evaluation sees no augmentation."""

import dataclasses

import jax
import pytest

from experiments import initial, run
from experiments.parts import first_of
from experiments.problems import PROBLEMS
from tests.experiments import tiny
from tests.experiments.tiny import CONFIG, SPLITS, left_behind

SHIFTED = dataclasses.replace(CONFIG, augment="shift", steps=30)


def test_interrupted_and_resumed(tmp_path, monkeypatch):
    tiny.install(monkeypatch)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    tiny.train(SHIFTED, whole)
    assert tiny.train(SHIFTED, broken, stop_at=20)[0] is None
    tiny.train(SHIFTED, broken, resume=True)
    assert left_behind(broken) == left_behind(whole)


def test_training_augments_and_evaluation_does_not():
    def seen(key, batch, axis_name=None):
        raise LookupError("augmented")

    problem = PROBLEMS["multi_digits"]._replace(augmentations={"shift": seen})
    method = initial.method_of(SHIFTED, problem)
    raw = first_of(SPLITS["train"], 2)
    state = initial.state_of(SHIFTED, problem, method, raw)
    run.scorer(SHIFTED, problem)(state, SPLITS["test"])
    step = run._step_of(SHIFTED, problem, method, None)
    with pytest.raises(LookupError, match="augmented"):
        jax.eval_shape(step, state, problem.to_batch(raw))
