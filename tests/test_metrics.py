"""Metrics against scikit-learn, over uneven batches and absent rows."""

import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from jmtl import metrics

SIZES = (7, 1, 12)


def over_batches(metric, output, label, present):
    splits = [np.split(x, np.cumsum(SIZES)[:-1]) for x in (output, label, present)]
    parts = [metric.update(*map(jnp.asarray, part)) for part in zip(*splits, strict=True)]
    return metric.compute(jax.tree.map(lambda *xs: sum(xs), *parts))


@settings(max_examples=15, deadline=None, derandomize=True)
@given(seed=st.integers(0, 2**31), labels=st.integers(1, 5), predictions=st.integers(1, 5))
def test_classification_is_scikit_learns(seed, labels, predictions):
    rng, n = np.random.default_rng(seed), sum(SIZES)
    label, prediction = rng.integers(0, labels, n), rng.integers(0, predictions, n)
    present = rng.random(n) < 0.7
    present[0] = True
    output = np.eye(5, dtype=np.float32)[prediction] - 0.5
    actual = over_batches(metrics.classification(5), output, np.where(present, label, -1), present)
    y, p = label[present], prediction[present]
    options = {"labels": range(5), "average": "macro", "zero_division": 0}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected = {
            "accuracy": sk.accuracy_score(y, p),
            "precision": sk.precision_score(y, p, **options),
            "recall": sk.recall_score(y, p, **options),
            "f1": sk.f1_score(y, p, **options),
        }
    assert actual.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(actual[name], value, rtol=1e-6, atol=1e-7, err_msg=name)


def test_the_statistics_are_the_confusion_matrix():
    rng = np.random.default_rng(0)
    label, output = rng.integers(0, 3, (4, 2, 5)), rng.normal(size=(4, 2, 5, 3))
    present = np.array([True, False, True, True])
    label[1] = 99
    stats = metrics.classification(3).update(*map(jnp.asarray, (output, label, present)))
    assert stats.dtype == jnp.int32
    expected = sk.confusion_matrix(label[present].ravel(), output[present].argmax(-1).ravel())
    np.testing.assert_array_equal(stats, expected)


def test_labels_out_of_range_are_left_out():
    stats = metrics.classification(2).update(
        jnp.eye(2)[jnp.array([0, 1, 1])], jnp.array([-1, 2, 1]), jnp.ones(3, bool)
    )
    np.testing.assert_array_equal(stats, [[0, 0], [0, 1]])


@pytest.mark.parametrize("shape", [(20,), (20, 3)])
def test_regression_is_scikit_learns(shape):
    rng = np.random.default_rng(2)
    label = rng.normal(size=shape).astype(np.float32)
    output = rng.normal(size=shape if len(shape) > 1 else (20, 1)).astype(np.float32)
    present = rng.random(20) < 0.6
    garbage = np.where(present.reshape(-1, *[1] * (label.ndim - 1)), label, np.nan)
    actual = over_batches(metrics.regression(), output, garbage, present)
    y, p = label[present].ravel(), output[present].ravel()
    np.testing.assert_allclose(actual["mae"], sk.mean_absolute_error(y, p), rtol=1e-6)
    np.testing.assert_allclose(actual["rmse"], sk.root_mean_squared_error(y, p), rtol=1e-6)


@pytest.mark.parametrize(
    ("metric", "output", "label"),
    [
        (metrics.classification(3), jnp.zeros((2, 3)), jnp.zeros(2, jnp.int32)),
        (metrics.regression(), jnp.zeros((2, 1)), jnp.zeros(2)),
    ],
)
def test_without_labels_a_metric_is_undefined(metric, output, label):
    stats = metric.update(output, label, jnp.zeros(2, bool))
    assert all(jnp.isnan(value) for value in metric.compute(stats).values())


@pytest.mark.parametrize("kind", ["classification", "regression"])
def test_statistics_add_over_devices_and_under_jit(kind):
    output, present = jax.random.normal(jax.random.key(0), (8, 4)), jnp.arange(8) != 3
    metric, label = {
        "classification": (metrics.classification(4), jnp.arange(8) % 4),
        "regression": (metrics.regression(), output[::-1]),
    }[kind]
    single = metric.update(output, label, present)
    compiled = jax.jit(metric.update)(output, label, present)
    split = jax.tree.map(lambda x: x.reshape(4, 2, *x.shape[1:]), (output, label, present))
    summed = jax.pmap(lambda x: jax.lax.psum(metric.update(*x), "d"), axis_name="d")(split)
    for one, all_devices, jitted in zip(
        *map(jax.tree.leaves, (single, summed, compiled)), strict=True
    ):
        np.testing.assert_allclose(one, all_devices[0], rtol=1e-6)
        np.testing.assert_allclose(one, jitted, rtol=1e-6)


def test_outputs_and_classes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match=r"metrics of 3 classes .* got \(2, 4\)"):
        metrics.classification(3).update(
            jnp.zeros((2, 4)), jnp.zeros(2, jnp.int32), jnp.ones(2, bool)
        )
    with pytest.raises(ValueError, match="num_classes=1"):
        metrics.classification(1)


@pytest.mark.parametrize("metric", [metrics.classification(3), metrics.regression()])
def test_every_metric_says_which_way_is_better(metric):
    shape = (4, 3) if "accuracy" in metric.higher_is_better else (4,)
    label = jnp.zeros(4, jnp.int32 if len(shape) == 2 else jnp.float32)
    computed = metric.compute(metric.update(jnp.ones(shape), label, jnp.ones(4, bool)))
    assert set(computed) == set(metric.higher_is_better)
