"""A run that was interrupted and resumed leaves what one that was not leaves, bit for bit."""

import dataclasses
import json
import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from experiments import run
from experiments.config import RunConfig
from experiments.errors import UserError
from jmtl.data import multi_digits, source
from tests.experiments import tiny
from tests.experiments.tiny import CONFIG, contents, left_behind, train

ROOT = Path(__file__).parents[2]
FROM_START = "no checkpoint on a multiple of 10 steps yet: starting from step 0"


def config_of(method="pcgrad", **changes):
    options = {name: {} for name in method.split("+")}
    return dataclasses.replace(CONFIG, method=method, method_options=options, **changes)


@pytest.fixture
def shared(monkeypatch):
    tiny.install(monkeypatch)


@pytest.fixture(scope="module")
def wholes(tmp_path_factory):
    """Runs that nothing interrupted, by configuration."""
    done: dict[str, Path] = {}

    def whole(config: RunConfig) -> Path:
        key = repr(config)
        if key not in done:
            done[key] = tmp_path_factory.mktemp("whole") / "run"
            train(config, done[key])
        return done[key]

    return whole


@pytest.mark.parametrize("feed", ["resident", "stream"])
@pytest.mark.parametrize("method", ["pcgrad", "uncertainty+pcgrad"])
def test_interrupted_twice_and_resumed(method, feed, tmp_path, shared, wholes):
    # 35 steps are no multiple of a dispatch.
    config = config_of(method, input=feed, steps=35 if method == "pcgrad" else 30)
    assert train(config, tmp_path, stop_at=20)[0] is None
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["10"]
    assert train(config, tmp_path, resume=True, stop_at=30)[0] is None
    summary, notes = train(config, tmp_path, resume=True)
    assert summary["steps"] == config.steps
    assert not notes
    assert left_behind(tmp_path) == left_behind(wholes(config))
    assert [line["step"] for line in left_behind(tmp_path)[1]] == [10, 20, 30, 35][
        : -(-config.steps // 10)
    ]


def test_both_inputs_give_the_same_run(shared, wholes):
    one, other = (left_behind(wholes(config_of(input=feed))) for feed in ("resident", "stream"))
    assert one[0]["params_norm"] == pytest.approx(other[0]["params_norm"], rel=1e-6)
    for line, same in zip(one[1], other[1], strict=True):
        assert line["losses"] == pytest.approx(same["losses"], abs=1e-6)


@pytest.mark.parametrize("stop_at", [10, 35])
@pytest.mark.parametrize("checkpoint_every", [10, 20])
def test_interrupted_at_the_first_or_the_last_record(
    stop_at, checkpoint_every, tmp_path, shared, wholes
):
    config = config_of(checkpoint_every=checkpoint_every)
    assert train(config, tmp_path, stop_at=stop_at)[0] is None
    summary, notes = train(config, tmp_path, resume=True)
    assert summary is not None
    # Before the first checkpoint there is nothing to continue from but the beginning.
    assert notes == ([FROM_START] if stop_at == 10 else [])
    assert left_behind(tmp_path) == left_behind(wholes(config))


def test_programs_compiled_anew_give_the_same_bits(tmp_path, monkeypatch, compiled_anew):
    tiny.install(monkeypatch, shared=False)
    config = config_of("uncertainty+pcgrad", steps=20)
    train(config, tmp_path / "whole")
    train(config, tmp_path / "broken", stop_at=20)
    train(config, tmp_path / "broken", resume=True)
    assert left_behind(tmp_path / "broken") == left_behind(tmp_path / "whole")
    test = left_behind(tmp_path / "whole")[0]["test"]
    assert set(test) == {"left", "right"}


@pytest.mark.parametrize(
    ("first", "dropped"),
    [(20, None), (25, "step 25: not a step to continue from"), (7, FROM_START)],
)
def test_more_steps_later_are_more_steps_at_once(first, dropped, tmp_path, shared, wholes):
    # 7 steps are less than a dispatch: all of them are done again.
    train(config_of(steps=first), tmp_path)
    _, notes = train(config_of(steps=40), tmp_path, resume=True)
    assert left_behind(tmp_path) == left_behind(wholes(config_of(steps=40)))
    assert json.loads((tmp_path / "config.json").read_text())["steps"] == 40
    assert notes == ([dropped] if dropped else [])


def test_more_steps_than_a_checkpoint_lies_on(tmp_path, shared, wholes):
    # From step 20, the only multiple of 20 before 35, there would be 15 steps to do again.
    train(config_of(steps=35, checkpoint_every=20), tmp_path)
    records = []
    run.train(
        config_of(steps=40, checkpoint_every=20),
        tmp_path,
        data_dir=Path("unused"),
        resume=True,
        watcher=run.Watcher(logged=records.append),
    )
    assert [record["step"] for record in records] == [40]  # from 30
    assert left_behind(tmp_path) == left_behind(wholes(config_of(steps=40, checkpoint_every=20)))


def test_a_longer_run_that_was_interrupted_is_the_run_that_goes_on(tmp_path, shared, wholes):
    train(config_of(steps=25), tmp_path)
    train(config_of(steps=40), tmp_path, resume=True, stop_at=30)
    saved = RunConfig(**json.loads((tmp_path / "config.json").read_text()))
    assert saved == config_of(steps=40)
    train(saved, tmp_path, resume=True)
    assert left_behind(tmp_path) == left_behind(wholes(config_of(steps=40)))


def test_fewer_steps_are_refused_and_nothing_is_lost(tmp_path, shared):
    train(config_of(steps=30), tmp_path)
    before = contents(tmp_path)
    with pytest.raises(UserError, match="is at step 30 already; --steps 20 is behind"):
        train(config_of(steps=20), tmp_path, resume=True)
    assert contents(tmp_path) == before


def test_a_finished_run_resumed_is_the_same_run(tmp_path, shared):
    train(config_of(), tmp_path)
    before = left_behind(tmp_path)
    train(config_of(), tmp_path, resume=True)
    assert left_behind(tmp_path) == before


def test_checkpoints_of_an_unknown_run_are_not_mixed_with_a_new_one(tmp_path, shared):
    train(config_of(), tmp_path, stop_at=30)
    (tmp_path / "config.json").unlink()
    before = contents(tmp_path)
    with pytest.raises(UserError, match=r"checkpoints of a run without its config.json"):
        train(config_of(), tmp_path)
    assert contents(tmp_path) == before


def largest_file(folder):
    return max((p for p in folder.rglob("*") if p.is_file()), key=lambda p: p.stat().st_size)


def damage(folder, how):
    path = largest_file(folder)
    data = bytearray(path.read_bytes())
    if how == "flipped":
        data[len(data) // 2] ^= 1
    else:
        del data[len(data) // 2 :]
    path.write_bytes(data)


@pytest.mark.parametrize("how", ["flipped", "truncated"])
def test_a_damaged_checkpoint_is_passed_over(how, tmp_path, shared, wholes):
    config = config_of(steps=35)
    train(config, tmp_path, stop_at=35)
    damage(tmp_path / "checkpoints" / "30", how)
    _, notes = train(config, tmp_path, resume=True)
    assert len(notes) == 1
    assert notes[0].startswith("step 30: damaged")
    assert left_behind(tmp_path) == left_behind(wholes(config))


def test_where_all_checkpoints_are_damaged_nothing_is_trained(tmp_path, shared):
    config = config_of()
    train(config, tmp_path, stop_at=30)
    for folder in (tmp_path / "checkpoints").iterdir():
        damage(folder, "flipped")
    before = contents(tmp_path)
    with pytest.raises(
        UserError, match=r"no usable checkpoint.*step 20: damaged.*step 10: damaged"
    ):
        train(config, tmp_path, resume=True)
    assert contents(tmp_path) == before


def test_another_configuration_is_refused_by_its_fields(tmp_path, shared):
    train(config_of(), tmp_path, stop_at=30)
    before = contents(tmp_path)
    other = config_of(
        learning_rate=0.02, encoder="lenet", encoder_options={"dropout": 0.1}, batch_size=32
    )
    with pytest.raises(UserError) as refusal:
        train(other, tmp_path, resume=True)
    text = str(refusal.value)
    for clause in (
        "learning_rate: saved 0.01, given 0.02",
        'encoder: saved "mlp", given "lenet"',
        "encoder_options.dropout: saved 0.3, given 0.1",
        "batch_size: saved 16, given 32",
    ):
        assert clause in text
    assert "\n" not in text
    assert contents(tmp_path) == before


def test_no_run_to_resume_and_a_run_in_the_way(tmp_path, shared):
    with pytest.raises(UserError, match=r"no run in .*, or leave out --resume"):
        train(config_of(), tmp_path / "none", resume=True)
    assert not (tmp_path / "none").exists()
    train(config_of(steps=10), tmp_path)
    before = contents(tmp_path)
    with pytest.raises(UserError, match=r"already holds a run: pass --resume"):
        train(config_of(steps=10), tmp_path)
    assert contents(tmp_path) == before


def test_other_devices_may_go_on(tmp_path, shared, wholes):
    train(config_of(steps=30), tmp_path, stop_at=20)
    other = config_of(steps=30, devices=2, parallel="pmap")
    train(other, tmp_path, resume=True)
    found, expected = left_behind(tmp_path), left_behind(wholes(config_of(steps=30)))
    assert found[0]["params_norm"] == pytest.approx(expected[0]["params_norm"], rel=1e-5)
    for one, other in zip(found[1], expected[1], strict=True):
        assert one["losses"] == pytest.approx(other["losses"], rel=1e-4)


# Disks, folders and data that fail on the way


def stopped_by(config, folder, step, happens):
    """What the person is told of a run to which something happens at a record."""
    watcher = run.Watcher(logged=lambda record: happens() if record["step"] == step else None)
    with pytest.raises(UserError) as error:
        run.train(config, folder, data_dir=Path("unused"), resume=False, watcher=watcher)
    assert "\n" not in str(error.value)
    return str(error.value)


def wait_for(path):
    """Until what is written in the background is there."""
    deadline = time.monotonic() + 30
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.005)
    assert path.exists()


def test_a_disk_that_fills_up(tmp_path, shared, wholes):
    config = config_of(steps=40)
    expected = left_behind(wholes(config))  # before files are limited: it compiles
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    folder = tmp_path / "run"

    def fill_up():
        wait_for(folder / "checkpoints" / "20")
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, limits[1]))

    try:
        said = stopped_by(config, folder, 30, fill_up)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert said == (
        f"the checkpoint of step 30 could not be written to {folder / 'checkpoints'}: "
        "File too large; the last good one is step 20"
    )
    assert not train(config, folder, resume=True)[1]
    assert left_behind(folder) == expected


