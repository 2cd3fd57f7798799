"""The functional face: state moves once, evaluation moves nothing, everything compiles."""

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmtl import nn, tasks

X = jax.random.normal(jax.random.key(0), (6, 4, 4))
TASKS = (
    tasks.classification("left", 3),
    tasks.classification("right", 3),
    tasks.regression("size", dim=2),
)
MLP = nn.model(nn.MLP((5,)), nn.make_heads(TASKS))
RESNET = nn.model(nn.ResNet((3, 4), (1, 1)), nn.make_heads(TASKS))


class Normed(flax.linen.Module):
    """A head with state of its own."""

    @flax.linen.compact
    def __call__(self, x, train):
        return flax.linen.BatchNorm(use_running_average=not train)(x)


def same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for one, other in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_array_equal(one, other)


def test_params_and_state_are_split_into_shared_and_tasks():
    params, state = RESNET.init(jax.random.key(0), X)
    for tree in (params, state):
        assert tree.keys() == {"shared", "tasks"}
        assert tree["tasks"].keys() == {"left", "right", "size"}
    outputs, _ = RESNET.apply(params, state, X)
    assert {k: v.shape for k, v in outputs.items()} == {
        "left": (6, 3),
        "right": (6, 3),
        "size": (6, 2),
    }
    assert MLP.init(jax.random.key(0), X)[1] == {
        "shared": {},
        "tasks": {"left": {}, "right": {}, "size": {}},
    }


def test_apply_is_decode_after_encode():
    params, state = RESNET.init(jax.random.key(0), X)
    representation, moved = RESNET.encode(params["shared"], state, X, True)
    same(
        RESNET.decode(params["tasks"], moved, representation, True),
        RESNET.apply(params, state, X, True),
    )


def test_running_statistics_move_exactly_once():
    params, state = RESNET.init(jax.random.key(0), X)
    _, moved = RESNET.apply(params, state, X, train=True)
    kernel = params["shared"]["conv1"]["kernel"]
    stem = jax.lax.conv_general_dilated(
        X[..., None], kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    first = moved["shared"]["batch_stats"]["bn1"]
    np.testing.assert_allclose(first["mean"], 0.1 * stem.mean((0, 1, 2)), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(first["var"], 0.9 + 0.1 * stem.var((0, 1, 2)), rtol=1e-5)
    assert jax.tree.structure(moved) == jax.tree.structure(state)
    alone = nn.model(nn.ResNet((3, 4), (1, 1)), nn.make_heads(TASKS[:1]))
    one = {**params, "tasks": {"left": params["tasks"]["left"]}}
    _, with_one_task = alone.apply(one, {**state, "tasks": {"left": {}}}, X, train=True)
    same(with_one_task["shared"], moved["shared"])


def test_a_head_may_have_state():
    model = nn.model(nn.MLP((5,)), {"normed": Normed(), "plain": nn.DenseHead(2)})
    params, state = model.init(jax.random.key(0), X)
    _, moved = model.apply(params, state, X, train=True)
    assert jax.tree.structure(moved) == jax.tree.structure(state)
    mean = lambda s: s["tasks"]["normed"]["batch_stats"]["BatchNorm_0"]["mean"]
    representation, _ = model.encode(params["shared"], state, X)
    # Flax's default momentum is 0.99.
    np.testing.assert_allclose(mean(moved), 0.01 * representation.mean(0), rtol=1e-4, atol=1e-7)


def test_evaluation_is_deterministic_and_moves_nothing():
    encoder = nn.ResNet((3, 4), (1, 1), dropout=0.5)
    model = nn.model(encoder, nn.make_heads(TASKS, hidden=(4,), dropout=0.5))
    params, state = model.init(jax.random.key(0), X)
    _, state = model.apply(params, state, X, True, jax.random.key(1))
    outputs, after = model.apply(params, state, X)
    same(after, state)
    same(model.apply(params, state, X, key=jax.random.key(2))[0], outputs)
    # A row's outputs do not depend on the others.
    alone, _ = model.apply(params, state, X[:1])
    np.testing.assert_allclose(alone["left"], outputs["left"][:1], rtol=1e-5, atol=1e-6)


def test_training_with_dropout_follows_its_key():
    model = nn.model(nn.MLP((50,), dropout=0.5), nn.make_heads(TASKS))
    params, state = model.init(jax.random.key(0), X)
    encode = lambda key: model.encode(params["shared"], state, X, True, key)[0]
    same(encode(jax.random.key(1)), encode(jax.random.key(1)))
    assert (encode(jax.random.key(1)) != encode(jax.random.key(2))).any()
    with pytest.raises(ValueError, match="pass a key"):
        model.apply(params, state, X, train=True)


def test_heads_drop_apart_from_each_other():
    heads = {name: nn.DenseHead(1, hidden=(64,), dropout=0.5) for name in ("a", "b")}
    model = nn.model(nn.MLP((4,)), heads)
    params, state = model.init(jax.random.key(0), X)
    params["tasks"]["b"] = params["tasks"]["a"]
    outputs, _ = model.apply(params, state, X, True, jax.random.key(1))
    assert (outputs["a"] != outputs["b"]).sum() >= 4  # a row that ReLU zeroes is equal


def test_one_task_more_leaves_the_others_as_they_are():
    params, _ = MLP.init(jax.random.key(0), X)
    fewer, _ = nn.model(nn.MLP((5,)), nn.make_heads(TASKS[:1])).init(jax.random.key(0), X)
    same(fewer["shared"], params["shared"])
    same(fewer["tasks"]["left"], params["tasks"]["left"])
    kernels = [params["tasks"][name]["Dense_0"]["kernel"] for name in ("left", "right")]
    assert (kernels[0] != kernels[1]).any()


def test_init_and_apply_under_vmap_and_jit():
    keys = jax.random.split(jax.random.key(0), 3)
    train = lambda p, s: RESNET.apply(p, s, X, True)
    params, state = jax.jit(jax.vmap(RESNET.init, in_axes=(0, None)))(keys, X)
    outputs, moved = jax.jit(jax.vmap(train))(params, state)
    init_one, train_one = jax.jit(RESNET.init), jax.jit(train)
    for i in range(3):
        mine = jax.tree.map(lambda leaf, i=i: leaf[i], (params, state, outputs, moved))
        one_params, one_state = init_one(keys[i], X)
        for a, b in zip(*map(jax.tree.leaves, (mine[:2], (one_params, one_state))), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-7)
        one = train_one(one_params, one_state)
        for a, b in zip(*map(jax.tree.leaves, (mine[2:], one)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)


def test_decode_names_the_task_without_parameters():
    params, state = MLP.init(jax.random.key(0), X)
    del params["tasks"]["right"]
    with pytest.raises(ValueError, match="no parameters for task 'right'"):
        MLP.apply(params, state, X)


def test_summary_counts_encoder_and_heads():
    model = nn.model(nn.LeNet(), nn.make_heads(TASKS, hidden=(50,)))
    text = nn.summary(model, jax.ShapeDtypeStruct((2, 28, 28), jnp.float32))
    lines = text.splitlines()
    assert lines[:5] == [
        "encoder  21,330 parameters",
        "left      2,703 parameters",
        "right     2,703 parameters",
        "size      2,652 parameters",
        "total    29,388 parameters",
    ]
    assert "float32[5,5,10,20]" in text
    assert "task_size/Dense_1" in text
    assert "29,388" in lines[-1] + lines[-2]
    assert "\x1b" not in text
    assert max(map(len, lines)) <= 120
