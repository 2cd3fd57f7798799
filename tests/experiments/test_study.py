"""A study: its trainings are `train`'s, it survives being killed, and it chooses on validation."""

import contextlib
import dataclasses
import json
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import cli, parts, run
from experiments.commands import Study, command_line
from experiments.config import find_problem
from experiments.errors import UserError
from experiments.study import call, command, data, devices, results, training, width
from experiments.study import run as study
from experiments.study.config import programs, simplex_grid
from tests.experiments import tiny

SPLITS = {**tiny.SPLITS, "validation": tiny.Digits(60, 2)}
SMALL = Study(
    problem="multi_digits",
    methods=("pcgrad",),
    seeds=("0-1",),
    learning_rates=(1e-3, 1e-2),
    front_points=2,
    nulls=1,
    steps=6,
    evaluate_every=3,
    batch_size=16,
    hidden=(8,),
    width=3,
)


@pytest.fixture(autouse=True, scope="module")
def noise():
    """Studies read noise, and those that differ in no program compile it once."""
    made = {}

    def once(build):
        def cached(config, item, *rest):
            same = dataclasses.replace(config, arms=(), seeds=(), steps=0)
            key = (build.__name__, repr(same), repr(item._replace(trainings=())))
            if build is common_of:
                key = key[:2]
            if key not in made:
                made[key] = build(config, item, *rest)
            return made[key]

        return cached

    common_of = study.common_of
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "open_splits", lambda problem, data_dir: SPLITS.__getitem__)
        patch.setattr(run, "open_splits", lambda problem, data_dir: SPLITS.__getitem__)
        patch.setattr(study, "compiled_for", once(study.compiled_for))
        patch.setattr(study, "common_of", once(common_of))
        yield


class Stopped(Exception):
    pass


def go(folder, given=SMALL, resume=False, stop_at=None, stop_after=math.inf):
    """Run a study, to its end or until it is stopped; returns the calls that it entered.

    `stop_at` stops where it enters its call of that number, `stop_after` after so many updates.
    """
    entered, done = [], 0

    def stepped(updates):
        nonlocal done
        done += updates
        if done >= stop_after:
            raise Stopped

    def enter(program, call, calls):
        if len(entered) == stop_at:
            raise Stopped
        entered.append((program, call))

    config, not_served = command.resolve(given)
    with contextlib.suppress(Stopped):
        study.study(
            config,
            folder,
            data_dir=Path("unused"),
            resume=resume,
            watcher=study.Watcher(entered=enter, stepped=stepped),
            about={"command": command_line(given), "not_served": not_served},
        )
    return entered


def contents(folder):
    found = tiny.contents(folder)
    found.pop("timing.json", None)
    return found


@pytest.fixture(scope="module")
def whole(noise, tmp_path_factory):
    """A study that ran to its end."""
    folder = tmp_path_factory.mktemp("studies") / "whole"
    go(folder)
    return folder


def test_a_study_is_read_back_whole(whole):
    found = results.load(whole)
    assert list(found.arms) == [
        "equal",
        "single:left",
        "single:right",
        "static:1.33,0.667",
        "static:0.667,1.33",
        "null:1",
        "pcgrad",
    ]
    for result in found.arms.values():
        assert result.scores.shape == (2, 2)
        assert result.chosen == np.argmax(result.scores.mean(axis=1))
        assert set(result.best_step) <= {3, 6}
        assert (result.failed == -1).all()
        assert result.curves.losses.shape == (2, 2, 2)
        assert result.curves.cosine.shape == (2, 2, 2, 2)
        assert np.isfinite(result.curves.cosine).all()
        for split in (result.validation, result.test):
            assert split["left"]["accuracy"].shape == (2,)
            assert (split["right"]["loss"] > 0).all()
    # The kept step is the best of the curve, by the rule's score.
    logs = np.log(found.arms["pcgrad"].curves.validation).mean(axis=-1)
    kept = found.arms["pcgrad"].best_step // 3 - 1
    np.testing.assert_array_equal(kept, logs.argmax(axis=1))
    null = found.arms["null:1"]  # trained as equal weights are, with other keys
    assert not np.allclose(null.curves.losses, found.arms["equal"].curves.losses, rtol=1e-2)
    alone = results.single_task(found)
    np.testing.assert_array_equal(
        alone["right"]["f1"], found.arms["single:right"].test["right"]["f1"]
    )