@pytest.mark.parametrize(("checkpoint_every", "saved"), [(10, True), (40, False)])
def test_a_folder_that_vanishes(checkpoint_every, saved, tmp_path, shared):
    folder, elsewhere = tmp_path / "run", tmp_path / "elsewhere"
    config = config_of(steps=40, checkpoint_every=checkpoint_every)

    def vanish():
        if saved:
            wait_for(folder / "checkpoints" / "10")
        folder.rename(elsewhere)

    said = stopped_by(config, folder, 20, vanish)
    assert "No such file or directory" in said
    assert str(folder) in said
    assert not folder.exists()
    if saved:
        elsewhere.rename(folder)
        assert not train(config, folder, resume=True)[1]
        assert (folder / "summary.json").exists()


class Some:
    """The features of a split that other runs here have, so that programs are shared."""

    def __init__(self, split):
        self.split = split

    def __len__(self):
        return len(self.split)

    def __getitems__(self, keys):
        names = tiny.SPLITS["train"].arrays
        return [{name: x[name] for name in names} for x in self.split.__getitems__(keys)]


def test_data_that_is_damaged_on_the_way(tmp_path, monkeypatch, shared):
    monkeypatch.setattr(multi_digits, "PAIRS", {"train": 300, "validation": 5, "test": 50})
    builder = source.prepare("multi_digits", tmp_path)
    splits = {name: Some(source.load(builder, name)) for name in tiny.SPLITS}
    tiny.install(monkeypatch, splits=splits)
    (path,) = Path(builder.data_path).glob("*train*")
    whole = path.read_bytes()
    config = config_of(input="stream", steps=80)
    train(config, tmp_path / "whole")
    folder = tmp_path / "run"
    damaged = bytearray(whole)
    damaged[100:60_000] = bytes(59_900)
    said = stopped_by(config, folder, 20, lambda: path.write_bytes(damaged))
    assert said.startswith(f"{path} cannot be read (")
    last = max(int(each.name) for each in (folder / "checkpoints").iterdir())
    assert last >= 20
    assert said.endswith(f"; the last checkpoint is step {last}: then continue with --resume")
    path.write_bytes(whole)
    assert not train(config, folder, resume=True)[1]
    assert left_behind(folder) == left_behind(tmp_path / "whole")


