"""A run on several data sets keeps what a run on one keeps: to the bit resumed, on any devices."""

import dataclasses

import pytest

from experiments import parts
from experiments.errors import UserError
from experiments.parts import rows_of
from experiments.problems import PROBLEMS
from tests.experiments import tiny
from tests.experiments.test_cli import refused
from tests.experiments.test_problems import config_of
from tests.experiments.tiny import left_behind

N = {"breast_cancer": 341, "wine": 106, "diabetes": 265}


TINY = config_of(
    "tabular",
    encoder_options={"hidden": (8,), "dropout": 0.3},
    steps=30,
    steps_per_dispatch=10,
    checkpoint_every=10,
    input="resident",
    sampler="temperature",
    temperature=5.0,
)


@pytest.fixture
def shared(monkeypatch, data_dir):
    """Runs that differ in no program compile it once."""
    splits = parts.open_splits(PROBLEMS["tabular"], data_dir)
    tiny.install(monkeypatch, splits={name: splits(name) for name in ("train", "test")})


def test_resumed_to_the_bit_and_the_same_on_other_devices(shared, tmp_path):
    tiny.train(TINY, tmp_path / "whole")
    whole = left_behind(tmp_path / "whole")

    assert tiny.train(TINY, tmp_path / "broken", stop_at=30)[0] is None
    tiny.train(TINY, tmp_path / "broken", resume=True)
    assert left_behind(tmp_path / "broken") == whole

    other = dataclasses.replace(TINY, devices=4, parallel="pmap", input="stream")
    tiny.train(other, tmp_path / "other")
    summary, lines = left_behind(tmp_path / "other")
    assert summary["params_norm"] == pytest.approx(whole[0]["params_norm"], rel=1e-6)
    for line, same in zip(lines, whole[1], strict=True):
        assert line["losses"] == pytest.approx(same["losses"], rel=1e-5)


def test_samplers():
    deal = lambda sampler, temperature=None, rows=128: rows_of(rows, sampler, temperature, N)
    assert deal("proportional") == {"breast_cancer": 64, "wine": 16, "diabetes": 48}
    assert deal("temperature", 5.0) == {"breast_cancer": 48, "wine": 40, "diabetes": 40}
    assert sorted(deal("round_robin").values()) == [40, 40, 48]
    assert deal("temperature", 1.0) == deal("proportional")
    assert deal("temperature", 1e9) == deal("round_robin")
    # A multiple of 16 for each device is always even on them.
    for devices in (3, 5, 8):
        for times in (1, 2, 7):
            rows = deal("proportional", rows=16 * devices * times)
            assert all(n % devices == 0 for n in rows.values())
    assert rows_of(7, None, None, 100) == 7
    with pytest.raises(UserError, match="--batch-size 2: 3 data sets take at least a row each"):
        deal("proportional", rows=2)


def test_what_the_command_line_says_of_samplers(tmp_path, data_dir, capsys):
    tabular = ["train", "tabular", "--out", tmp_path / "out", "--data-dir", data_dir]
    one = ["--devices", "1"]
    for flags, message in (
        (["--sampler", "temperature", "--temperature", "0"], "above 0, got 0.0"),
        (["--temperature", "3"], "is of --sampler temperature, not proportional"),
        (["--sampler", "roundrobin"], "invalid choice 'roundrobin'"),
        (["--at", "representation"], "use at='parameters', or hard sharing"),
        (["--batch-size", "2"], "--batch-size 2: 3 data sets take at least a row each, got 2"),
    ):
        assert message in refused(capsys, [*tabular, *one, *flags])
    said = refused(capsys, [*tabular, "--devices", "8", "--batch-size", "72"])
    assert said == (
        "--batch-size 72 gives wine 12 rows, which do not lie evenly on 8 devices: "
        "use a multiple of 128"
    )
    digits = ["train", "multi_digits", *one, "--out", tmp_path / "out", "--sampler", "round_robin"]
    assert "--sampler is for problems of several data sets" in refused(capsys, digits)
    assert "tabular trains from several data sets" in refused(capsys, ["study", "tabular"])
    assert not (tmp_path / "out").exists()
