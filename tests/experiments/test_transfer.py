"""Encoders that begin elsewhere, train slower than the rest or not at all; their features."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from experiments import features, initial, origin, parts
from experiments.cli import main
from experiments.config import find_problem, from_json, rate_factors
from experiments.errors import UserError
from jmtl.nn.pretrained import torchvision_name
from jmtl.train import checkpoint
from tests.experiments import tiny
from tests.experiments.test_cli import TASKS, refused, train
from tests.experiments.tiny import left_behind
from tests.nn.test_pretrained import write

PROBLEM = find_problem("multi_digits")
RESNET = dataclasses.replace(
    tiny.CONFIG, encoder="resnet", encoder_options={"widths": [4, 6], "blocks": [1, 1]}
)


def state_of(config):
    method = initial.method_of(config, PROBLEM)
    return initial.state_of(config, PROBLEM, method, parts.example_of(tiny.SPLITS["train"]))


def same(one, other):
    return jax.tree.all(jax.tree.map(np.array_equal, one, other))


@pytest.fixture(scope="module")
def state():
    return state_of(dataclasses.replace(RESNET, seed=1))


@pytest.fixture
def file(tmp_path, state):
    """The encoder of `state` in torchvision's names and order of axes."""
    arrays = {}
    both = (state.params["shared"], state.model_state["shared"]["batch_stats"])
    for path, x in jax.tree_util.tree_flatten_with_path(both)[0]:
        x = x if x.ndim < 4 else x.transpose(3, 2, 0, 1)
        arrays[torchvision_name([entry.key for entry in path[1:]])] = np.asarray(x) + 1
    return write(tmp_path / "encoder.safetensors", arrays)


def test_a_file_of_weights_fills_the_encoder_alone(file, state):
    drawn = state_of(RESNET)
    named = dataclasses.replace(RESNET, origin=origin.named(file, None, {}))
    config, params, model_state = origin.fill(named, drawn.params, drawn.model_state)
    expected = (state.params["shared"], state.model_state["shared"])
    plus = jax.tree.map(lambda x: x + 1, expected)
    assert same((params["shared"], model_state["shared"]), plus)
    assert same(params["tasks"], drawn.params["tasks"])
    assert config.origin["file"] == str(file)
    assert len(config.origin["sha256"]) == 64
    # Said again, it is what was saved; and the same file is found again.
    for said in (file, None):
        assert origin.named(said, None, config.origin) == config.origin
    assert origin.fill(config, drawn.params, drawn.model_state)[0] == config


def test_a_file_that_changed_since_the_run_began_is_refused(file):
    drawn = state_of(RESNET)
    config = dataclasses.replace(RESNET, origin={"file": str(file), "sha256": "0" * 64})
    with pytest.raises(UserError, match="no longer holds what this run began with"):
        origin.fill(config, drawn.params, drawn.model_state)


def test_files_that_cannot_be_used_leave_no_folder(tmp_path, data_dir, file, capsys):
    out = tmp_path / "out"
    said = refused(capsys, train(data_dir, out, "--encoder-weights", tmp_path / "none"))
    assert said == f"--encoder-weights: no file {tmp_path / 'none'}"
    said = refused(capsys, train(data_dir, out, "--encoder-weights", file))
    assert said.startswith(f"{file} does not fit the encoder mlp: missing: Dense.0.bias")
    assert "without a place: bn1.bias" in said
    said = refused(capsys, train(data_dir, out, "--encoder-weights", __file__))
    assert "is no safetensors file" in said
    assert not out.exists()


def test_configurations_saved_before_newer_fields_can_be_read():
    saved = dataclasses.asdict(tiny.CONFIG)
    assert from_json(saved, "x") == tiny.CONFIG
    for newer in ("origin", "rate_factors", "sampler", "temperature", "augment"):
        del saved[newer]
    assert from_json(saved, "x") == tiny.CONFIG
    del saved["steps"]
    saved["stairs"] = 3
    with pytest.raises(UserError, match="fields stairs, steps do not fit"):
        from_json(saved, "x")


