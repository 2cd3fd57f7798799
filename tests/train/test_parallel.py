"""N devices, under jit and under pmap, train as one does; three wrong steps that do not."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import jmtl
from jmtl import gradients
from jmtl.data.indices import batch_indices
from jmtl.method import Answer, Method, stateless
from jmtl.train import step as step_module
from jmtl.train.parallel import check_divides, shell
from tests.train.toy import (
    ARRAYS,
    BATCH,
    DEEP,
    MLP,
    PLAIN,
    RESNET,
    SEED,
    N,
    distance,
    numbers,
    start,
    train,
)

ENCODERS = {"plain": PLAIN, "mlp": MLP, "resnet": RESNET, "deep": DEEP}
CLOSE, WRONG = 1e-5, 1e-2


def make(name):
    """A method by name; `fickle` is far from linear in the losses, `three` takes three batches."""
    if name == "fickle+pcgrad":
        fickle = Method("fickle", 2, stateless, _fickle, needs="losses", uses_losses=True)
        return jmtl.chain(fickle, jmtl.pcgrad(2))
    if name == "three":
        return Method("three", 2, stateless, _three, needs="gramian", batches=3)
    parts = [jmtl.make(part, 2) for part in name.split("+")]
    return parts[0] if len(parts) == 1 else jmtl.chain(*parts)


def _fickle(seen, state):
    return Answer(jax.nn.softmax(10 * seen.losses)), state


def _three(seen, state):
    inner, left, right = seen.cross
    size = jnp.sqrt(jnp.abs(inner * left[:, None] * right[None]).sum())
    return Answer(jnp.stack([size, seen.gramian.norms[0] / size])), state


def one_device(encoder="mlp", method="pcgrad", at="parameters"):
    return _one_device(encoder, method, at)


@functools.cache
def _one_device(encoder, method, at):
    return train(shell("jit", 1), ENCODERS[encoder], make(method), at=at, seed=seed_of(encoder))


def seed_of(encoder):
    """The ResNet's is one of which no ReLU stands so close to 0 that rounding switches it.

    Of seeds 0 to 5, over 20 steps, 1, 2, 3 and 5 agree to 7e-6 on jax 0.10 and 0.12; in seed 0 one
    ReLU flips on 0.10 (5.6e-3 in a bias that is small), in seed 4 on 0.12 (9e-5).
    """
    return 3 if encoder == "resnet" else 0


def check(kind, devices, encoder="mlp", method="pcgrad", streamed=False, **options):
    trained = train(
        shell(kind, devices),
        ENCODERS[encoder],
        make(method),
        streamed=streamed,
        seed=seed_of(encoder),
        **options,
    )
    single = one_device(encoder, method, **options)
    assert distance(numbers(trained), numbers(single)) < CLOSE
    np.testing.assert_allclose(trained.metrics.losses, single.metrics.losses, rtol=CLOSE)
    np.testing.assert_allclose(trained.metrics.cosine, single.metrics.cosine, atol=CLOSE)
    assert int(trained.state.step) == 20


def test_a_device_holds_an_uneven_number_of_labels_and_there_is_conflict():
    for t in range(20):
        has = ARRAYS["has_kind"][batch_indices(SEED, t, BATCH, N)].reshape(4, -1)
        assert len(set(has.sum(axis=1))) > 1
    rate = one_device().metrics.conflict_rate
    assert 0 < rate.mean() < 1


@pytest.mark.parametrize(
    ("kind", "devices", "encoder", "streamed"),
    [
        ("jit", 4, "mlp", False),
        ("pmap", 8, "mlp", True),
        ("jit", 8, "resnet", True),
        ("pmap", 4, "resnet", False),
    ],
)
def test_devices_train_as_one(kind, devices, encoder, streamed):
    check(kind, devices, encoder, streamed=streamed)


@pytest.mark.slow
@pytest.mark.parametrize("streamed", [False, True])
@pytest.mark.parametrize("encoder", ["mlp", "deep"])
@pytest.mark.parametrize("devices", [1, 4, 8])
@pytest.mark.parametrize("kind", ["jit", "pmap"])
def test_devices_train_as_one_in_every_form(kind, devices, encoder, streamed):
    check(kind, devices, encoder, streamed=streamed)


@pytest.mark.parametrize(
    "method", ["uncertainty+pcgrad", pytest.param("fickle+pcgrad", marks=pytest.mark.slow)]
)
def test_losses_are_global_before_a_method_sees_them(method):
    check("pmap", 4, method=method)


def test_gradients_at_the_representation_are_those_of_all_devices():
    check("pmap", 4, "plain", at="representation")


@pytest.mark.parametrize("kind", ["jit", "pmap"])
def test_three_batches_are_the_same_ones_on_any_number_of_devices(kind):
    check(kind, 4, "plain", method="three")


def _method_before_mean(fun, method, *, axis_name, **options):
    """The mean over devices of each device's own answer: what surgery must not be."""
    local = jmtl.value_and_grads(fun, method, axis_name=None, **options)

    def run(*args):
        mean = lambda x: lax.pmean(x, axis_name) if jnp.issubdtype(x.dtype, jnp.floating) else x
        return jax.tree.map(mean, local(*args))

    return run


