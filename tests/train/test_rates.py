"""Factors by parameter path: closed forms of one update, frozen bits, gradients of zero."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jmtl
from jmtl.train import rates
from jmtl.train.state import fresh_state
from jmtl.train.step import make_step
from tests.train import toy
from tests.train.test_step import batch_of, bits
from tests.train.toy import DEEP, RESNET, TASKS

PARAMS = {
    "shared": {"one": {"kernel": jnp.array([1.0, -0.0]), "bias": jnp.array([2.0])}, "two": 3.0},
    "tasks": {"left": {"kernel": jnp.array([5.0])}, "leftmost": jnp.array([7.0])},
}
GRADIENT = jax.tree.map(lambda x: jnp.full_like(x, 4.0), PARAMS)


def moves(factors, optimizer=None):
    """Updates by path of gradients of 4 at a rate of 0.5: -2 times the factor."""
    made = rates.scaled(optimizer or optax.sgd(0.5), factors)
    updates, _ = made.update(GRADIENT, made.init(PARAMS), PARAMS)
    shared, own = updates["shared"], updates["tasks"]
    one = shared["one"]["kernel"], shared["one"]["bias"]
    found = (*one, shared["two"], own["left"]["kernel"], own["leftmost"])
    return [float(jnp.ravel(x)[0]) for x in found]


@pytest.mark.parametrize(
    ("factors", "expected"),
    [
        ({}, [-2, -2, -2, -2, -2]),
        ({"encoder": 0.1}, [-0.2, -0.2, -0.2, -2, -2]),
        ({"encoder": 0.1, "encoder/one/bias": 2.0}, [-0.2, -4, -0.2, -2, -2]),
        ({"encoder/one/bias": 1.0, "encoder": 0.0, "encoder/one": 0.5}, [-1, -2, 0, -2, -2]),
        ({"tasks": 0.5}, [-2, -2, -2, -1, -1]),
        ({"tasks/left": 0.0}, [-2, -2, -2, 0, -2]),  # a name is no prefix of another
    ],
)
def test_the_longest_path_decides(factors, expected):
    np.testing.assert_allclose(moves(factors), expected, rtol=1e-6)


def test_a_factor_of_one_changes_no_bit():
    assert moves({"encoder": 1.0}, optax.adamw(0.5)) == moves({}, optax.adamw(0.5))


def test_frozen_parameters_keep_their_bits_under_weight_decay_and_have_no_moments():
    made = rates.scaled(optax.adamw(0.1, weight_decay=0.5), {"encoder/one": 0.0})
    params, state = PARAMS, made.init(PARAMS)
    for _ in range(3):
        updates, state = jax.jit(made.update)(GRADIENT, state, params)
        params = jax.jit(optax.apply_updates)(params, updates)
    assert bits(params["shared"]["one"]) == bits(PARAMS["shared"]["one"])
    assert params["shared"]["two"] != 3
    # Two moments of each of the three others, and the count.
    assert len(jax.tree.leaves(state)) == 2 * 3 + 1


@pytest.mark.parametrize(
    ("factors", "message"),
    [
        ({"encoder/tow": 0.1}, "no parameters at 'encoder/tow': the nearest are encoder/two, "),
        ({"shared": 0.1}, "no parameters at 'shared': the nearest are "),
        ({"encoder/one/": 0.1}, "no parameters at 'encoder/one/': the nearest are encoder/one, "),
        ({"encoder": -1.0}, "the factor of encoder must be a finite number of at least 0, got -1"),
        ({"encoder": float("nan")}, "the factor of encoder must be a finite number"),
    ],
)
def test_what_names_nothing_is_refused(factors, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}.*$"):
        rates.scaled(optax.sgd(0.1), factors).init(PARAMS)


def grads_of(net, state):
    """Task gradients of the shared parameters `[K, ...]`, plain ones of the tasks' own."""
    batch = batch_of(0)

    def losses(shared, own):
        outputs, _ = net.apply({"shared": shared, "tasks": own}, state.model_state, batch.inputs)
        return jnp.stack([jnp.mean(output**2) for output in outputs.values()])

    found = jmtl.value_and_task_grads(losses, split=True)
    return jax.jit(found)(state.params["shared"], state.params["tasks"])[1]


def test_gradients_of_frozen_parameters_are_zero_and_the_others_are_as_they_were():
    net, state = toy.net(RESNET), toy.start(RESNET, jmtl.equal(2))
    held = rates.frozen(net, {"encoder/layer1_0": 0.0, "tasks/size": 0.0, "encoder": 0.1})
    (shared, own), (all_shared, all_own) = grads_of(held, state), grads_of(net, state)
    assert not any(leaf.any() for leaf in jax.tree.leaves((shared["layer1_0"], own["size"])))
    assert all(leaf.any() for leaf in jax.tree.leaves((shared["conv1"], own["kind"])))
    for name in ("conv1", "bn1"):
        jax.tree.map(np.testing.assert_array_equal, shared[name], all_shared[name])
    jax.tree.map(np.testing.assert_array_equal, own["kind"], all_own["kind"])
    assert rates.frozen(net, {"encoder": 0.1}) is net


@pytest.mark.parametrize("at", ["parameters", "representation"])
def test_steps_leave_what_is_frozen_and_move_the_rest(at):
    factors = {"encoder/layer1_0": 0.0, "encoder/conv1": 0.0}
    method, optimizer = jmtl.pcgrad(2), rates.scaled(optax.adam(1e-2), factors)
    began = toy.start(DEEP, method)
    key, params, model_state = jax.random.key(0), began.params, began.model_state
    state = fresh_state(key, params, model_state, method, optimizer)
    net = rates.frozen(toy.net(DEEP), factors)
    step = jax.jit(make_step(net, TASKS, method, optimizer, at=at))
    for t in range(2):
        state, metrics = step(state, batch_of(t))
    assert int(metrics.failed[0]) == -1
    for name, before in params["shared"].items():
        same = bits(state.params["shared"][name]) == bits(before)
        assert same == (f"encoder/{name}" in factors), name
    assert bits(state.params["tasks"]) != bits(params["tasks"])
    assert bits(state.model_state) != bits(model_state)