def test_a_study_stopped_and_resumed_gives_the_same_bytes(whole, tmp_path):
    folder = tmp_path / "stopped"
    config, _ = command.resolve(SMALL)
    assert len(go(folder, stop_at=3)) == 3
    with pytest.raises(UserError, match="not finished: continue it with study --resume"):
        results.load(folder)
    damaged = results.call_path(folder, "static", 1)
    damaged.write_bytes(damaged.read_bytes()[:-40])
    again = go(folder, resume=True)
    assert again[0] == ("static", 1)
    assert ("static", 0) not in again
    assert contents(folder) == contents(whole)
    assert go(folder, resume=True) == []
    calls = sum(math.ceil(len(p.trainings) / config.width) for p in programs(config))
    timing = json.loads((folder / "timing.json").read_text())
    turns = timing.pop(results.BESIDE)
    assert sum(map(len, timing.values())) == calls
    assert {name: len(times) for name, times in turns.items()} == dict.fromkeys(timing, 3)


def test_a_call_stopped_midway_goes_on_from_there(whole, tmp_path, monkeypatch):
    monkeypatch.setattr(call, "SAVE_SECONDS", 0.0)
    folder = tmp_path / "midway"
    # The first call trains 3 for 6 updates in dispatches of 3: stopped in its second dispatch,
    # when the checkpoint of the first is there.
    go(folder, stop_after=18)
    assert [path.name for path in (folder / "unfinished").iterdir()] == ["static.000"]
    assert not list((folder / "trainings").iterdir())
    go(folder, resume=True)
    assert contents(folder) == contents(whole)
    timing = json.loads((folder / "timing.json").read_text())["static"]["0"]
    assert len(timing["dispatch_seconds"] + timing["dispatch_seconds_beside_compiling"]) == 1


@pytest.mark.slow  # as all of test_study_rows.py, which holds longer runs to it
def test_a_row_is_the_run_of_its_method_and_seed(whole, tmp_path):
    """Losses of a study's training against `train` with the same method and seed, step by step."""
    every_step = dataclasses.replace(
        SMALL,
        seeds=("1",),
        learning_rates=(1e-2,),
        evaluate_every=1,
        front_points=0,
        nulls=0,
        width=2,
    )
    go(tmp_path / "study", every_step)
    found = results.load(tmp_path / "study")
    config = dataclasses.replace(
        tiny.CONFIG, seed=1, steps=6, steps_per_dispatch=1, checkpoint_every=6
    )
    for name, options in (("pcgrad", {}), ("static", {"weights": [1.0, 0.0]})):
        config = dataclasses.replace(config, method=name, method_options={name: options})
        out = tmp_path / name
        summary = run.train(
            config, out, data_dir=Path("unused"), resume=False, watcher=run.Watcher()
        )
        lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
        losses = [[line["losses"][task] for task in ("left", "right")] for line in lines]
        row = found.arms["pcgrad" if name == "pcgrad" else "single:left"]
        np.testing.assert_allclose(row.curves.losses[0], losses, rtol=1e-5)
        if row.best_step[0] == 6:
            task = summary["test"]["left"]
            for metric, value in task.items():
                np.testing.assert_allclose(row.test["left"][metric][0], value, rtol=1e-5)


def test_a_task_alone_is_the_problem_with_that_task_alone(whole):
    config, _ = command.resolve(SMALL)
    problem = find_problem("multi_digits")
    alone = problem._replace(tasks=problem.tasks[:1])
    n, told = len(SPLITS["train"]), None
    states = []
    for at, program_of in ((problem, 0), (alone, 0)):
        item = programs(config)[program_of]
        setting = call.setting_of(config, item, at)._replace(problem=lambda told, at=at: at)
        told = call.told_of(config, item, item.trainings[4:7])
        weights = np.array([[1.0, 0.0]] * 3, np.float32)[:, : len(at.tasks)]
        told = told._replace(options={"static.weights": weights})
        params = training.common(setting, parts.example_of(SPLITS["train"]), 1).params(told)
        compiled = training.program(setting, n, 1)
        state, _ = compiled.advance(
            compiled.init(told, *params), told, SPLITS["train"].arrays, *training.start(0, 16, n, 3)
        )
        states.append(state.params)
    for x, y in zip(
        jax.tree.leaves(states[0]["shared"]), jax.tree.leaves(states[1]["shared"]), strict=True
    ):
        np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)


def test_devices_share_the_trainings(whole, tmp_path):
    """4 devices give what one gives, to rounding."""
    go(tmp_path / "four", dataclasses.replace(SMALL, width=4, devices=4))
    one, four = results.load(whole), results.load(tmp_path / "four")
    for name, result in one.arms.items():
        np.testing.assert_allclose(
            four.arms[name].curves.losses, result.curves.losses, rtol=1e-5, err_msg=name
        )


