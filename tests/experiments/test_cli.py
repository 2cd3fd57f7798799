"""The command line: what it prints and leaves, and bad input in one line with exit code 2."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from experiments import parts, resume
from experiments import run as runs
from experiments.cli import main
from experiments.config import RunConfig
from experiments.errors import UserError
from experiments.problems import PROBLEMS
from jmtl.methods import METHODS
from jmtl.train import checkpoint
from tests.experiments import tiny
from tests.experiments.tiny import CONFIG, contents

ROOT = Path(__file__).parents[2]
TASKS = ("left", "right")


def train(data_dir, out, *more, devices=1):
    """Arguments of a run of few steps and a small batch."""
    given = ["train", "multi_digits", "--data-dir", str(data_dir), "--out", str(out)]
    small = {"--steps": "20", "--batch-size": "32", "--devices": str(devices)}
    for flag, value in small.items():
        if flag not in more:
            given += [flag, value]
    return [*given, *map(str, more)]


def refused(capsys, arguments):
    """The one line on stderr, after its "error: "."""
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == 2
    out, err = capsys.readouterr()
    assert err.startswith("error: ")
    assert err.endswith("\n")
    assert err.count("\n") == 1
    assert "Traceback" not in out + err
    return err.removeprefix("error: ").strip()


# Good input


@pytest.fixture(scope="module")
def run(tmp_path_factory, data_dir):
    """A finished run of 20 steps, its folder only."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    arguments = train(data_dir, folder, "--method", "static+pcgrad", "--weights", "left=2,right=1")
    assert main(arguments) == 0
    return folder