# Another run's encoder


SHORT = dataclasses.replace(tiny.CONFIG, steps=20)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """A run of 20 steps with the seed 5."""
    folder = tmp_path_factory.mktemp("source") / "run"
    with pytest.MonkeyPatch.context() as patch:
        tiny.install(patch)
        tiny.train(dataclasses.replace(SHORT, seed=5), folder)
    return folder


def leaves_of(folder):
    """Step and leaves of the newest checkpoint of a run."""
    return checkpoint.read(folder / "checkpoints")


def test_a_frozen_encoder_from_another_run_is_that_runs_to_the_bit(source, tmp_path, monkeypatch):
    tiny.install(monkeypatch)
    config = dataclasses.replace(
        SHORT, origin={"run": str(source)}, rate_factors={"encoder": 0.0, "tasks/left": 0.5}
    )
    tiny.train(config, tmp_path / "whole")
    (step, before), (_, after) = leaves_of(source), leaves_of(tmp_path / "whole")
    saved = json.loads((tmp_path / "whole" / "config.json").read_text())
    assert saved["origin"].items() >= {"run": str(source), "step": step}.items()
    assert saved["rate_factors"] == {"encoder": 0.0, "tasks/left": 0.5}
    params = [path for path in before if path.startswith("params/")]
    assert len(params) == 6
    for path in params:
        same = before[path].tobytes() == after[path].tobytes()
        assert same == path.startswith("params/shared/"), path

    # Interrupted before the first checkpoint and after it, the run ends in the same bits.
    for resumed, stop_at in (("early", 10), ("late", 20)):
        assert tiny.train(config, tmp_path / resumed, stop_at=stop_at)[0] is None
        assert json.loads((tmp_path / resumed / "config.json").read_text()) == saved
        tiny.train(from_json(saved, "x"), tmp_path / resumed, resume=True)
        assert left_behind(tmp_path / resumed) == left_behind(tmp_path / "whole")


def test_running_statistics_come_with_the_parameters(tmp_path, state):
    moved = jax.tree.map(lambda x: x + 2, state.model_state)
    handle = checkpoint.open_checkpoints(tmp_path / "checkpoints")
    checkpoint.save(handle, 7, state._replace(model_state=moved))
    checkpoint.close(handle)
    drawn = state_of(RESNET)
    named = dataclasses.replace(RESNET, origin={"run": str(tmp_path)})
    config, params, model_state = origin.fill(named, drawn.params, drawn.model_state)
    assert same(
        (params["shared"], model_state["shared"]), (state.params["shared"], moved["shared"])
    )
    assert same(params["tasks"], drawn.params["tasks"])
    assert config.origin["step"] == 7


def test_an_encoder_of_other_shapes_is_refused_in_one_line(source, tmp_path, data_dir, capsys):
    said = refused(capsys, train(data_dir, tmp_path / "out", "--init-from", source))
    assert said.startswith(
        f"the encoder of {source}, step 20, does not fit the encoder mlp of this run: missing: "
        "params/shared/Dense_1/bias, params/shared/Dense_1/kernel; unlike: "
        "params/shared/Dense_0/bias (saved float32[8], expected float32[256]), "
    )
    said = refused(capsys, train(data_dir, tmp_path / "out", "--init-from", tmp_path / "none"))
    assert said == f"--init-from: no run in {tmp_path / 'none'} (it has no config.json)"
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.json").write_text("{}")
    said = refused(capsys, train(data_dir, tmp_path / "out", "--init-from", tmp_path / "empty"))
    assert said.startswith("--init-from: no usable checkpoint in ")
    both = ("--init-from", source, "--encoder-weights", "a")
    said = refused(capsys, train(data_dir, tmp_path / "out", *both))
    assert said == "an encoder begins with --encoder-weights or with --init-from, not both"
    assert not (tmp_path / "out").exists()