def test_a_training_that_fails_is_no_choice(tmp_path):
    given = dataclasses.replace(
        SMALL, learning_rates=(1e-3, 1e30), methods=("equal+pcgrad",), seeds=("0",), width=2
    )
    go(tmp_path / "failing", given)
    found = results.load(tmp_path / "failing").arms["equal+pcgrad"]
    assert found.chosen == 0
    assert found.failed == [-1]
    saved = results.read_call(results.call_path(tmp_path / "failing", "equal+pcgrad", 0))
    assert saved["failed"][1] in (1, 2)


def test_the_front_is_a_grid_over_the_simplex():
    assert simplex_grid(2, 9) == [(w, pytest.approx(2 - w)) for w in (1.8, 1.6, 1.4, 1.2)] + [
        (pytest.approx(w), pytest.approx(2 - w)) for w in (0.8, 0.6, 0.4, 0.2)
    ]
    for k in (2, 3, 4, 8):
        found = np.array(simplex_grid(k, 15))
        assert 0 < len(found) <= 15
        np.testing.assert_allclose(found.sum(axis=1), k)
        assert (found > 0).all()
        assert len(np.unique(found.round(6), axis=0)) == len(found)
    assert simplex_grid(1, 9) == simplex_grid(2, 0) == []


def test_scores_compare_relative_changes():
    both = jnp.ones(2)
    score = training.selection_score
    up, down = jnp.ones(2), jnp.array([1.0, -1.0])
    halved = score(jnp.array([0.45, 0.8]), up, both) - score(jnp.array([0.9, 0.8]), up, both)
    np.testing.assert_allclose(halved, -np.log(2) / 2, rtol=1e-5)
    np.testing.assert_allclose(
        score(jnp.array([0.5, 10.0]), down, both),
        score(jnp.array([0.05, 1.0]), down, both),
        rtol=1e-5,
    )
    assert score(jnp.array([0.5, jnp.nan]), up, jnp.array([1.0, 0.0])) == jnp.log(0.5)
    assert score(jnp.array([0.5, jnp.nan]), up, both) == -jnp.inf


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"metric": "acuracy"}, "no metric 'acuracy': did you mean 'accuracy'"),
        ({"seeds": ()}, "at least one seed"),
        ({"seeds": ("0-2", "1")}, "has a seed twice"),
        ({"seeds": ("9-3",)}, "the range 9-3 is empty"),
        ({"seeds": ("x",)}, "got 'x'"),
        ({"methods": ("pcgard",)}, "did you mean 'pcgrad'"),
        ({"methods": ("krum",)}, "multi_digits cannot be trained with krum"),
        ({"methods": ("static",)}, "always among the baselines"),
        ({"methods": ()}, "at least one method, or all"),
        ({"learning_rates": ()}, "at least one number"),
        ({"learning_rates": (0.0,)}, "must be positive, got 0"),
        ({"weight_decays": (-1.0,)}, "at least 0, got -1"),
        ({"steps": 7}, "--steps 7 must be a multiple of --evaluate-every 3"),
        ({"grid": ("cagrad.c=1",)}, "'cagrad' is not studied"),
        ({"grid": ("pcgrad.c=1",)}, "pcgrad has no option 'c'"),
        ({"grid": ("pcgrad.order=fixed",)}, "must be numbers"),
        ({"width": 3, "devices": 2}, "3 trainings do not divide over 2 devices"),
        ({"problem": "multi_digit"}, "did you mean 'multi_digits'"),
    ],
)
def test_bad_input_is_refused_in_one_line(change, said):
    with pytest.raises(UserError) as error:
        command.resolve(dataclasses.replace(SMALL, **change))
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_nothing_of_another_study_is_overwritten(whole, tmp_path):
    before = tiny.contents(whole)
    with pytest.raises(UserError, match="already holds a study: pass --resume"):
        go(whole)
    with pytest.raises(UserError, match=r"another configuration: .*steps"):
        go(whole, dataclasses.replace(SMALL, steps=9), resume=True)
    assert tiny.contents(whole) == before
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="holds other files"):
        go(tmp_path)
    with pytest.raises(UserError, match="no study in"):
        go(tmp_path / "none", resume=True)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_options_are_tried_as_hyperparameters(tmp_path):
    given = dataclasses.replace(
        SMALL,
        methods=("cagrad",),
        grid=("cagrad.c=0.1,0.9",),
        learning_rates=(1e-2,),
        seeds=("0",),
        front_points=0,
        nulls=0,
        width=2,
    )
    go(tmp_path / "grid", given)
    found = results.load(tmp_path / "grid").arms["cagrad"]
    assert [trial["cagrad.c"] for trial in found.arm.trials] == [0.1, 0.9]
    saved = results.read_call(results.call_path(tmp_path / "grid", "cagrad", 0))
    assert not np.array_equal(saved["curve/weights"][0], saved["curve/weights"][1])


