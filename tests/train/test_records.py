"""Records: strict JSON, whole files, lines that survive a resume, errors on one line."""

import json
import math
import os
import shutil
import subprocess
import sys
import types
from pathlib import Path
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
import pytest

from jmtl.train import records


def strict(text: str):
    def refuse(name):
        raise AssertionError(f"{name} is not JSON")

    return json.loads(text, parse_constant=refuse)


class Config(NamedTuple):
    method: str = "pcgrad"
    weights: tuple = (1.0, 2.0)


def test_jsonl_is_strict_and_flushed(tmp_path):
    writer = records.jsonl(tmp_path / "metrics.jsonl")
    writer.write(
        {
            "step": jnp.int32(5),
            "losses": {"left": jnp.float32(0.5), "right": float("nan")},
            "weights": np.array([1.0, np.inf]),
            "conflict_rate": np.float32(0.25),
            "path": tmp_path,
            "config": Config(),
        }
    )
    (line,) = (tmp_path / "metrics.jsonl").read_text().splitlines()  # before close
    assert strict(line) == {
        "step": 5,
        "losses": {"left": 0.5, "right": None},
        "weights": [1.0, None],
        "conflict_rate": 0.25,
        "path": str(tmp_path),
        "config": {"method": "pcgrad", "weights": [1.0, 2.0]},
    }
    writer.close()


def test_jsonl_starts_anew_or_continues(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for _ in range(2):
        writer = records.jsonl(path)
        for step in (10, 20, 30, 40):
            writer.write({"step": step})
        writer.close()
    with path.open("a") as file:
        file.write('{"step": 15, "loss')
    writer = records.jsonl(path, resume_step=20)
    writer.write({"step": 30, "again": True})
    writer.close()
    lines = [strict(line) for line in path.read_text().splitlines()]
    assert lines == [{"step": 10}, {"step": 20}, {"step": 30, "again": True}]
    assert [entry.name for entry in tmp_path.iterdir()] == ["metrics.jsonl"]


@pytest.mark.parametrize("content", ["", '{"step": 1}\n{"st', '[1]\n"x"\n{"no": 1}\n\x00\xff'])
def test_jsonl_continues_after_anything(tmp_path, content):
    path = tmp_path / "metrics.jsonl"
    path.write_text(content, encoding="latin-1")
    records.jsonl(path, resume_step=5).close()
    assert all("step" in strict(line) for line in path.read_text().splitlines())
    records.jsonl(tmp_path / "new.jsonl", resume_step=5).close()
    assert (tmp_path / "new.jsonl").read_text() == ""


def test_a_file_that_is_removed_takes_no_more_records(tmp_path):
    path = tmp_path / "run" / "m.jsonl"
    path.parent.mkdir()
    writer = records.jsonl(path)
    writer.write({"step": 1})
    shutil.rmtree(path.parent)
    with pytest.raises(records.OutputError) as error:
        writer.write({"step": 2})
    assert str(error.value).startswith(f"cannot write to {path}: No such file or directory; ")
    writer.close()


def test_write_json_is_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "summary.json"
    records.write_json(path, {"x": jnp.arange(2), "bad": -math.inf})
    assert strict(path.read_text()) == {"x": [0, 1], "bad": None}

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(records.OutputError, match=r"summary\.json: No space left on device"):
        records.write_json(path, {"x": 2})
    assert strict(path.read_text())["x"] == [0, 1]
    assert [entry.name for entry in tmp_path.iterdir()] == ["summary.json"]


def test_only_the_primary_writes(tmp_path):
    records.write_json(tmp_path / "a.json", {}, primary=False)
    records.check_writable(tmp_path / "folder", primary=False)
    for writer in (
        records.jsonl(tmp_path / "m.jsonl", primary=False),
        records.tensorboard(tmp_path / "tb", primary=False),
        records.wandb("jmtl", primary=False),
        records.null(),
    ):
        writer.write({"step": 1})
        writer.close()
    assert not list(tmp_path.iterdir())


def test_combine_closes_all():
    seen = []

    def broken():
        raise records.OutputError("cannot")

    one = records.Writer(lambda record: seen.append(("one", record["step"])), broken)
    two = records.Writer(
        lambda record: seen.append(("two", record["step"])), lambda: seen.append(("two", "closed"))
    )
    writer = records.combine(one, two)
    writer.write({"step": 3})
    with pytest.raises(records.OutputError, match="cannot"):
        writer.close()
    assert seen == [("one", 3), ("two", 3), ("two", "closed")]


RECORD = {
    "step": np.int64(4),
    "losses": {"left": 0.5, "right": math.nan},
    "weights": {"left": jnp.float32(2.0)},
    "note": "text",
    "cosine": [[1.0, 0.5]],
}


def test_tensorboard(tmp_path):
    from tensorboardX.proto import event_pb2

    writer = records.tensorboard(tmp_path / "tb")
    writer.write(RECORD)
    writer.close()
    (path,) = (tmp_path / "tb").iterdir()
    data, scalars = path.read_bytes(), {}  # length, its checksum, event, its checksum; and again
    while data:
        size = int.from_bytes(data[:8], "little")
        event = event_pb2.Event.FromString(data[12 : 12 + size])
        scalars |= {value.tag: (value.simple_value, event.step) for value in event.summary.value}
        data = data[16 + size :]
    assert scalars == {"losses/left": (0.5, 4), "weights/left": (2.0, 4)}


def test_wandb(monkeypatch, tmp_path):
    calls = []
    run = types.SimpleNamespace(
        log=lambda values, step: calls.append((values, step)), finish=lambda: calls.append("finish")
    )
    fake = types.SimpleNamespace(init=lambda **options: calls.append(options) or run)
    monkeypatch.setitem(sys.modules, "wandb", fake)
    writer = records.wandb("jmtl", name="a", config=Config()._asdict(), directory=tmp_path)
    writer.write(RECORD)
    writer.close()
    assert calls == [
        {
            "project": "jmtl",
            "name": "a",
            "config": {"method": "pcgrad", "weights": [1.0, 2.0]},
            "dir": str(tmp_path),
        },
        ({"losses/left": 0.5, "weights/left": 2.0}, 4),
        "finish",
    ]


@pytest.mark.parametrize(("module", "extra"), [("tensorboardX", "tensorboard"), ("wandb", "wandb")])
def test_missing_extra(monkeypatch, tmp_path, module, extra):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(records.OutputError) as error:
        getattr(records, extra)(str(tmp_path))
    assert str(error.value) == f"{module} is not installed; run: pip install 'jmtl[{extra}]'"


def test_differing():
    saved = {"a": 1, "b": {"c": [1, 2], "d": "x", "e": {}}, "flag": True, "same": 0.1}
    given = {"a": 2, "b": {"c": (1, 2), "d": "y", "f": None}, "flag": 1, "same": 0.1}
    assert records.differing(saved, given) == [
        "a: saved 1, given 2",
        'b.d: saved "x", given "y"',
        "b.e: saved {}, given nothing",
        "b.f: saved nothing, given null",
        "flag: saved true, given 1",
    ]
    assert records.differing(saved, json.loads(json.dumps(saved))) == []
    assert records.differing({}, {}) == []


def test_versions():
    found = records.versions()
    assert list(found) == [
        "python", "jmtl", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy",
    ]  # fmt: skip
    assert found["numpy"] == np.__version__
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))