# Factors on the command line


def test_factors_are_read_from_the_command_line():
    found = rate_factors(["encoder/one", "tasks/left/"], ["encoder=0.1", "tasks/right=1e-2"])
    assert found == {"encoder/one": 0, "tasks/left": 0, "encoder": 0.1, "tasks/right": 0.01}


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--freeze", "encodr"], "no parameters at 'encodr': the nearest are encoder, "),
        (["--rate-factor", "encoder/Dense_9=0.1"], "the nearest are encoder/Dense_"),
        (["--rate-factor", "encoder"], "takes path=factor, as encoder=0.1, got 'encoder'"),
        (["--rate-factor", "encoder=x"], "takes path=factor, as encoder=0.1, got 'encoder=x'"),
        (["--rate-factor", "encoder=-1"], "takes path=factor, as encoder=0.1, got 'encoder=-1'"),
        (["--rate-factor", "=1"], "takes path=factor, as encoder=0.1, got '=1'"),
        (["--freeze", "encoder", "--rate-factor", "encoder=1"], "name encoder twice"),
    ],
)
def test_factors_that_cannot_be_used_leave_no_folder(flags, message, tmp_path, data_dir, capsys):
    assert message in refused(capsys, train(data_dir, tmp_path / "out", *flags))
    assert not (tmp_path / "out").exists()


# The representation as a file


def test_features_are_the_encoders_for_every_example(state):
    few = PROBLEM._replace(evaluation_rows=16)  # of 50 examples: the last batch is padded
    found = features.features(RESNET, few, state, tiny.SPLITS["test"])
    raw = tiny.SPLITS["test"].arrays
    encode = initial.model_of(RESNET, PROBLEM).encode
    inputs = PROBLEM.to_batch(raw).inputs
    expected, _ = jax.jit(encode)(state.params["shared"], state.model_state, inputs)
    assert found["features"].shape == (50, 6)
    np.testing.assert_allclose(found["features"], expected, atol=1e-6)
    assert set(found) == {"features", *(f"{a}/{b}" for a in ("labels", "present") for b in TASKS)}
    for task in TASKS:
        np.testing.assert_array_equal(found[f"labels/{task}"], raw[task])
        assert found[f"present/{task}"].all()


def test_parts_of_a_representation_have_names_of_their_own(state):
    options = {**RESNET.encoder_options, "dense": True, "dtype": "bfloat16"}
    config = dataclasses.replace(RESNET, encoder_options=options)
    found = features.features(config, PROBLEM, state, tiny.SPLITS["test"])
    assert found["features/map"].shape == (50, 5, 5, 6)
    assert found["features/map"].dtype == np.float32
    mean = found["features/map"].mean((1, 2))
    np.testing.assert_allclose(found["features/vector"], mean, rtol=0.02, atol=0.02)


def test_the_command_writes_what_it_says(data_dir, tmp_path, capsys):
    folder = tmp_path / "run"
    assert main(train(data_dir, folder, "--steps", "1")) == 0
    capsys.readouterr()
    given = ["features", str(folder), "--data-dir", str(data_dir), "--split"]
    assert main([*given, "validation"]) == 0
    lines = capsys.readouterr().out.splitlines()
    path = folder / "features-validation.npz"
    assert lines[0] == f"{path}: validation split, after 1 steps"
    with np.load(path) as arrays:
        shapes = [f"  {name}  {x.dtype} {list(x.shape)}" for name, x in arrays.items()]
        assert arrays["features"].shape[1] == 128
    assert lines[1:] == shapes
    assert not list(folder.glob("*.saving"))
    said = refused(capsys, [*given, "test", "--out", "/proc/features.npz"])
    assert said.startswith("cannot write /proc/features.npz: ")
    assert "validation" in refused(capsys, [*given, "validatoin"])
    assert refused(capsys, ["features", tmp_path]).startswith(f"no run in {tmp_path}")
