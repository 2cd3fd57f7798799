"""Metrics of a split: the same whatever the size of the batches, in evaluation mode."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import accuracy_score, f1_score, log_loss

import jmtl
from jmtl.data.loading import evaluation_batches
from jmtl.train.evaluate import evaluate
from tests.train import toy
from tests.train.toy import ARRAYS, TASKS

ENCODER = ("resnet", {"widths": (4,), "blocks": (1,), "dropout": 0.5})
NET = toy.net(ENCODER)


@pytest.fixture(scope="module")
def variables():
    state = toy.start(ENCODER, jmtl.equal(2))
    # Running statistics unlike any batch's own.
    moved = jax.tree.map(lambda x: 1.5 * x + 0.1, state.model_state)
    return jax.device_get((state.params, moved))


def scores(variables, size, arrays=ARRAYS):
    return evaluate(NET, TASKS, toy.to_batch, *variables, evaluation_batches(arrays, size))


@pytest.fixture(scope="module")
def whole(variables):
    return scores(variables, 200)


def test_they_are_scikit_learns_on_the_rows_with_labels(variables, whole):
    inputs = jnp.asarray(ARRAYS["image"], jnp.float32) / 16
    outputs = jax.jit(lambda v: NET.apply(*v, inputs)[0])(variables)
    has = ARRAYS["has_kind"]
    truth, logits = ARRAYS["kind"][has], np.asarray(outputs["kind"], np.float64)[has]
    guess = logits.argmax(1)
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    kind, size = whole["kind"], whole["size"]
    assert kind["accuracy"] == pytest.approx(accuracy_score(truth, guess), rel=1e-6)
    expected = f1_score(truth, guess, average="macro", zero_division=0)
    assert kind["f1"] == pytest.approx(expected, rel=1e-5)
    assert kind["loss"] == pytest.approx(log_loss(truth, chances, labels=range(10)), rel=1e-5)
    error = np.asarray(outputs["size"][:, 0], np.float64) - ARRAYS["size"]
    assert size["mae"] == pytest.approx(np.abs(error).mean(), rel=1e-5)
    assert size["loss"] == pytest.approx((error**2).mean(), rel=1e-5)


@pytest.mark.parametrize("size", [64, 199])
def test_uneven_batches_give_what_one_gives(variables, whole, size):
    found = scores(variables, size)
    assert found.keys() == whole.keys()
    for task, metrics in whole.items():
        assert found[task] == pytest.approx(metrics, rel=1e-5)


def test_a_task_without_labels_has_no_loss(variables, whole):
    found = scores(variables, 100, {**ARRAYS, "has_kind": np.zeros(200, bool)})
    assert np.isnan(found["kind"]["loss"])
    assert found["size"] == pytest.approx(whole["size"], rel=1e-6)
