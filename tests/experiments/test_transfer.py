"""Encoders that begin elsewhere: from a file of weights."""

import dataclasses

import jax
import numpy as np
import pytest

from experiments import origin, parts
from experiments import run as runs
from experiments.config import find_problem, from_json
from experiments.errors import UserError
from jmtl.nn.pretrained import torchvision_name
from tests.experiments import tiny
from tests.experiments.test_cli import refused, train
from tests.nn.test_pretrained import write

PROBLEM = find_problem("multi_digits")
RESNET = dataclasses.replace(
    tiny.CONFIG, encoder="resnet", encoder_options={"widths": [4, 6], "blocks": [1, 1]}
)


def state_of(config):
    method = runs.method_of(config, PROBLEM)
    return runs.state_of(config, PROBLEM, method, parts.example_of(tiny.SPLITS["train"]))


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
    named = dataclasses.replace(RESNET, origin=origin.named(file, {}))
    config, params, model_state = origin.fill(named, drawn.params, drawn.model_state)
    expected = (state.params["shared"], state.model_state["shared"])
    plus = jax.tree.map(lambda x: x + 1, expected)
    assert same((params["shared"], model_state["shared"]), plus)
    assert same(params["tasks"], drawn.params["tasks"])
    assert config.origin["file"] == str(file)
    assert len(config.origin["sha256"]) == 64
    # Said again, it is what was saved; and the same file is found again.
    assert origin.named(file, config.origin) == origin.named(None, config.origin) == config.origin
    assert origin.fill(config, drawn.params, drawn.model_state)[0] == config


def test_a_file_that_changed_since_the_run_began_is_refused(file):
    drawn = state_of(RESNET)
    config = dataclasses.replace(RESNET, origin={"file": str(file), "sha256": "0" * 64})
    with pytest.raises(UserError, match="is no longer what this run began with"):
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


def test_configurations_saved_before_there_were_origins_can_be_read():
    saved = dataclasses.asdict(tiny.CONFIG)
    assert from_json(saved, "x") == tiny.CONFIG
    del saved["origin"]
    assert from_json(saved, "x") == tiny.CONFIG
    del saved["steps"]
    saved["stairs"] = 3
    with pytest.raises(UserError, match="fields stairs, steps do not fit"):
        from_json(saved, "x")