def test_check_writable(tmp_path):
    records.check_writable(tmp_path / "a" / "b")
    assert list((tmp_path / "a" / "b").iterdir()) == []
    (tmp_path / "file").write_text("kept")
    for place, cause in (("file", "File exists"), ("file/below", "Not a directory")):
        with pytest.raises(records.OutputError, match=cause) as error:
            records.check_writable(tmp_path / place)
        assert "\n" not in str(error.value)
        assert "name another folder" in str(error.value)
    assert (tmp_path / "file").read_text() == "kept"


def test_check_writable_leaves_nothing_where_it_fails(tmp_path, monkeypatch):
    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(records.OutputError, match="No space left on device"):
        records.check_writable(tmp_path / "a" / "b")
    assert not list(tmp_path.iterdir())


CHILD = """
import os, resource, sys, tempfile
from jmtl.train import records
with tempfile.TemporaryDirectory() as folder:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    def attempt(call):
        try:
            call()
        except records.OutputError as error:
            print(str(error).replace(folder, "FOLDER"))
    attempt(lambda: records.check_writable(folder + "/run"))
    writer = records.jsonl(folder + "/m.jsonl")
    attempt(lambda: [writer.write({"step": i}) for i in range(200)])
    attempt(writer.close)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    writer = records.tensorboard(folder + "/tb")
    attempt(lambda: [writer.write({"step": i, "loss": 0.5}) for i in range(2000)])
    attempt(writer.close)
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    os.chmod(folder, 0o555)
    if os.geteuid() == 0:
        os.seteuid(65534)  # root may write anywhere
    attempt(lambda: records.check_writable(folder + "/run"))
    attempt(lambda: records.check_writable(folder))
    attempt(lambda: records.jsonl(folder + "/new.jsonl"))
    os.seteuid(os.getuid())
    os.chmod(folder, 0o755)
"""


def test_full_and_read_only_for_real():
    root = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", CHILD],
        env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    end = "; make room or name another folder"
    assert done.stdout.splitlines() == [
        "cannot write to FOLDER/run: File too large" + end,
        "cannot write to FOLDER/m.jsonl: File too large" + end,
        "cannot write to FOLDER/m.jsonl: File too large" + end,
        "cannot write to FOLDER/tb: File too large" + end,
        "cannot write to FOLDER/tb: File too large" + end,
        "cannot write to FOLDER/run: Permission denied" + end,
        "cannot write to FOLDER: Permission denied" + end,
        "cannot write to FOLDER/new.jsonl: Permission denied" + end,
    ]
