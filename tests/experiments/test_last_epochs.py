"""The mean of test scores over the last epochs: where they end, by hand, and after a kill."""

import dataclasses
import json
import math

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments import last_epochs, run
from experiments.errors import UserError
from experiments.last_epochs import FILE, ends
from experiments.problems import PROBLEMS
from tests.experiments import tiny
from tests.experiments.tiny import CONFIG, left_behind

PROBLEM = PROBLEMS["multi_digits"]._replace(mean_of_last_epochs=10)

# An epoch of 300 rows by 16 is 18.75 steps, and a dispatch 10: the ends of epochs 3 to 12.
TWELVE = dataclasses.replace(CONFIG, steps=225)
ENDS = [60, 80, 100, 120, 140, 150, 170, 190, 210, 225]


def norms(*_):
    """A scorer: numbers of a state that change with every step."""

    def score(state, split):
        del split
        sizes = [float(np.abs(x).sum()) for x in jax.tree.leaves(jax.device_get(state.params))]
        return {"left": {"accuracy": sizes[0], "f1": sizes[1]}, "right": {"accuracy": sum(sizes)}}

    return score


@pytest.fixture
def few(monkeypatch):
    tiny.install(monkeypatch)
    monkeypatch.setattr(run, "find_problem", lambda name: PROBLEM)
    monkeypatch.setattr(run, "scorer", norms)


def test_the_mean_is_that_of_ten_runs_that_end_there(tmp_path, few):
    whole, longer = tmp_path / "whole", tmp_path / "longer"
    summary, _ = tiny.train(TWELVE, whole)
    by_hand = []
    for i, steps in enumerate(ENDS):
        found, _ = tiny.train(dataclasses.replace(TWELVE, steps=steps), longer, resume=i > 0)
        by_hand.append(found["test"])
    last = summary["last_epochs"]
    assert (last["epochs"], last["steps"]) == (10, ENDS)
    for task, metrics in last["test"].items():
        for name, value in metrics.items():
            expected = np.mean([scores[task][name] for scores in by_hand])
            assert value == pytest.approx(expected, rel=1e-12)
            assert value != summary["test"][task][name]
    assert summary["test"] == by_hand[-1]
    # A run that went on nine times knows what it was asked for by none of them.
    assert left_behind(longer) == left_behind(whole)
    assert (longer / FILE).read_bytes() == (whole / FILE).read_bytes()


def test_a_run_that_was_killed_ends_with_the_same_bytes(tmp_path, few):
    config = dataclasses.replace(TWELVE, checkpoint_every=40)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    tiny.train(config, whole)
    assert tiny.train(config, broken, stop_at=160)[0] is None
    kept = [one["step"] for one in json.loads((broken / FILE).read_text())]
    assert kept == ENDS[:6]  # two of them after step 120, the last checkpoint
    summary, notes = tiny.train(config, broken, resume=True)
    assert not notes
    assert summary["last_epochs"]["steps"] == ENDS
    assert left_behind(broken) == left_behind(whole)
    assert (broken / FILE).read_bytes() == (whole / FILE).read_bytes()


def test_ends_of_the_published_recipes():
    # 200 epochs of 795 rows by 2, in dispatches of 20.
    assert ends(10, 795, 2, 20, 79_500) == (
        *(75_940, 76_320, 76_720, 77_120, 77_520, 77_920, 78_320, 78_720, 79_120),
        79_500,
    )
    for name in ("nyuv2_published", "cityscapes_published"):
        problem = PROBLEMS[name]
        rows = {"nyuv2_published": 795, "cityscapes_published": 2_975}[name]
        for recipe in problem.recipes.values():
            found = ends(
                problem.mean_of_last_epochs,
                rows,
                recipe.batch_size,
                recipe.steps_per_dispatch,
                recipe.steps,
            )
            assert len(found) == 10
            assert found[-1] == recipe.steps
            exact = np.arange(191, 201) * rows / recipe.batch_size
            assert (np.array(found) >= exact).all()
            assert (np.array(found) < exact + 1 + recipe.steps_per_dispatch).all()
    assert PROBLEMS["nyuv2"].mean_of_last_epochs is None


@given(*(st.integers(1, most) for most in (12, 60, 20, 15, 200, 60)))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_what_a_longer_run_needs_of_a_shorter_one_is_there(epochs, rows, batch, every, stop, more):
    found = ends(epochs, rows, batch, every, stop)
    assert found[-1] == stop
    assert 1 <= len(found) <= epochs
    assert all(step % every == 0 for step in found[:-1])
    longer = ends(epochs, rows, batch, every, stop + more)
    # It goes on from a multiple of a dispatch, up to which the shorter one's evaluations are kept.
    begun = stop - stop % every
    assert {step for step in longer if step <= begun} <= set(found)


def test_scores_that_are_no_number_are_kept(tmp_path):
    scored = {3: {"a": {"x": 1.0, "y": math.nan}}, 5: {"a": {"x": 2.5, "y": 1.0}}}
    last_epochs.write(tmp_path, scored)
    found = last_epochs.read(tmp_path, {3, 5, 8})
    assert list(found) == [3, 5]
    assert math.isnan(found[3]["a"]["y"])
    assert list(last_epochs.read(tmp_path, {5})) == [5]
    mean = last_epochs.mean(found)["a"]
    assert mean["x"] == 1.75
    assert math.isnan(mean["y"])
    (tmp_path / FILE).write_text("[{}]")
    with pytest.raises(UserError, match=r"last_epochs.json cannot be read: .*mean is over"):
        last_epochs.read(tmp_path, {3})
