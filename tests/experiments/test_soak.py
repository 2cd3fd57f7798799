"""The soak: what it measures, what it refuses, and a short one."""

import subprocess
import sys
import time

import pytest

from experiments import soak
from experiments.errors import UserError


def test_quarters_are_means_of_equal_parts():
    assert soak.quarters([1, 3, 5, 5, 0, 2, 10, 20]) == [2, 5, 1, 15]
    assert soak.quarters([4, 3, 2, 1, 1]) == [3.5, 2, 1, 1]


def test_resident_memory_is_counted():
    before = soak.resident()
    held = bytearray(b"1") * 2**26
    assert 0.9 * 2**26 < soak.resident() - before < 2 * 2**26
    del held


@pytest.mark.parametrize(
    ("means", "code", "said"),
    [
        ([100.0, 90.0, 120.0, 104.0], 0, "+4.0%"),
        ([100.0, 100.0, 100.0, 106.0], 1, "+6.0%"),
        ([100.0, 100.0, 100.0, 94.0], 1, "-6.0%"),
    ],
)
def test_the_exit_code_says_whether_memory_was_held(means, code, said, monkeypatch, capsys):
    monkeypatch.setattr(soak, "soak", lambda *_: ([x * 2**20 for x in means], 2, 3.0))
    assert soak.main([]) == code
    out = capsys.readouterr().out.splitlines()
    assert out[0] == "quarter 1: 100.0 MiB"
    assert out[4] == (
        f"last against first: {said}, expected within 5%; 20,000 steps in 3 s; "
        "studies that ended beside it: 2"
    )


def test_studies_follow_one_another_until_one_fails(tmp_path, monkeypatch):
    popen, codes = subprocess.Popen, iter([0, 0, 3])

    def fake(command, stdout):
        assert command[1:4] == ["-m", "experiments", "study"]
        return popen([sys.executable, "-S", "-c", f"raise SystemExit({next(codes)})"])

    monkeypatch.setattr(soak.subprocess, "Popen", fake)

    def train(*_, watcher, **__):
        time.sleep(1.5)
        for step in range(8):
            watcher.logged({"step": step})

    monkeypatch.setattr(soak.run, "train", train)
    with pytest.raises(UserError, match="the study beside the training ended with exit code 3"):
        soak.soak(100, tmp_path, tmp_path)
    with pytest.raises(StopIteration):
        next(codes)


def test_too_few_steps_for_quarters(capsys):
    assert soak.main(["--steps", "79"]) == 2
    assert capsys.readouterr().err == "error: --steps 79: give at least 80\n"


@pytest.mark.slow
def test_a_short_soak_holds_its_memory(tmp_path, data_dir, capsys):
    command = ["--steps", "4000", "--out", str(tmp_path), "--data-dir", str(data_dir)]
    assert soak.main(command) == 0, capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]