# Processes that are killed


def command(folder, data_dir, steps, resume):
    flags = f"--steps {steps} --checkpoint-every 200 --devices 1 --batch-size 64"
    return [
        *(sys.executable, "-W", "error", "-m", "experiments", "train", "multi_digits"),
        *("--method", "uncertainty+pcgrad", "--out", str(folder), "--data-dir", str(data_dir)),
        *flags.split(),
        *(["--resume"] if resume else []),
    ]


def start(*arguments):
    return subprocess.Popen(
        command(*arguments), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0])
def test_killed_ten_times(seed, tmp_path, data_dir):
    rng, steps = random.Random(seed), 6000
    process = start(tmp_path / "whole", data_dir, steps, False)
    assert process.communicate(timeout=600)[1] == ""
    broken = tmp_path / "broken"
    kills = 0
    while kills < 10:
        process = start(broken, data_dir, steps, (broken / "config.json").exists())
        metrics = broken / "metrics.jsonl"
        begun = metrics.stat().st_mtime_ns if metrics.exists() else 0
        # Some die while they start, the others while they train.
        wait_for_training = rng.random() < 0.7
        while wait_for_training and process.poll() is None:
            if metrics.exists() and metrics.stat().st_mtime_ns != begun:
                break
            time.sleep(0.005)
        try:
            process.wait(rng.uniform(0, 1.0 if wait_for_training else 6.0))
            break  # it came to its end
        except subprocess.TimeoutExpired:
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        assert "Traceback" not in process.communicate()[1]
    assert kills == 10
    process = start(broken, data_dir, steps, (broken / "config.json").exists())
    said, errors = process.communicate(timeout=600)
    assert (process.returncode, errors) == (0, ""), said
    assert left_behind(broken) == left_behind(tmp_path / "whole")
