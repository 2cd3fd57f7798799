"""A trunk behind stems: its formula in NumPy, and what each task's loss reaches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmtl import nn
from tests.nn.sharings import OPTIONS, drawn

SIZES = {"one": 3, "two": 5}
INPUTS = {
    name: jax.random.normal(jax.random.key(i), (4 + i, size))
    for i, (name, size) in enumerate(SIZES.items())
}
HEADS = {"a": nn.classification(2), "b": nn.regression(1)}
SOURCES = {"a": "one", "b": "two"}


def built(**options):
    encoder = nn.MLP((6, 7), activation="tanh", **options)
    return nn.with_stems(encoder, HEADS, SOURCES, width=8)


def test_the_formula():
    model = built()
    params, state = model.init(jax.random.key(0), INPUTS)
    outputs, _ = model.apply(params, state, INPUTS)
    dense = lambda x, p: x @ np.asarray(p["kernel"], float) + np.asarray(p["bias"], float)
    trunk = params["shared"]["trunk"]
    for task, own in params["tasks"].items():
        x = np.maximum(dense(np.asarray(INPUTS[SOURCES[task]], float), own["stem"]), 0)
        x = np.tanh(dense(np.tanh(dense(x, trunk["Dense_0"])), trunk["Dense_1"]))
        expected = dense(x, own["head"]["Dense_0"])
        np.testing.assert_allclose(outputs[task], expected, rtol=1e-5, atol=1e-6)
    assert not model.common


def test_a_loss_reaches_the_trunk_and_its_own_stem_alone():
    model = built()
    params, state = model.init(jax.random.key(0), INPUTS)
    gradient = jax.grad(lambda p: jnp.sum(model.apply(p, state, INPUTS)[0]["a"] ** 2))(params)
    norms = jax.tree.map(lambda x: float(jnp.abs(x).max()), gradient)
    assert all(norm > 0 for norm in jax.tree.leaves(norms["shared"]))
    assert all(norm > 0 for norm in jax.tree.leaves(norms["tasks"]["a"]))
    assert all(norm == 0 for norm in jax.tree.leaves(norms["tasks"]["b"]))


def test_dropout_draws_for_each_task():
    model = built(dropout=0.5)
    params, state = model.init(jax.random.key(0), INPUTS)
    run = lambda seed: model.apply(params, state, INPUTS, True, jax.random.key(seed))[0]
    still, _ = model.apply(params, state, INPUTS)
    for task in HEADS:
        np.testing.assert_array_equal(run(0)[task], run(0)[task])
        assert np.abs(run(0)[task] - run(1)[task]).max() > 0
        assert np.abs(run(0)[task] - still[task]).max() > 0


@pytest.mark.parametrize("sharing", ["branching", "cgc", "mmoe", "mtan"])
def test_every_way_of_sharing_is_what_it_is_on_what_the_stem_answers(sharing):
    options = OPTIONS.get(sharing, {})
    encoder = nn.MLP((6, 7), activation="tanh")
    model = nn.with_stems(encoder, HEADS, SOURCES, 8, None, sharing, **options)
    plain = nn.make_sharing(sharing, encoder, HEADS, **options)
    params, state = drawn(model, INPUTS, spread=0.3)
    outputs, _ = model.apply(params, state, INPUTS)
    for task, source in SOURCES.items():
        stem = params["tasks"][task]["stem"]
        x = jax.nn.relu(INPUTS[source] @ stem["kernel"] + stem["bias"][None])
        inside = {
            "shared": params["shared"]["trunk"],
            "tasks": {name: own.get("head", {}) for name, own in params["tasks"].items()},
        }
        _, fresh = jax.eval_shape(plain.init, jax.random.key(0), x)
        expected, _ = plain.apply(inside, fresh, x)
        np.testing.assert_allclose(outputs[task], expected[task], rtol=1e-5, atol=1e-6)


def test_running_statistics_are_those_of_the_tasks_own_data():
    pictures = {
        name: jax.random.normal(jax.random.key(i), (4, 8, 8, 1)) for i, name in enumerate(SIZES)
    }
    model = nn.with_stems(nn.ResNet((4,), (1,)), HEADS, SOURCES, width=None)
    params, state = model.init(jax.random.key(0), pictures)
    assert not state["shared"]
    _, moved = model.apply(params, state, pictures, True)
    ones, twos = (jax.tree.leaves(moved["tasks"][task]) for task in HEADS)
    assert not np.allclose(ones[-1], twos[-1])
    alone = nn.make_sharing("hard", nn.ResNet((4,), (1,)), {"b": HEADS["b"]})
    inside = {
        "shared": params["shared"]["trunk"],
        "tasks": {"b": params["tasks"]["b"]["head"]},
    }
    shared = {"batch_stats": state["tasks"]["b"]["batch_stats"]["trunk"]}
    expected, after = alone.apply(
        inside, {"shared": shared, "tasks": {"b": {}}}, pictures["two"], True
    )
    outputs, _ = model.apply(params, state, pictures, True)
    np.testing.assert_allclose(outputs["b"], expected["b"], rtol=1e-5, atol=1e-6)
    found = moved["tasks"]["b"]["batch_stats"]["trunk"]
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6),
        found,
        after["shared"]["batch_stats"],
    )


def test_the_axis_reaches_every_part():
    model = nn.with_stems(nn.MLP((6,), dropout=0.5), HEADS, SOURCES, 8, "data", "cgc")
    assert model.encoder.encoder.encoder.axis_name == "data"