def test_list(capsys):
    assert main(["list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    names = [line.split()[0] for line in lines if line.startswith("  ")]
    assert len(set(names)) == len(names)
    assert {*PROBLEMS, *METHODS} <= set(names)
    assert all(len(line.split()) > 2 for line in lines if line.startswith("  "))


def test_help(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["train", "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    for flag in (
        *("--method", "--weights", "--options", "--seed", "--steps", "--batch-size", "--resume"),
        *("--learning-rate", "--devices", "--parallel", "--out", "--summary", "--input"),
    ):
        assert flag in text


def test_the_summary_of_a_run(run, capsys):
    summary = json.loads((run / "summary.json").read_text())
    assert summary["steps"] == 20
    assert set(summary["test"]) == set(summary["final_losses"]) == set(TASKS)
    for task in TASKS:
        scores = summary["test"][task]
        assert {"accuracy", "precision", "recall", "f1", "loss"} <= set(scores)
        assert 0 <= scores["accuracy"] <= 1
        assert summary["final_losses"][task] > 0
    assert summary["seconds"] > 0
    assert {"python", "jax", "jmtl", "optax"} <= set(summary["versions"])
    assert len(summary["params_sha256"]) == 64
    assert summary["params_norm"] > 0


def test_the_sum_of_the_parameters_can_be_checked_from_outside(run, data_dir):
    config = RunConfig(**json.loads((run / "config.json").read_text()))
    example = parts.example_of(parts.open_splits(PROBLEMS["multi_digits"], data_dir)("train"))
    found = resume.restored(config, run, example, print)
    summary = json.loads((run / "summary.json").read_text())
    assert found.step == 20
    assert checkpoint.digest(found.state.params) == summary["params_sha256"]
    squares = sum(float((leaf**2).sum()) for leaf in jax.tree.leaves(found.state.params))
    assert summary["params_norm"] == pytest.approx(squares**0.5, rel=1e-5)


def test_the_metrics_and_the_configuration_of_a_run(run):
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [20]
    for line in lines:
        assert set(line["losses"]) == set(line["weights"]) == set(TASKS)
        assert 0 <= line["conflict_rate"] <= 1
        assert line["examples_per_second"] > 0
    saved = json.loads((run / "config.json").read_text())
    assert set(saved) == {field.name for field in dataclasses.fields(RunConfig)}
    assert saved["method_options"] == {"static": {"weights": [2.0, 1.0]}, "pcgrad": {}}
    assert (saved["steps"], saved["batch_size"], saved["input"]) == (20, 32, "resident")


def test_evaluate_prints_the_scores_of_the_summary(run, data_dir, capsys):
    before = contents(run)
    assert main(["evaluate", str(run), "--data-dir", str(data_dir)]) == 0
    printed = capsys.readouterr().out
    summary = json.loads((run / "summary.json").read_text())
    found: dict[str, list[str]] = {}
    for cells in ([part.strip() for part in line.split("│")] for line in printed.splitlines()):
        if len(cells) == 5:
            task = cells[1] or task
            found.setdefault(task, []).append(f"{cells[2]} {cells[3]}")
    for task in TASKS:
        assert found[task] == [
            f"{name} {value:.4f}" for name, value in summary["test"][task].items()
        ]
    assert contents(run) == before


def test_a_stream_under_pmap_gives_the_same_run(run, tmp_path, data_dir, capsys):
    flags = ["--method", "static+pcgrad", "--weights", "left=2,right=1", "--summary"]
    out = tmp_path / "out"
    other = ["--input", "stream", "--parallel", "pmap", "--microbatches", "2"]
    assert main(train(data_dir, out, *flags, *other, devices=2)) == 0
    printed = capsys.readouterr().out
    for word in ("encoder", "left", "right", "total", "parameters", "Dense_0"):
        assert word in printed
    found, expected = (json.loads((at / "summary.json").read_text()) for at in (out, run))
    assert found["params_norm"] == pytest.approx(expected["params_norm"], rel=1e-6)
    assert found["final_losses"] == pytest.approx(expected["final_losses"], rel=1e-5)
    assert json.loads((out / "config.json").read_text())["input"] == "stream"


# Bad input, before anything is read or written


def flags_of(value):
    """The name of a case: its flags."""
    return " ".join(value) if isinstance(value, list) else ""


BEFORE_DATA = [
    (["train", "multi_digit"], "unknown problem 'multi_digit': did you mean 'multi_digits'?"),
    (["--method", "pcgradd"], "unknown method 'pcgradd': did you mean 'pcgrad'?"),
    (["--method", "uncertainty+pcgradd"], "did you mean 'pcgrad'?"),
    (["--method", "pcgrad+uncertainty"], "pcgrad needs gramian and can only come last"),
    (["--metod", "pcgrad"], "did you mean --method?"),
    (["--options", "oder=fixed"], "pcgrad has no option 'oder': did you mean 'order'?"),
    (["--options", "order"], "takes option=value or method.option=value, got 'order'"),
    (["--options", "order=up"], "order must be one of random, fixed; got 'up'"),
    (["--options", "mgda.x=1"], "'mgda' is not in --method pcgrad"),
    (["--options", "key=3"], "pcgrad has no option 'key'"),
    (["--weights", "left=1,right=1"], "use --method static+pcgrad, not --method pcgrad"),
    (["--method", "static"], "needs --weights, as --weights left=1,right=1"),
    (["--method", "static", "--weights", "left=1"], "no weight for right"),
    (["--method", "static", "--weights", "lef=1,right=1"], "did you mean 'left'?"),
    (["--method", "static", "--weights", "left=x,right=1"], "got 'left=x'"),
    (["--method", "static", "--weights", "left=1,left=2,right=1"], "left is given twice"),
    (["--method", "static", "--weights", "left=-1,right=1"], "finite and >= 0"),
    (["--method", "static", "--weights", "left=nan,right=1"], "finite and >= 0"),
    (["--steps", "0"], "--steps must be at least 1, got 0"),
    (["--steps", "-5"], "--steps must be at least 1, got -5"),
    (["--steps", "many"], "--steps cannot be read from 'many'"),
    (["--batch-size", "0"], "--batch-size must be at least 1, got 0"),
    (["--batch-size", "-1"], "--batch-size must be at least 1, got -1"),
    (
        ["--batch-size", "100", "--devices", "8"],
        "100 does not divide over 8 devices: use 96 or 104",
    ),
    (
        ["--batch-size", "100", "--microbatches", "8"],
        "100 does not divide over 1 device in 8 microbatches: use 96 or 104",
    ),
    (["--microbatches", "0"], "--microbatches must be at least 1, got 0"),
    (["--devices", "9"], "9 devices asked for, and there are 8: "),
    (["--devices", "0"], "--devices must be at least 1, got 0"),
    (["--parallel", "mesh"], "invalid choice 'mesh' for argument '--parallel'"),
    (["--learning-rate", "0"], "--learning-rate must be positive, got 0.0"),
    (["--learning-rate", "nan"], "--learning-rate must be positive, got nan"),
    (["--weight-decay", "-1"], "--weight-decay must be at least 0"),
    (["--seed", "-1"], "--seed must be in [0, 2**32), got -1"),
    (["--encoder", "mpl"], "unknown encoder 'mpl'"),
    (["--augment", "shft"], "multi_digits has no augmentation 'shft': did you mean 'shift'?"),
    (["--recipe", "defalt"], "multi_digits has no recipe 'defalt': did you mean 'default'?"),
    (["--schedule", "100"], "--schedule takes step=factor, as 1000=0.5, or none, got '100'"),
    (["--schedule", "0=0.5"], "--schedule takes step=factor, as 1000=0.5, or none, got '0=0.5'"),
    (["--schedule", "9=0.5", "9=2"], "--schedule names step 9 twice"),
    (["--checkpoint-every", "150"], "must be a multiple of the 100 steps of a dispatch"),
]


@pytest.mark.parametrize(("flags", "message"), BEFORE_DATA, ids=flags_of)
def test_refused_before_anything_is_read_or_written(flags, message, tmp_path, capsys):
    given = flags if flags[0] == "train" else ["train", "multi_digits", *flags]
    if "--devices" not in given:
        given = [*given, "--devices", "1"]
    said = refused(capsys, [*given, "--out", tmp_path / "out", "--data-dir", tmp_path / "data"])
    assert message in said
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian"], "Unrecognized options: trian"),
        (["list", "extra"], "Unrecognized options: extra"),
        (["evaluate"], "Missing from python -m experiments evaluate"),
        ([], "Expected one of"),
        (["evaluate", "/proc/no-such-run"], "no run in /proc/no-such-run"),
    ],
)
def test_commands_that_are_none(arguments, message, capsys):
    assert message in refused(capsys, arguments)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--encoder", "lenet"], "lenet takes images [B, H, W]"),
        (["--encoder", "lenet", "--summary"], "lenet takes images [B, H, W]"),
        (["--dropout", "1.5"], "a dropout rate is at least 0 and below 1, got 1.5"),
        (["--method", "uncertainty", "--options", "s0=abc"], "an option of --method uncertainty"),
        (["--method", "uncertainty", "--options", "learning_rate=x"], "an option of --method"),
        (["--batch-size", "10000000000"], "is too large for 20,000 examples"),
        (
            ["--method", "graddrop", "--at", "representation"],
            "at='representation' serves methods of one Gramian",
        ),
        (["--microbatches", "2", "--strategy", "recompute"], "(Gramians do not add): use 'auto'"),
    ],
    ids=flags_of,
)
def test_what_does_not_fit_the_data_leaves_no_folder(flags, message, tmp_path, data_dir, capsys):
    assert message in refused(capsys, train(data_dir, tmp_path / "out", *flags))
    assert list(tmp_path.iterdir()) == []