def test_the_width_fits_an_arm_and_the_memory(monkeypatch):
    config, _ = command.resolve(dataclasses.replace(SMALL, width=None))
    problem = find_problem("multi_digits")
    opened = data.open_data(problem, Path("unused"), 2)
    config = dataclasses.replace(config, devices=2)
    assert width.fitting(config, programs(config), problem, opened) == 4  # 2 trials × 2 seeds
    monkeypatch.setattr(width, "SMALL_BYTES", 0)
    assert width.fitting(config, programs(config), problem, opened) == 4
    monkeypatch.setattr(width, "_memory", lambda devices: 1.0)
    assert width.fitting(config, programs(config), problem, opened) == 2


def test_the_commands_study_and_report(tmp_path, capsys):
    out = tmp_path / "study"
    line = (
        "study multi_digits --methods pcgrad --seeds 0-1 --learning-rates 0.001 0.01 "
        "--front-points 2 --steps 6 --evaluate-every 3 --batch-size 16 --hidden 8 --width 3"
    )
    words = line.split()
    assert cli.main([*words, "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "report.html" in said
    assert "single:right" in said
    study_json = json.loads((out / "study.json").read_text())
    assert study_json["command"] == "python -m experiments " + line
    before = {name: data for name, data in tiny.contents(out).items() if "cost" not in name}
    assert cli.main(["report", str(out)]) == 0
    after = tiny.contents(out)
    assert all(after[name] == data for name, data in before.items())
    capsys.readouterr()
    assert cli.main([*words, "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "already holds a study" in error
    assert cli.main(["report", str(tmp_path)]) == 2
    assert "no finished study" in capsys.readouterr().err


def test_the_demo_is_a_study_in_small():
    config, not_served = command.resolve(command.demo(1_500, Path("x"), Path("data")))
    kinds = [arm.kind for arm in config.arms]
    assert (kinds.count("method"), kinds.count("single"), len(config.seeds)) == (12, 2, 5)
    assert kinds.count("front") >= 4
    assert not not_served
    command.resolve(command.demo(7, Path("x"), Path("data")))


def test_a_trial_that_lost_fewer_seeds_comes_first():
    def row(score):
        return {"score": score, "best_step": 1, "failed": -1, "test/a/m": 0.5} | {
            f"curve/{name}": np.zeros(1) for name in results.Curves._fields if name != "steps"
        }

    trials = [[row(-np.inf), row(-0.1)], [row(-0.3), row(-0.4)], [row(-0.2), row(-0.4)]]
    assert results._chosen(None, trials, np.arange(1)).chosen == 2
    assert results._chosen(None, trials[:2], np.arange(1)).chosen == 1


@pytest.mark.parametrize(
    ("given", "width", "saved", "cores", "chosen"),
    [
        (None, None, None, 2, 2),
        (None, 40, None, 2, 2),
        (None, 3, None, 2, 1),  # cut into equal shares
        (None, 9, None, 6, 3),
        (None, None, None, 99, 8),  # as many as the suite simulates
        (None, None, 5, 2, 5),
        (4, None, 5, 2, 4),
        (0, None, None, 2, 0),  # refused with the study
    ],
)
def test_a_device_a_core_shares_the_trainings(given, width, saved, cores, chosen, monkeypatch):
    monkeypatch.setattr(devices.os, "sched_getaffinity", lambda pid: range(cores), raising=False)
    assert devices.choose(given, width, saved) == chosen


def test_a_study_that_goes_on_keeps_its_devices(tmp_path):
    one = dataclasses.replace(SMALL, out=tmp_path, devices=2, width=4)
    config, _ = command.resolve(one)
    (tmp_path / "study.json").write_text(json.dumps({"config": dataclasses.asdict(config)}))
    again = dataclasses.replace(one, devices=None, resume=True)
    assert command.resolve(again)[0].devices == 2
    assert devices.saved_devices(tmp_path / "none.json", "config", "devices") is None
