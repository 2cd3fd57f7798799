"""Every kind of task: what its loss is the mean of, what garbage does, what is refused."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmtl import losses, tasks
from jmtl.tasks import batch, check_labels, task_counts, task_losses
from tests.kinds import CLASSES, TASKS, VALID, example


@jax.jit
def values_and_gradients(outputs, b, counts):
    """K losses, and the gradient of each with respect to its own output."""
    values, back = jax.vjp(lambda o: jnp.stack(task_losses(TASKS, o, b, counts)), outputs)
    return values, back(jnp.ones(len(TASKS)))[0]


counts_of = jax.jit(lambda b: task_counts(TASKS, b))


def rows(b, chosen):
    """The batch with labels in some rows alone."""
    return b._replace(present={name: mask & chosen for name, mask in b.present.items()})


def by_task(values):
    return dict(zip([task.name for task in TASKS], values, strict=True))


def whole(seed):
    outputs, b = example(seed)
    values, grads = values_and_gradients(outputs, b, counts_of(b))
    return outputs, b, by_task(values), grads


def counted(name, b):
    valid = VALID[name](b.labels[name])
    return valid & b.present[name].reshape(-1, *[1] * (valid.ndim - 1))


def test_every_valid_element_of_a_batch_counts_alike():
    outputs, b, values, _ = whole(0)
    counts = by_task(counts_of(b))
    for name in VALID:
        there = counted(name, b)
        o, y = outputs[name].astype(np.float64)[there], b.labels[name][there]
        if name in ("pixels", "tags"):
            expected = np.log(np.exp(o).sum(-1)) - o[np.arange(len(y)), y]
        elif name == "attributes":
            expected = np.log1p(np.exp(np.where(y == 1, -o, o)))
        elif name == "depth":
            expected = np.abs(o[..., 0] - y)
        else:
            lengths = np.linalg.norm(o, axis=-1) * np.linalg.norm(y.astype(np.float64), axis=-1)
            expected = 1 - (o * y).sum(-1) / lengths
        assert counts[name] == len(y)
        np.testing.assert_allclose(values[name], expected.mean(), rtol=1e-5, err_msg=name)


def test_without_the_weight_every_example_counts_alike():
    outputs, b, values, _ = whole(0)
    (alike,) = task_losses((TASKS[5]._replace(weight=None),), outputs, b)
    alone = [rows(b, np.arange(4) == i) for i in np.flatnonzero(b.present["pixels"])]
    each = [values_and_gradients(outputs, one, counts_of(one))[0] for one in alone]
    np.testing.assert_allclose(alike, np.mean([by_task(e)["pixels"] for e in each]), rtol=1e-6)
    assert abs(alike / values["pixels"] - 1) > 0.01


def test_parts_with_the_global_counts_add_to_the_whole():
    outputs, b, values, grads = whole(1)
    counts = counts_of(b)
    halves = [rows(b, half) for half in (np.arange(4) < 2, np.arange(4) >= 2)]
    parts = [counts_of(half) for half in halves]
    np.testing.assert_array_equal(np.sum(parts, 0), counts)
    first, second = map(by_task, parts)
    assert all(first[name] != second[name] for name in VALID)
    found = [values_and_gradients(outputs, half, counts) for half in halves]
    total = by_task(found[0][0] + found[1][0])
    for name in values:
        np.testing.assert_allclose(total[name], values[name], rtol=1e-5, err_msg=name)
        added = found[0][1][name] + found[1][1][name]
        np.testing.assert_allclose(added, grads[name], rtol=1e-5, atol=1e-7, err_msg=name)


def test_what_is_absent_or_invalid_reaches_neither_value_nor_gradient():
    outputs, b, values, grads = whole(2)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((values, grads)))
    for name in VALID:
        outside = np.asarray(grads[name])[~counted(name, b)]
        assert outside.size
        np.testing.assert_array_equal(outside, 0, err_msg=name)
    # Other garbage in the same places.
    garbage = {}
    for name, y in b.labels.items():
        present = b.present[name].reshape(-1, *[1] * (y.ndim - 1))
        bad = np.nan if y.dtype == np.float32 else 77 if y.dtype != bool else True
        garbage[name] = np.where(present, y, np.asarray(bad, y.dtype))
    garbage["depth"] = np.where(garbage["depth"] == 0, np.nan, garbage["depth"])
    again, same = values_and_gradients(outputs, b._replace(labels=garbage), counts_of(b))
    np.testing.assert_array_equal(again, jnp.stack(list(values.values())))
    for name, grad in grads.items():
        np.testing.assert_array_equal(same[name], grad, err_msg=name)


def test_without_any_valid_element_the_loss_is_zero():
    outputs, b = example(3)
    nothing = {"attributes": -1, "pixels": 255, "depth": 0, "normals": 0, "moves": 0, "tags": -1}
    empty = {k: np.full_like(b.labels[k], v) for k, v in nothing.items()}
    b = b._replace(labels={**b.labels, **empty})
    values, grads = values_and_gradients(outputs, b, counts_of(b))
    for name in nothing:
        assert by_task(values)[name] == 0
        assert not np.any(grads[name])


def test_an_image_without_objects_counts_as_one():
    outputs, b = example(4)
    b = b._replace(labels={**b.labels, "boxes": np.full_like(b.labels["boxes"], -1)})
    counts = counts_of(b)
    assert by_task(counts)["boxes"] == b.present["boxes"].sum() == 3
    # Only the cells' loss is left, and it pushes every centre down.
    grad = np.asarray(values_and_gradients(outputs, b, counts)[1]["boxes"])[b.present["boxes"]]
    assert (grad[..., :2] > 0).all()
    assert not grad[..., 2:].any()


def test_labels_of_every_kind_pass():
    _, b = example(5)
    check_labels(TASKS, b)
    single = tasks.regression("size")
    check_labels((single,), batch(None, {"size": np.zeros((2, 1))}))
    check_labels((single._replace(check=None),), batch(None, {"size": np.array(["a", "b"])}))


BAD = [
    (tasks.classification("t", 3), [0, 3], r"its values are integers in 0 .. 2; got 3 in row 1"),
    (tasks.classification("t", 3), [0.0, 1.0], r"its values are integers, got float64"),
    (tasks.binary("t"), [0, 2], r"its values are 0 or 1; got 2 in row 1"),
    (tasks.binary("t"), [[0], [1]], r"an example's shape is no dimensions, got \(1,\)"),
    (tasks.multi_label("t", 2), [[0, -1], [1, -2]], "0 or 1, or -1 where there is none; got -2 in"),
    (tasks.multi_label("t", 2), [[0, 1, 1]] * 2, r"an example's shape is \(2\), got \(3,\)"),
    (tasks.regression("t"), [0.0, np.nan], "its values are finite numbers; got nan in row 1"),
    (tasks.regression("t", 2), [0.0, 1.0], r"an example's shape is \(2\), got \(\)"),
    (tasks.regression("t"), ["a", "b"], "its values are numbers, got <U1"),
    (tasks.segmentation("t", 3), [[[0, 3]]] * 2, "0 .. 2, or -1 or 255 where .*; got 3 in row 0"),
    (tasks.segmentation("t", 3, (2, 2)), [[[0, 1]]] * 2, r"shape is \(2, 2\), got \(1, 2\)"),
    (tasks.depth("t"), [[[0.0, -1.0]]] * 2, "finite numbers >= 0; got -1.0 in row 0"),
    (tasks.normals("t"), np.zeros((2, 2, 2, 2)), r"\(any, any, 3\), got \(2, 2, 2\)"),
    (tasks.detection("t", 2), [[[0, 0, 1, 1, 2.0]]] * 2, r"class in 0 .. 1.*; got \[0.0, 0.0, 1"),
    (tasks.detection("t", 2), [[[0.5, 0, 0.4, 1, 0.0]]] * 2, "top <= bottom"),
    (tasks.detection("t", 2), np.zeros((2, 3, 4)), r"\(any, 5\), got \(3, 4\)"),
    (tasks.tracking("t"), [[[0.5, 2, 0, 0, 1.0]]] * 2, "a centre in .* in row 0"),
    (tasks.tagging("t", 3), [[0, 1, 5]] * 2, "0 .. 2, or -1 where there is none; got 5 in row 0"),
]


@pytest.mark.parametrize(("task", "label", "message"), BAD)
def test_labels_that_are_wrong_are_refused_when_loaded(task, label, message):
    label = np.asarray(label)
    with pytest.raises(ValueError, match=f"^task 't': label 't': .*{message}") as error:
        check_labels((task,), batch(None, {"t": label}))
    assert "\n" not in str(error.value)
    if "row" in message:  # rows that are absent may hold anything
        check_labels((task,), batch(None, {"t": label}, {"t": np.zeros(len(label), bool)}))


SHAPES = [
    (tasks.classification("t", 3), (2, 3), np.zeros(2), "takes integer labels"),
    (tasks.binary("t"), (2, 1), np.zeros(2), "boolean or the integer"),
    (tasks.multi_label("t", 3), (2, 3), np.zeros((2, 2), int), "one shape"),
    (tasks.segmentation("t", 3), (2, 4, 4, 3), np.zeros((2, 8, 8), int), "takes integer labels"),
    (tasks.depth("t"), (2, 4, 4, 1), np.zeros((2, 8, 8)), "one shape"),
    (tasks.normals("t"), (2, 4, 4, 3), np.zeros((2, 4, 4)), r"both \[B, ..., D\]"),
    (tasks.detection("t", 2), (2, 4, 4, 6), np.zeros((2, 3, 4)), r"detection is \[B, N, 5\]"),
    (tasks.detection("t", 2), (2, 6), np.zeros((2, 3, 5)), "found in maps"),
    (tasks.tracking("t"), (2, 4, 4, 3), np.zeros((2, 3, 5)), r"output \[B, h, w, 2\]"),
    (tasks.tagging("t", 3), (2, 5, 3), np.zeros((2, 4), int), "takes integer labels"),
]


@pytest.mark.parametrize(("task", "output", "label", "message"), SHAPES)
def test_labels_of_another_shape_or_dtype_are_refused_when_traced(task, output, label, message):
    b = batch(None, {"t": label})
    with pytest.raises(ValueError, match=f"^task 't': .*{message}") as error:
        jax.eval_shape(lambda o: task_losses((task,), {"t": o}, b), jnp.zeros(output))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: tasks.multi_label("t", 0), "task 't': num_labels must be"),
        (lambda: tasks.segmentation("t", 1), "num_classes=1"),
        (lambda: tasks.tagging("t", 1), "num_classes=1"),
        (lambda: tasks.detection("t", 0), "task 't': num_classes must be"),
        (lambda: tasks.detection("t", 1, top_k=0), "task 't': top_k must be"),
    ],
)
def test_sizes_that_cannot_be_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_what_is_ignored_is_no_class():
    few, many = tasks.segmentation("t", CLASSES), tasks.segmentation("t", 300)
    label = jnp.array([[[-1, 255, 1]]])
    assert few.weight(label) == 1
    assert many.weight(label) == 2
    assert tasks.segmentation("t", CLASSES, ignore=()).weight(label) == 3
    assert tasks.segmentation("t", CLASSES, ignore=(1,)).weight(label) == 2


def test_a_weight_of_another_shape_is_refused():
    _, b = example(0)
    task = TASKS[0]._replace(weight=partial(losses.outside, values=()))
    assert task_counts((task,), b) == (3,)
    with pytest.raises(ValueError, match=r"task 'kind': a weight is one number .* got \(\)"):
        task_counts((task._replace(weight=jnp.sum),), b)


def test_every_main_metric_is_among_its_metrics():
    for task in TASKS:
        assert task.main in task.metric.higher_is_better
