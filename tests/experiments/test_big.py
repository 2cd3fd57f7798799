"""What large models take, by its name in a configuration: half precision, parameters split."""

import dataclasses
import shutil

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import initial, parts, resume, run
from experiments.config import find_problem
from jmtl.gramian import Gramian
from jmtl.method import Answer, Method
from jmtl.nn import make_encoder, make_heads, model
from jmtl.train import sharding
from jmtl.train.state import init_state
from jmtl.train.step import make_step
from tests.experiments import tiny
from tests.experiments.test_problems import config_of
from tests.experiments.tiny import CONFIG, left_behind
from tests.train import toy

DIGITS = tiny.SPLITS["train"].__getitems__([0, 1])
SMALL = {"hidden": [4]}


def batch_of(problem, data_dir):
    if problem.name == "multi_digits":
        return problem.to_batch({k: jnp.stack([d[k] for d in DIGITS]) for k in DIGITS[0]})
    return problem.to_batch(parts.first_of(parts.open_splits(problem, data_dir)("train"), 2))


def computed_in(net, params, model_state, inputs):
    """Dtypes of what flax's layers answer in training, those of the outputs and of the state."""
    seen = []

    def look(layer, args, kwargs, context):
        answer = layer(*args, **kwargs)
        if type(context.module).__module__.startswith("flax.") and context.method_name != "setup":
            seen.extend(x.dtype.name for x in jax.tree.leaves(answer))
        return answer

    def forward(params, model_state, inputs):
        with nn.intercept_methods(look):
            return net.apply(params, model_state, inputs, True, jax.random.key(0))

    outputs, state = jax.eval_shape(forward, params, model_state, inputs)
    return seen, outputs, state


@pytest.mark.parametrize(
    "config",
    [
        dataclasses.replace(CONFIG, head_options={"hidden": [4]}),
        dataclasses.replace(CONFIG, encoder="resnet", encoder_options={}, sharing="mtan"),
        config_of("tabular", encoder_options=SMALL, sampler="proportional"),
    ],
    ids=["heads with layers", "batch norm and attention", "stems"],
)
def test_half_precision_reaches_every_layer_and_no_parameter(config, data_dir):
    config = dataclasses.replace(config, dtype="bfloat16")
    problem = find_problem(config.problem)
    net, method = initial.model_of(config, problem), initial.method_of(config, problem)
    inputs = batch_of(problem, data_dir).inputs
    init = lambda key: init_state(key, net, method, initial.optimizer_of(config), inputs)
    state = jax.eval_shape(init, jax.random.key(0))
    seen, outputs, moved = computed_in(net, state.params, state.model_state, inputs)
    assert len(seen) >= 5
    assert set(seen) == {"bfloat16"}
    kept = (state.params, state.opt_state, state.method_state, outputs, moved)
    floating = [x for x in jax.tree.leaves(kept) if jnp.issubdtype(x.dtype, jnp.floating)]
    assert {x.dtype.name for x in floating} == {"float32"}


def keeps(seen, state):
    """A method that keeps what it has seen."""
    del state
    return Answer(jnp.ones(2)), (seen.gramian, seen.gradients)


def test_half_precision_trains_with_gramians_in_float32():
    def init(shared):
        stack = jax.tree.map(lambda x: jnp.zeros((2, *x.shape)), shared)
        return Gramian(jnp.zeros((2, 2)), jnp.zeros(2)), stack

    method = Method("keeps", 2, init, keeps, needs="gradients")
    heads = make_heads(toy.TASKS, dtype="bfloat16")
    net = model(make_encoder("mlp", hidden=(8,), dtype="bfloat16"), heads)
    batch = toy.to_batch({k: x[:32] for k, x in toy.ARRAYS.items()})
    step = jax.jit(make_step(net, toy.TASKS, method, toy.OPTIMIZER))
    state, first = step(toy.start(toy.PLAIN, method), batch)
    for _ in range(20):
        state, last = step(state, batch)
    assert last.losses.dtype == jnp.float32
    assert (last.losses < 0.9 * first.losses).all()
    gramian, grads = state.method_state
    rows = np.concatenate([np.float64(x).reshape(2, -1) for x in jax.tree.leaves(grads)], axis=1)
    norms = np.linalg.norm(rows, axis=1)
    np.testing.assert_allclose(gramian.norms, norms, rtol=1e-6)
    np.testing.assert_allclose(gramian.cosine, rows @ rows.T / np.outer(norms, norms), atol=1e-6)


def test_a_run_with_parameters_split_goes_on_in_parts_or_with_one_device(tmp_path, monkeypatch):
    scorer, fit, began = run.scorer, run.fit, []
    tiny.install(monkeypatch)
    monkeypatch.setattr(sharding, "LEAST", 64)

    def watched(state, *given, **more):
        began.append(
            {x.data.shape for x in state.params["shared"]["Dense_0"]["kernel"].addressable_shards}
        )
        return fit(state, *given, **more)

    monkeypatch.setattr(run, "fit", watched)
    config = dataclasses.replace(CONFIG, steps=20)
    tiny.train(config, tmp_path / "one")
    split = dataclasses.replace(config, devices=8, model_parallel=2)
    assert tiny.train(split, tmp_path / "split", stop_at=20)[0] is None
    shutil.copytree(tmp_path / "split", tmp_path / "parts")
    tiny.train(split, tmp_path / "parts", resume=True)
    tiny.train(config, tmp_path / "split", resume=True)
    # Split where it begins and where it goes on: drawn so, and read so.
    assert began == [{(100, 8)}, {(50, 8)}, {(50, 8)}, {(100, 8)}]
    one, lines = left_behind(tmp_path / "one")
    for name in ("split", "parts"):
        found, others = left_behind(tmp_path / name)
        assert found["params_norm"] == pytest.approx(one["params_norm"], rel=1e-6)
        for line, other in zip(lines, others, strict=True):
            assert line["losses"] == pytest.approx(other["losses"], rel=1e-5)

    def scored(config):
        example = parts.example_of(tiny.SPLITS["train"])
        state = resume.restored(config, tmp_path / "parts", example, print).state
        assert sharding.is_split(state.params) == (config.model_parallel > 1)
        return scorer(config, find_problem(config.problem))(state, tiny.SPLITS["test"])

    expected = scored(config)
    for task, scores in scored(split).items():
        assert scores == pytest.approx(expected[task], rel=1e-6)