@pytest.mark.parametrize("method", ["pcgrad", "uncertainty+pcgrad"])
def test_surgery_before_the_mean_over_devices_is_caught(method, monkeypatch):
    right = numbers(one_device(method=method))
    monkeypatch.setattr(step_module, "value_and_grads", _method_before_mean)
    wrong = train(shell("pmap", 4), method=make(method))
    assert distance(numbers(wrong), right) > WRONG


def test_a_method_that_sees_local_losses_is_caught(monkeypatch):
    right = numbers(one_device(method="fickle+pcgrad"))
    mean = gradients.device_mean

    def not_of_losses(tree, axis_name):
        return tree if isinstance(tree, jax.Array) and tree.shape == (2,) else mean(tree, axis_name)

    monkeypatch.setattr(gradients, "device_mean", not_of_losses)
    wrong = train(shell("pmap", 4), method=make("fickle+pcgrad"))
    assert distance(numbers(wrong), right) > WRONG


def test_a_mean_over_local_labels_is_caught(monkeypatch):
    right = numbers(one_device())
    arguments = step_module._arguments

    def local(tasks, batch, state, batches, axis_name):
        batch, counts, key = arguments(tasks, batch, state, batches, None)
        return batch, tuple(count * lax.axis_size(axis_name) for count in counts), key

    monkeypatch.setattr(step_module, "_arguments", local)
    wrong = train(shell("pmap", 4))
    assert distance(numbers(wrong), right) > WRONG


def test_batch_norm_over_local_rows_is_caught():
    wrong = train(shell("pmap", 4), RESNET, seed=seed_of("resnet"), axis_in_model=False)
    assert distance(numbers(wrong), numbers(one_device("resnet"))) > WRONG


def test_what_is_placed_outlives_the_donation():
    state = start(MLP, make("pcgrad"))
    for kind in ("jit", "pmap"):
        placed = shell(kind, 2).place(state)
        jax.tree.map(lambda x: x.delete(), placed)
    assert int(state.step) == 0
    assert np.isfinite(jax.tree.leaves(state.params)[0]).all()


@pytest.mark.parametrize(
    ("kind", "devices", "message"),
    [
        ("jit", 9, r"9 devices asked for, and there are 8: .*device_count=9"),
        ("pmap", 0, "0 devices asked for"),
        ("mesh", 1, "must be jit or pmap, got 'mesh'"),
    ],
)
def test_shells_that_cannot_be(kind, devices, message):
    with pytest.raises(ValueError, match=message):
        shell(kind, devices)


def test_a_batch_that_does_not_divide():
    check_divides(64, 8)
    with pytest.raises(ValueError, match=r"batch size 30 .* 8 devices: use 24 or 32"):
        check_divides(30, 8)
    with pytest.raises(ValueError, match=r"batch size 3 .* 8 devices: use 8 or 8"):
        check_divides(3, 8)
