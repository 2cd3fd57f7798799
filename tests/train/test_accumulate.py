"""A batch in microbatches trains as the whole does; means of means and dropout by parts do not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jmtl
from jmtl import tasks as jmtl_tasks
from jmtl.nn import layers, make_encoder, make_heads, make_sharing
from jmtl.train import accumulate
from jmtl.train.parallel import shell
from jmtl.train.state import init_state
from jmtl.train.step import make_step
from tests.train import toy
from tests.train.test_parallel import make, one_device
from tests.train.test_step import batch_of
from tests.train.toy import MLP, OPTIMIZER, PLAIN, RESNET, TASKS, distance, numbers

CLOSE, WRONG = 1e-6, 1e-3


def one_step(encoder, method, rows=toy.BATCH, seed=0, **options):
    """What a step makes of a state, and its report."""
    step = jax.jit(make_step(toy.net(encoder), TASKS, method, OPTIMIZER, **options))
    return toy.Trained(*step(toy.start(encoder, method, seed), batch_of(0, rows)))


def check(one, whole, close=CLOSE):
    assert distance(numbers(one), numbers(whole)) < close
    np.testing.assert_allclose(one.metrics.losses, whole.metrics.losses, rtol=close)
    np.testing.assert_allclose(one.metrics.weights, whole.metrics.weights, rtol=10 * close)
    np.testing.assert_allclose(one.metrics.cosine, whole.metrics.cosine, atol=close)


def test_microbatches_hold_unlike_numbers_of_labels():
    has = np.asarray(batch_of(0).present["kind"]).reshape(-1, 4)
    assert len(set(has.sum(axis=0))) > 1


@pytest.mark.parametrize(
    ("encoder", "method", "options"),
    [
        (MLP, "uncertainty+pcgrad", {}),  # a Gramian; the heads are weighted
        (PLAIN, "db_mtl", {"strategy": "vmap"}),  # the stack
        (PLAIN, "mgda", {"at": "representation"}),
        pytest.param(PLAIN, "three", {}, marks=pytest.mark.slow),
    ],
)
def test_microbatches_step_as_the_whole_batch(encoder, method, options):
    made = make(method)
    rows = toy.BATCH * made.batches
    whole = one_step(encoder, made, rows, **options)
    check(one_step(encoder, made, rows, microbatches=4, **options), whole)


def test_losses_after_the_update_are_those_of_all_microbatches():
    # What FAMO keeps is a difference of logarithms of losses, which multiplies their rounding.
    famo = jmtl.famo(2)
    whole, parts = (one_step(PLAIN, famo, microbatches=n, measure_every=1) for n in (1, 4))
    check(parts, whole, close=3e-5)


@pytest.mark.parametrize("kind", ["jit", pytest.param("pmap", marks=pytest.mark.slow)])
def test_microbatches_on_four_devices_train_as_the_whole_batch_on_one(kind):
    check(toy.train(shell(kind, 4), MLP, microbatches=4), one_device(), close=1e-5)


@pytest.mark.slow
def test_batch_norm_sees_microbatches_and_its_statistics_move_once():
    whole = one_step(RESNET, jmtl.pcgrad(2))
    parts = one_step(RESNET, jmtl.pcgrad(2), microbatches=2)
    assert distance(numbers(parts), numbers(whole)) > WRONG
    means = [x.state.model_state["shared"]["batch_stats"]["bn1"]["mean"] for x in (parts, whole)]
    np.testing.assert_allclose(*means, rtol=1e-5, atol=1e-7)


@pytest.mark.slow
def test_dropout_that_numbers_the_rows_of_a_microbatch_is_caught(monkeypatch):
    whole = one_step(MLP, jmtl.equal(2))
    monkeypatch.setattr(accumulate, "numbered_rows", lambda _: layers.numbered_rows(lambda x: x))
    wrong = one_step(MLP, jmtl.equal(2), microbatches=4)
    assert distance(numbers(wrong), numbers(whole)) > WRONG


def test_a_mean_of_means_over_microbatches_is_caught(monkeypatch):
    whole = one_step(PLAIN, jmtl.equal(2))
    monkeypatch.setattr("jmtl.train.step.task_losses", _by_their_own_counts)
    wrong = one_step(PLAIN, jmtl.equal(2), microbatches=4)
    assert distance(numbers(wrong), numbers(whole)) > WRONG


def _by_their_own_counts(tasks, outputs, batch, counts):
    del counts
    return tuple(x / 4 for x in jmtl_tasks.task_losses(tasks, outputs, batch))


@pytest.mark.slow
def test_a_penalty_counts_once():
    encoder, heads = make_encoder("mlp", hidden=(4,)), make_heads(TASKS)
    model = make_sharing("dselect_k", encoder, heads, experts=2, k=1)
    inputs = batch_of(0).inputs
    init = lambda key: init_state(key, model, jmtl.equal(2), OPTIMIZER, inputs)
    state = jax.jit(init)(jax.random.key(0))
    whole, parts = (
        toy.Trained(
            *jax.jit(make_step(model, TASKS, jmtl.equal(2), OPTIMIZER, microbatches=n))(
                state, batch_of(0)
            )
        )
        for n in (1, 4)
    )
    check(parts, whole)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"microbatches": 0}, "microbatches must be a whole number >= 1, got 0"),
        ({"microbatches": 5}, "32 rows do not divide into 5 microbatches"),
        ({"microbatches": 2, "strategy": "recompute"}, "microbatches add theirs up before"),
    ],
)
def test_microbatches_that_cannot_be(options, message):
    method = jmtl.pcgrad(2)
    with pytest.raises(ValueError, match=message):
        make_step(toy.net(PLAIN), TASKS, method, OPTIMIZER, **options)(
            toy.start(PLAIN, method), batch_of(0)
        )


def test_accumulated_counts_are_the_last():
    total, kept = accumulate._scanned(
        lambda batch: ((batch.sum(), jnp.int32(7)), batch), (jnp.arange(6.0),), 3
    )
    assert (float(total[0]), int(total[1])) == (15, 7)
    np.testing.assert_array_equal(kept, [[0, 3], [1, 4], [2, 5]])
