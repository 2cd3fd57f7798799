"""Losses against float64 closed forms; masked means against NaN and garbage."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jmtl import losses

REGRESSIONS = (losses.squared_error, losses.absolute_error, losses.huber)
YES_OR_NO = (losses.binary_cross_entropy, losses.focal, losses.hinge)


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


def test_yes_or_no_against_float64():
    rng = np.random.default_rng(2)
    output, label = rng.normal(size=(5, 3)) * 4, rng.integers(0, 2, (5, 3))
    p = 1 / (1 + np.exp(-output))
    right = np.where(label == 1, p, 1 - p)
    close = lambda actual, expected: np.testing.assert_allclose(actual, expected.mean(1), rtol=1e-5)
    close(losses.binary_cross_entropy(output, label), -np.log(right))
    close(losses.binary_cross_entropy(output, label == 1), -np.log(right))
    share = np.where(label == 1, 0.25, 0.75)
    close(losses.focal(output, label), -share * (1 - right) ** 2 * np.log(right))
    close(losses.focal(output, label, alpha=None, gamma=0.5), -((1 - right) ** 0.5) * np.log(right))
    close(losses.hinge(output, label), np.maximum(0, 1 - np.where(label == 1, output, -output)))


@pytest.mark.parametrize("loss", YES_OR_NO)
def test_an_answer_that_is_neither_is_nan(loss):
    output, label = jnp.ones((4, 2)), jnp.array([[1, 0], [2, 0], [1, -1], [-1, -1]])
    values = jax.jit(loss)(output, label)
    np.testing.assert_array_equal(np.isnan(values), [False, True, True, True])
    counted = jax.jit(partial(loss, valid=losses.known))(output, label)
    np.testing.assert_array_equal(np.isnan(counted), [False, True, False, False])
    np.testing.assert_allclose(counted[::3], [values[0], 0], rtol=1e-6)


def test_confident_answers_have_finite_losses_and_gradients():
    output, label = jnp.array([-200.0, 200.0] * 2), jnp.array([0, 0, 1, 1])
    for loss in YES_OR_NO:
        total = lambda o, loss=loss: loss(o, label).sum()
        values, grad = jax.jit(jax.value_and_grad(total))(output)
        assert np.isfinite(values)
        assert np.isfinite(grad).all()


def test_the_cosine_against_float64():
    rng = np.random.default_rng(3)
    output, label = rng.normal(size=(4, 3, 5)), rng.normal(size=(4, 3, 5))
    lengths = np.linalg.norm(output, axis=-1) * np.linalg.norm(label, axis=-1)
    angles = 1 - (output * label).sum(-1) / lengths
    for scale in (1.0, 1e-30, 1e30):
        actual = jax.jit(losses.cosine)(output.astype(np.float32) * np.float32(scale), label)
        np.testing.assert_allclose(actual, angles.mean(1), rtol=1e-5)
    label[:, 0] = 0
    counted = jax.jit(partial(losses.cosine, valid=losses.directed))(output, label)
    np.testing.assert_allclose(counted, angles[:, 1:].mean(1), rtol=1e-5)


def test_the_gradient_of_the_cosine_is_that_of_its_formula_and_0_at_0():
    plain = lambda o, y: 1 - o @ y / jnp.sqrt((o @ o) * (y @ y))
    o, y = jnp.array([0.3, -2.0, 0.7]), jnp.array([1.0, 0.5, 0.2])
    loss = jax.jit(jax.value_and_grad(lambda o: losses.cosine(o[None], y[None])[0]))
    expected = jax.jit(jax.grad(plain))(o, y)
    np.testing.assert_allclose(loss(o)[1], expected, rtol=1e-5, atol=1e-7)
    value, grad = loss(jnp.zeros(3))
    assert value == 1
    np.testing.assert_array_equal(grad, 0)
    assert np.isnan(loss(jnp.array([jnp.nan, 1, 1]))[0])


@pytest.mark.parametrize("loss", REGRESSIONS)
def test_elements_that_do_not_count_are_left_out(loss):
    output, label = jnp.array([[1.0, 2.0, 3.0], [1.0, 1.0, 1.0]]), np.array([[4.0, 0, 1], [0] * 3])
    label[0, 1], label[1, 2] = np.nan, -np.inf
    total = lambda o: loss(o, label, valid=losses.positive).sum()
    value, grad = jax.jit(jax.value_and_grad(total))(output)
    kept = jax.jit(loss)(output[:1, ::2], label[:1, ::2])
    np.testing.assert_allclose(value, kept[0], rtol=1e-6)
    np.testing.assert_array_equal(grad[:, 1], 0)
    np.testing.assert_array_equal(grad[1], 0)
    np.testing.assert_array_equal(losses.elements(label, losses.positive), [2, 0])


@pytest.mark.parametrize(("dtype", "none"), [(np.uint8, 255), (np.int8, -1)])
def test_cross_entropy_leaves_out_what_has_no_class(dtype, none):
    output = jax.random.normal(jax.random.key(0), (2, 4, 3))
    label = np.array([[0, none, 2, 1], [none] * 4], dtype)
    valid = lambda y: losses.outside(y, (-1, 255))
    values = jax.jit(partial(losses.cross_entropy, valid=valid))(output, label)
    kept = np.asarray(output, np.float64)[0, [0, 2, 3]]
    expected = np.log(np.exp(kept).sum(-1)) - kept[[0, 1, 2], [0, 2, 1]]
    np.testing.assert_allclose(values, [expected.mean(), 0], rtol=1e-6)
    np.testing.assert_array_equal(losses.elements(label, valid), [3, 0])


@pytest.mark.parametrize("loss", REGRESSIONS)
def test_shapes_that_differ_are_refused(loss):
    # Subtraction would broadcast these to [3, 3] and train on the wrong pairs.
    with pytest.raises(ValueError, match=r"one shape, got \(3, 2\) and \(3,\)"):
        loss(jnp.zeros((3, 2)), jnp.zeros(3))


@pytest.mark.parametrize("label", [jnp.zeros(2), jnp.zeros((2, 1), jnp.int32)])
def test_labels_that_are_no_classes_are_refused(label):
    with pytest.raises(ValueError, match="takes integer labels"):
        losses.cross_entropy(jnp.zeros((2, 3)), label)


@pytest.mark.parametrize("loss", [losses.cross_entropy, losses.cosine, *YES_OR_NO, *REGRESSIONS])
def test_half_precision_outputs_give_float32_losses(loss):
    output = jnp.ones((2, 3), jnp.bfloat16)
    label = jnp.zeros((2, 3), jnp.int32 if loss in YES_OR_NO else jnp.float32)
    label = jnp.zeros(2, jnp.int32) if loss is losses.cross_entropy else label
    assert loss(output, label).dtype == jnp.float32


@pytest.mark.parametrize("loss", YES_OR_NO)
def test_answers_that_are_no_integers_are_refused(loss):
    with pytest.raises(ValueError, match="a boolean or the integer 0 or 1, got float32"):
        loss(jnp.zeros(2), jnp.zeros(2))
    with pytest.raises(ValueError, match="one shape"):
        loss(jnp.zeros((2, 3)), jnp.zeros((2, 2), jnp.int32))


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


def test_a_masked_mean_may_weigh_its_rows():
    values, present = jnp.array([1.0, 10.0, 100.0]), jnp.array([True, True, False])
    weight = jnp.array([3, 1, 7])
    assert losses.masked_mean(values, present, weight=weight) == (3 + 10) / 4
    assert losses.masked_mean(values, present, 8, weight) == (3 + 10) / 8
    assert losses.masked_mean(values, present, weight=0 * weight) == 0
