"""Parameters split over devices: the numbers of one device, and nothing large is gathered."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import jmtl
from jmtl.train import checkpoint
from jmtl.train.parallel import shell, start_of
from jmtl.train.sharding import MODEL, dimension, specs
from jmtl.train.state import init_state
from jmtl.train.step import make_step
from tests.train import toy
from tests.train.toy import WIDE

STEPS = 10


def trained(on, method, optimizer):
    """Ten steps of a method, and the text of the program that did them."""
    placed = on.place(toy.start(WIDE, method, optimizer=optimizer))
    step = make_step(on.held(toy.net(WIDE)), toy.TASKS, method, optimizer)
    feed = start_of(on.resident(toy.ARRAYS), toy.SEED, 0, toy.BATCH, toy.N, STEPS)
    run = on.compile(step, toy.to_batch, placed, feed, STEPS, toy.BATCH)
    return toy.Trained(*run(placed, feed)), run.as_text()


def test_four_by_two_devices_train_as_one_with_parameters_split():
    momentum, method = optax.sgd(0.05, momentum=0.9), jmtl.pcgrad(2)
    whole, _ = trained(shell("jit", 1), method, momentum)
    split, program = trained(shell("jit", 8, 2), method, momentum)
    assert toy.distance(toy.numbers(split), toy.numbers(whole)) < 1e-5
    np.testing.assert_allclose(split.metrics.cosine, whole.metrics.cosine, atol=1e-5)
    assert np.mean(split.metrics.conflict_rate) > 0
    (trace, _), params = split.state.opt_state, split.state.params
    for tree in (params, trace.trace):
        lies = lambda x: {shard.data.shape for shard in x.addressable_shards}
        assert lies(tree["shared"]["Dense_1"]["kernel"]) == {(64, 64)}
        assert lies(tree["shared"]["Dense_0"]["kernel"]) == {(64, 32)}
        assert lies(tree["shared"]["Dense_1"]["bias"]) == {(128,)}
    # Neither a kernel nor the stack of its gradients is made whole anywhere.
    gathered = re.findall(r"f32\[([\d,]+)\][^=]* (?:all-gather|all-to-all)\(", program)
    assert gathered
    assert all(np.prod([int(n) for n in shape.split(",")]) < 64 * 64 for shape in gathered)


def drawn(key):
    """A state with a method and an optimiser that keep what is as large as the parameters."""
    inputs = toy.to_batch({name: values[:1] for name, values in toy.ARRAYS.items()}).inputs
    net = toy.net(("mlp", {"hidden": (64, 160)}))  # no half of a kernel has another one's shape
    return init_state(key, net, jmtl.make("moco", 2), optax.adam(0.1), inputs)


WHOLE = {(*lead, *shape) for lead in ((), (2,)) for shape in ((64, 64), (64, 160))}
"""The shapes of what `drawn` has that is split."""


def on_devices(known):
    """The shapes that devices hold of arrays that are not known."""
    return {
        shard.data.shape
        for x in jax.live_arrays()
        if id(x) not in known
        for shard in x.addressable_shards
    }


def test_a_split_state_begins_and_is_restored_in_parts(tmp_path):
    """No array, and no value that the compiled start computes, is a whole of what is split."""
    on, key = shell("jit", 8, 2), jax.random.key(3)
    known = list(jax.live_arrays())  # held, so that no id is another's
    ids = {id(x) for x in known}
    state = on.create(drawn, key)
    assert on_devices(ids) >= {(64, 32), (64, 80), (2, 64, 32)}
    assert not on_devices(ids) & WHOLE

    where = jax.tree.map(lambda x: x.sharding, state)
    program = jax.jit(drawn, out_shardings=where).lower(key).compile()
    shapes = re.findall(r"\w\d+\[([\d,]+)\]", program.as_text())
    assert not {tuple(map(int, shape.split(","))) for shape in shapes} & WHOLE
    on_one = jax.jit(drawn).lower(key).compile()
    parts, whole = program.memory_analysis(), on_one.memory_analysis()
    assert parts.output_size_in_bytes < 0.6 * whole.output_size_in_bytes
    assert parts.temp_size_in_bytes < 0.6 * whole.temp_size_in_bytes

    handle = checkpoint.open_checkpoints(tmp_path)
    checkpoint.save(handle, 1, state)
    digest = checkpoint.digest(state)
    del state
    assert not on_devices(ids) & {(64, 32), (64, 80)}
    template = on.template(jax.eval_shape(drawn, key))
    state = on.filled(checkpoint.restore(handle, template).state)
    checkpoint.close(handle)
    assert not on_devices(ids) & WHOLE
    assert jax.tree.map(lambda x: x.sharding, state) == where
    assert checkpoint.digest(state) == digest
    assert checkpoint.digest(on_one(key)) == digest  # and to the bit as one device draws


@pytest.mark.parametrize("at", [(1,), (2,), (1, 2)])
def test_the_gramian_of_a_split_stack(at):
    rows = np.random.default_rng(0).normal(size=(3, 8, 16)).astype(np.float32)
    mesh = Mesh(np.array(jax.devices()).reshape(4, 2), ("data", MODEL))
    names = iter((MODEL, "data"))
    spec = PartitionSpec(*(next(names) if i in at else None for i in range(3)))
    stack = {"kernel": jax.device_put(rows, NamedSharding(mesh, spec)), "bias": jnp.ones((3, 4))}
    compiled = jax.jit(jmtl.gramian).lower(stack).compile()
    assert "all-gather" not in compiled.as_text()
    cosine, norms = compiled(stack)
    flat = np.concatenate([np.float64(rows).reshape(3, -1), np.ones((3, 4))], axis=1)
    expected = np.linalg.norm(flat, axis=1)
    np.testing.assert_allclose(norms, expected, rtol=1e-6)
    np.testing.assert_allclose(
        cosine, flat @ flat.T / np.outer(expected, expected), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize(
    ("path", "shape", "expected"),
    [
        ("encoder/a/kernel", (64, 128), -1),
        ("encoder/a/kernel", (128, 64), -2),
        ("encoder/a/kernel", (64, 64), -1),
        ("encoder/a/kernel", (64, 65), -2),
        ("encoder/a/kernel", (65, 65), None),
        ("encoder/a/kernel", (3, 3, 32, 64), -1),
        ("encoder/a/bias", (64,), None),
        ("encoder/embedding/kernel", (64, 128), -2),
        ("tasks/left/kernel", (64, 128), None),
    ],
)
def test_rules_by_size_and_by_path(path, shape, expected):
    rules = {"encoder/emb*": 0, "tasks/*": None}
    assert dimension(path, shape, 2, rules) == expected


def test_the_states_of_optimiser_and_method_lie_as_the_parameters_do():
    net, method, optimizer = toy.net(WIDE), jmtl.make("moco", 2), optax.adam(0.1)
    inputs = toy.to_batch({name: values[:1] for name, values in toy.ARRAYS.items()}).inputs
    init = lambda key: init_state(key, net, method, optimizer, inputs)
    state = jax.eval_shape(init, jax.random.key(0))
    rules = {"encoder/Dense_0/kernel": 0, "tasks/kind/*/kernel": -2}
    found = specs(state, 2, rules)
    first, last = PartitionSpec(MODEL, None), PartitionSpec(None, MODEL)
    for tree in (found.params, found.opt_state[0].mu, found.opt_state[0].nu):
        assert _normal(tree["shared"]["Dense_0"]["kernel"]) == _normal(first)
        assert tree["shared"]["Dense_1"]["kernel"] == last
        assert tree["shared"]["Dense_1"]["bias"] == PartitionSpec()
        assert _normal(tree["tasks"]["kind"]["Dense_0"]["kernel"]) == _normal(first)
        assert tree["tasks"]["size"]["Dense_0"]["kernel"] == PartitionSpec()
    stacks = {
        jax.tree_util.keystr(path): tuple(spec)
        for path, spec in jax.tree_util.tree_leaves_with_path(
            found.method_state, is_leaf=lambda x: isinstance(x, PartitionSpec)
        )
        if "kernel" in str(path)
    }
    assert set(stacks.values()) == {(None, MODEL), (None, None, MODEL)}
    assert found.step == PartitionSpec()


def _normal(spec):
    """Without the dimensions at its end that are not split."""
    return tuple(spec)[: max(i for i, name in enumerate(spec) if name) + 1]


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"encoder/Dens_0/*": 0}, "the rule encoder/Dens_0/.* fits no parameter: there are encod"),
        ({"encoder/*/kernel": 2}, r"splits encoder/Dense_0/kernel \[64, 64\], which has no such"),
        ({"tasks/kind/*/bias": 0}, r"\[10\], which has no such dimension that divides over 4"),
    ],
)
def test_rules_that_do_not_fit(rules, message):
    state = toy.start(WIDE, jmtl.equal(2))
    with pytest.raises(ValueError, match=message):
        specs(state, 4, rules)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("jit", 8, 3), "cannot be split over 3 of 8 devices: use a number that divides them"),
        (("jit", 8, 0), "cannot be split over 0 of 8"),
        (("pmap", 8, 2), "pmap does not split parameters: use jit"),
    ],
)
def test_meshes_that_cannot_be(given, message):
    with pytest.raises(ValueError, match=message):
        shell(*given)
