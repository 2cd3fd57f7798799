"""Losses against float64 closed forms; masked means against NaN and garbage."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jmtl import losses

REGRESSIONS = (losses.squared_error, losses.absolute_error, losses.huber)


def test_cross_entropy_against_float64():
    rng = np.random.default_rng(0)
    output, label = rng.normal(size=(5, 4)) * 10, rng.integers(0, 4, 5)
    shifted = output - output.max(1, keepdims=True)
    expected = np.log(np.exp(shifted).sum(1)) - shifted[np.arange(5), label]
    np.testing.assert_allclose(losses.cross_entropy(output, label), expected, rtol=1e-5, atol=1e-6)


def test_cross_entropy_averages_the_dimensions_between():
    rng = np.random.default_rng(1)
    output, label = rng.normal(size=(2, 3, 2, 5)), rng.integers(0, 5, (2, 3, 2))
    flat = losses.cross_entropy(output.reshape(-1, 5), label.ravel())
    actual = losses.cross_entropy(output, label)
    assert actual.shape == (2,)
    np.testing.assert_allclose(actual, flat.reshape(2, -1).mean(1), rtol=1e-6)


@pytest.mark.parametrize("label", [-1, 3])
def test_cross_entropy_of_an_unknown_class_is_nan(label):
    values = losses.cross_entropy(jnp.zeros((2, 3)), jnp.array([label, 0]))
    np.testing.assert_allclose(values, [np.nan, np.log(3)], rtol=1e-6)


def test_regressions_against_float64():
    output, label = np.array([[0.5, -3.0], [2.0, 0.0]]), np.array([[0.0, 0.0], [2.0, 1.5]])
    np.testing.assert_allclose(losses.squared_error(output, label), [(0.25 + 9) / 2, 2.25 / 2])
    np.testing.assert_allclose(losses.absolute_error(output, label), [3.5 / 2, 1.5 / 2])
    np.testing.assert_allclose(losses.huber(output, label), [(0.125 + 2.5) / 2, 1 / 2])
    np.testing.assert_allclose(
        losses.huber(output, label, delta=2.0), [(0.125 + 4.0) / 2, 1.125 / 2]
    )


@pytest.mark.parametrize("loss", REGRESSIONS)
def test_an_output_of_one_column_takes_flat_labels(loss):
    output, label = jnp.array([[1.0], [2.0], [4.0]]), jnp.array([1, 0, 0])
    assert loss(output, label).shape == (3,)
    np.testing.assert_array_equal(loss(output, label), loss(output, label[:, None]))


@pytest.mark.parametrize("loss", REGRESSIONS)
def test_shapes_that_differ_are_refused(loss):
    # Subtraction would broadcast these to [3, 3] and train on the wrong pairs.
    with pytest.raises(ValueError, match=r"one shape, got \(3, 2\) and \(3,\)"):
        loss(jnp.zeros((3, 2)), jnp.zeros(3))


@pytest.mark.parametrize("label", [jnp.zeros(2), jnp.zeros((2, 1), jnp.int32)])
def test_labels_that_are_no_classes_are_refused(label):
    with pytest.raises(ValueError, match="takes integer labels"):
        losses.cross_entropy(jnp.zeros((2, 3)), label)


@pytest.mark.parametrize("loss", [losses.cross_entropy, *REGRESSIONS])
def test_half_precision_outputs_give_float32_losses(loss):
    output = jnp.ones((2, 3), jnp.bfloat16)
    label = jnp.zeros(2, jnp.int32) if loss is losses.cross_entropy else jnp.zeros((2, 3))
    assert loss(output, label).dtype == jnp.float32


@settings(max_examples=20, deadline=None, derandomize=True)
@given(st.lists(st.booleans(), min_size=1, max_size=6))
def test_masked_mean_is_the_mean_of_those_present(present):
    mask = np.array(present)
    values = np.arange(1.0, len(mask) + 1)
    expected = values[mask].mean() if mask.any() else 0.0
    actual, grad = jax.value_and_grad(losses.masked_mean)(
        jnp.where(mask, values, jnp.nan), jnp.array(mask)
    )
    np.testing.assert_allclose(actual, expected, rtol=1e-6)
    np.testing.assert_allclose(grad, mask / max(mask.sum(), 1), rtol=1e-6)


def test_parts_with_the_global_count_add_to_the_global_mean():
    values = jnp.array([1.0, 2.0, 3.0, 10.0, 20.0, 30.0])
    present = jnp.array([True, False, False, True, True, True])
    whole = losses.masked_mean(values, present)
    parts = [losses.masked_mean(values[s], present[s], 4) for s in (slice(0, 3), slice(3, 6))]
    np.testing.assert_allclose(sum(parts), whole, rtol=1e-6)
    local = [losses.masked_mean(values[s], present[s]) for s in (slice(0, 3), slice(3, 6))]
    assert abs(np.mean(local) - whole) > 1  # why the count is an argument


def test_masked_mean_refuses_other_shapes():
    with pytest.raises(ValueError, match=r"both \[B\], got \(2, 1\) and \(2,\)"):
        losses.masked_mean(jnp.zeros((2, 1)), jnp.ones(2, bool))
