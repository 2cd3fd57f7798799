"""Data that a problem cannot be trained with: one clear line each, before anything is written."""

import copy

import numpy as np
import pytest

from experiments import cli, run
from experiments.cli import main
from experiments.errors import UserError
from experiments.labels import check_split
from experiments.parts import open_splits
from experiments.problems import PROBLEMS
from jmtl.train import checkpoint
from tests.experiments import tiny
from tests.experiments.tiny import CONFIG, SPLITS

DIGITS, HOME = PROBLEMS["multi_digits"], PROBLEMS["smart_home"]


def changed(feature, row, value):
    """The training split with one value changed."""
    split = copy.deepcopy(SPLITS["train"])
    split.arrays[feature][row] = value
    return split


def test_a_label_out_of_range_leaves_no_folder(tmp_path, monkeypatch):
    tiny.install(monkeypatch, splits={**SPLITS, "train": changed("left", 203, 10)})
    with pytest.raises(UserError) as refusal:
        tiny.train(CONFIG, tmp_path / "run")
    assert str(refusal.value) == (
        "the train split, from example 200 on: task 'left': label 'left': "
        "its values are integers in 0 .. 9; got 10 in row 3"
    )
    assert not (tmp_path / "run").exists()


def test_of_a_streamed_split_the_first_examples_are_looked_at():
    check_split(DIGITS, changed("right", 203, -1), "train", whole=False)
    with pytest.raises(UserError, match=r"the train split: task 'right': .* got -1 in row 3"):
        check_split(DIGITS, changed("right", 3, -1), "train", whole=False)


def test_a_task_without_labels_in_a_split_is_named():
    words = np.zeros((3, 5), int)
    given = {"tokens": words, "intent": words[:, 0], "tags": words, "target": np.full(3, 99.0)}
    check_split(HOME, {**given, "has_target": np.array([False, True, False])}, "validation")
    message = "^the validation split has no label for the task target$"
    with pytest.raises(UserError, match=message):
        check_split(HOME, {**given, "has_target": np.zeros(3, bool)}, "validation")
    check_split(HOME, {**given, "has_target": np.zeros(3, bool)}, "validation", all_tasks=False)


def test_an_evaluation_says_which_task_has_no_label(monkeypatch, capsys):
    scores = {"left": {"loss": 0.1}, "right": {"loss": float("nan")}}
    monkeypatch.setattr(run, "scorer", lambda *given: lambda *given: scores)
    newest = (CONFIG, SPLITS["test"], checkpoint.Restored(20, None, {}, ()))
    monkeypatch.setattr(cli, "_newest", lambda *given: newest)
    assert main(["evaluate", "unused", "--split", "validation"]) == 0
    said = capsys.readouterr().out
    assert "no score for right: the validation split has no label for it" in said
    assert "no score for left" not in said


def test_data_that_must_be_put_there_by_hand_is_asked_for_in_one_line(tmp_path):
    with pytest.raises(UserError, match=r"^nyuv2 cannot be downloaded") as refusal:
        open_splits(DIGITS._replace(data="nyuv2"), tmp_path)
    assert "\n" not in str(refusal.value)