# Folders that cannot be used


def test_output_folders_that_cannot_be_written(tmp_path, data_dir, capsys):
    file = tmp_path / "file"
    file.write_text("mine")
    for folder in (Path("/proc/run"), file, file / "run"):
        said = refused(capsys, train(data_dir, folder))
        assert said.startswith(f"cannot write to {folder}: ")
        assert said.endswith("; make room or name another folder")
    assert file.read_text() == "mine"


def test_data_folders_that_cannot_be_written(tmp_path, capsys):
    for folder in ("/proc/data", "/dev/null"):
        said = refused(capsys, train(folder, tmp_path / "out"))
        assert said.startswith(f"no data can be kept in {folder}: ")
    assert list(tmp_path.iterdir()) == []


LIMITED = """
import resource, runpy, sys
limit = int(sys.argv.pop(1))
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
runpy.run_module("experiments", run_name="__main__", alter_sys=True)
"""


def limited(limit, arguments):
    """The command in a process whose files cannot grow beyond a limit: a full disk."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-c", LIMITED, str(limit), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=240,
    )


@pytest.mark.parametrize("limit", [10_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_a_disk_without_room(limit, tmp_path, data_dir, compiled_anew):
    # 10 kB are too few to begin; 100 kB hold the records but no checkpoint of the recipe's model.
    done = limited(limit, train(data_dir, tmp_path / "out"))
    assert done.returncode == 2, done.stderr
    lines = done.stderr.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("error: ")
    assert "File too large" in lines[0]
    if limit == 10_000:
        assert not (tmp_path / "out").exists()
    else:
        assert "the checkpoint of step 20 could not be written" in lines[0]


def test_a_way_of_sharing_and_its_options(tmp_path, data_dir, capsys):
    out = tmp_path / "out"
    assert main(train(data_dir, out, "--sharing", "mmoe", "experts=2", "--dropout", "0")) == 0
    saved = json.loads((out / "config.json").read_text())
    assert (saved["sharing"], saved["sharing_options"]) == ("mmoe", {"experts": 2})
    leaves = checkpoint.read(out / "checkpoints")[1]
    names = {path.split("/")[2] for path in leaves if "params/shared" in path}
    assert names == {"expert_0", "expert_1"}
    # What is not said again stays; what is said is compared.
    assert main(train(data_dir, out, "--resume", "--steps", "40")) == 0
    said = refused(capsys, train(data_dir, out, "--resume", "--sharing", "hard"))
    assert 'sharing: saved "mmoe", given "hard"' in said
    for given, answer in (
        (["mmmoe"], "unknown sharing 'mmmoe'; did you mean 'mmoe'?"),
        (["mmoe", "expert=2"], "mmoe has no option 'expert'; did you mean 'experts'?"),
        (["mmoe", "2"], "--sharing takes a name and option=value, as mmoe experts=4: '2'"),
    ):
        assert refused(capsys, train(data_dir, tmp_path / "no", "--sharing", *given)) == answer
    assert not (tmp_path / "no").exists()


# A run in the folder


def test_a_run_is_not_overwritten_or_taken_for_another(run, tmp_path, data_dir, capsys):
    before = contents(run)
    said = refused(capsys, train(data_dir, run))
    assert said == f"{run} already holds a run: pass --resume to continue it, or another --out"
    said = refused(capsys, train(data_dir, run, "--resume", "--learning-rate", "0.5"))
    assert "learning_rate: saved 0.001, given 0.5" in said
    said = refused(capsys, train(data_dir, run, "--resume", "--encoder", "lenet"))
    assert 'encoder: saved "mlp", given "lenet"' in said
    said = refused(capsys, train(data_dir, run, "--resume", "--method", "pcgrad"))
    assert 'method: saved "static+pcgrad", given "pcgrad"' in said
    said = refused(capsys, train(data_dir, run, "--resume", "--steps", "10"))
    assert "is at step 20 already; --steps 10 is behind" in said
    assert contents(run) == before
    nothing = tmp_path / "nothing"
    said = refused(capsys, train(data_dir, nothing, "--resume"))
    assert said.startswith(f"no run in {nothing} (it has no config.json)")
    assert not nothing.exists()


def test_a_truncated_checkpoint_is_named(run, tmp_path, data_dir, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    files = [path for path in (copy / "checkpoints" / "20").rglob("*") if path.is_file()]
    largest = max(files, key=lambda path: path.stat().st_size)
    os.truncate(largest, largest.stat().st_size // 2)
    before = contents(copy)
    for arguments in (
        train(data_dir, copy, "--resume"),
        ["evaluate", copy, "--data-dir", data_dir],
    ):
        said = refused(capsys, arguments)
        assert said.startswith(f"no usable checkpoint in {copy}/checkpoints (step 20: damaged")
    assert contents(copy) == before


def test_a_configuration_that_cannot_be_read(run, tmp_path, data_dir, capsys):
    copy = tmp_path / "copy"
    copy.mkdir()
    for text, message in (
        ("{", "config.json cannot be read"),
        ("{}", "config.json is of another version: fields at, "),
        ("[1]", "config.json is not the configuration of a run"),
    ):
        (copy / "config.json").write_text(text)
        assert message in refused(capsys, ["evaluate", copy, "--data-dir", data_dir])


# Training that fails


def test_a_loss_that_is_not_finite_names_its_task(tmp_path, data_dir, capsys):
    out = tmp_path / "out"
    flags = ["--optimizer", "sgd", "--learning-rate", "1e30"]
    said = refused(capsys, train(data_dir, out, *flags))
    assert said.startswith("the loss or gradient of task 'left' is not finite at step 1; no check")
    assert "try a learning rate below 1e+30" in said
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["losses"]["left"] is None
    assert not (out / "summary.json").exists()


def test_the_last_good_checkpoint_is_kept(tmp_path, monkeypatch):
    tiny.install(monkeypatch)
    config = dataclasses.replace(
        CONFIG,
        optimizer="sgd",
        learning_rate=1e30,
        steps=5,
        steps_per_dispatch=1,
        checkpoint_every=1,
    )
    with pytest.raises(UserError, match="not finite at step 1; the last good checkpoint, step 1"):
        tiny.train(config, tmp_path)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["1"]
    before = contents(tmp_path / "checkpoints")
    with pytest.raises(UserError, match="not finite at step 1; the last good checkpoint, step 1"):
        tiny.train(config, tmp_path, resume=True)
    assert contents(tmp_path / "checkpoints") == before


def test_nothing_is_compiled_after_the_first_dispatches(tmp_path, monkeypatch, caplog):
    tiny.install(monkeypatch, shared=False)
    seen = []

    def logged(record):
        seen.append((record["step"], len(compilations(caplog))))

    with jax.log_compiles(), caplog.at_level("WARNING"):
        config = dataclasses.replace(CONFIG, steps=60)
        runs.train(
            config,
            tmp_path,
            data_dir=tmp_path,
            resume=False,
            watcher=runs.Watcher(logged=logged),
        )
    counts = dict(seen)
    assert counts[20] > 0
    assert counts[60] == counts[20]


def compilations(caplog):
    return [r for r in caplog.records if "Finished XLA compilation" in r.getMessage()]
