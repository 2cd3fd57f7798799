"""Task losses with missing labels, and the errors of tasks and batches."""

import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmtl import losses, tasks
from jmtl.tasks import Batch, batch, task_counts, task_losses

TASKS = (tasks.classification("kind", 3, label="class"), tasks.regression("size"))
GARBAGE = {"class": -1, "size": np.nan}


def example(present, seed=0):
    """Outputs, and a batch of 6 whose absent rows hold garbage."""
    rng = np.random.default_rng(seed)
    outputs = {"kind": rng.normal(size=(6, 3)), "size": rng.normal(size=(6, 1))}
    labels = {"class": rng.integers(0, 3, 6), "size": rng.normal(size=6)}
    labels = {k: np.where(present[k], v, GARBAGE[k]) for k, v in labels.items()}
    return jax.tree.map(jnp.float32, outputs), batch(np.zeros((6, 2)), labels, present)


PRESENT = {
    "class": np.array([1, 0, 1, 1, 0, 1], bool),
    "size": np.array([0, 0, 1, 0, 0, 1], bool),
}


def test_losses_are_means_over_the_labels_present():
    outputs, b = example(PRESENT)
    rows = PRESENT["class"]
    logits = np.asarray(outputs["kind"], np.float64)[rows]
    normaliser = np.log(np.exp(logits).sum(1))
    kind = (normaliser - logits[np.arange(rows.sum()), b.labels["class"][rows]]).mean()
    rows = PRESENT["size"]
    size = ((np.asarray(outputs["size"])[rows, 0] - b.labels["size"][rows]) ** 2).mean()
    actual = task_losses(TASKS, outputs, b)
    assert isinstance(actual, tuple)
    np.testing.assert_allclose(actual, [kind, size], rtol=1e-5)


@pytest.mark.parametrize("none", ["class", "size"])
def test_a_task_without_labels_has_zero_loss_and_zero_gradient(none):
    outputs, b = example({**PRESENT, none: np.zeros(6, bool)})
    k = [task.label for task in TASKS].index(none)
    value, grad = jax.value_and_grad(lambda o: task_losses(TASKS, o, b)[k])(outputs)
    assert value == 0
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(grad))


def test_absent_rows_have_zero_gradient_and_the_rest_the_gradient_without_them():
    outputs, b = example(PRESENT)
    for k, task in enumerate(TASKS):
        rows = PRESENT[task.label]
        without = batch(b.inputs[rows], {key: v[rows] for key, v in b.labels.items()})
        loss = lambda output, b, t=task: task_losses((t,), {t.name: output}, b)[0]
        actual = jax.grad(loss)(outputs[task.name], b)
        expected = jax.grad(loss)(outputs[task.name][rows], without)
        np.testing.assert_allclose(actual[rows], expected, rtol=1e-6)
        np.testing.assert_array_equal(actual[~rows], 0)
        assert task_losses(TASKS, outputs, b)[k] == loss(outputs[task.name], b)


def test_parts_with_the_global_counts_add_to_the_whole():
    outputs, b = example(PRESENT)
    whole, grads = jax.value_and_grad(lambda o: sum(task_losses(TASKS, o, b)))(outputs)
    parts = [
        jax.tree.map(lambda x: x[:2], (outputs, b)),
        jax.tree.map(lambda x: x[2:], (outputs, b)),
    ]
    counts = jax.tree.map(lambda *n: sum(n), *(task_counts(TASKS, part) for _, part in parts))
    assert [int(n) for n in counts] == [4, 2]
    add = lambda o, part: sum(task_losses(TASKS, o, part, counts))
    values, shares = zip(*(jax.value_and_grad(add)(*part) for part in parts), strict=True)
    np.testing.assert_allclose(sum(values), whole, rtol=1e-6)
    for name, grad in grads.items():
        np.testing.assert_allclose(jnp.concatenate([s[name] for s in shares]), grad, rtol=1e-6)


def test_counts_and_losses_under_jit_and_vmap():
    outputs, b = example(PRESENT)
    plain = task_losses(TASKS, outputs, b)
    b = jax.tree.map(jnp.asarray, b)
    compiled = jax.jit(lambda o, b: task_losses(TASKS, o, b))(outputs, b)
    np.testing.assert_allclose(compiled, plain, rtol=1e-6)
    twice = jax.tree.map(lambda x: jnp.stack([x, x]), (outputs, b))
    vmapped = jax.vmap(lambda o, b: task_losses(TASKS, o, b))(*twice)
    np.testing.assert_allclose(vmapped, np.stack([plain, plain], 1), rtol=1e-6)


def test_the_gradient_of_one_task_costs_nothing_of_the_other():
    outputs, b = example(PRESENT)

    def program(k):
        gradient = jax.jit(jax.grad(lambda o: task_losses(TASKS, o, b)[k]))
        return gradient.lower(outputs).compile().as_text()

    assert "exponential" in program(0)
    assert "exponential" not in program(1)


def test_masks_default_to_present():
    b = batch(
        jnp.zeros((4, 2)), {"a": jnp.zeros(4), "b": jnp.zeros((4, 3))}, {"a": PRESENT["size"][:4]}
    )
    assert isinstance(b, Batch)
    assert b.present["b"].all()
    assert b.present["b"].shape == (4,)
    np.testing.assert_array_equal(b.present["a"], PRESENT["size"][:4])


@pytest.mark.parametrize(
    ("present", "message"),
    [
        ({"clas": np.ones(2, bool)}, r"'clas', which is no label; did you mean 'class'\?"),
        ({"class": np.ones((2, 1), bool)}, r"label 'class': its mask is \(2,\) booleans, got bool"),
        ({"class": np.ones(2)}, r"label 'class': .* got float64 \(2,\)"),
    ],
)
def test_masks_that_do_not_fit_are_refused(present, message):
    with pytest.raises(ValueError, match=message):
        batch(np.zeros((2, 1)), {"class": np.zeros(2, int)}, present)


@pytest.mark.parametrize(
    ("given", "outputs", "counts", "message"),
    [
        ((TASKS[0], TASKS[0]), ["kind"], None, "2 tasks are named 'kind'"),
        ((tasks.regression("sise"),), ["sise"], None, r"no label 'sise'; did you mean 'size'\?"),
        (TASKS, ["kind", "sizes"], None, r"no output of that name; did you mean 'sizes'\?"),
        (TASKS, ["kind", "size"], [1], "2 tasks take 2 counts, got 1"),
        (
            (TASKS[1]._replace(loss=lambda *pair: losses.squared_error(*pair).mean()),),
            ["size"],
            None,
            r"task 'size': .* one value an example, \(6,\), got \(\)",
        ),
    ],
)
def test_tasks_that_do_not_fit_are_refused_when_traced(given, outputs, counts, message):
    _, b = example(PRESENT)
    outputs = {name: jnp.zeros((6, 3 if name == "kind" else 1)) for name in outputs}
    with pytest.raises(ValueError, match=message) as error:
        jax.eval_shape(lambda o: task_losses(given, o, b, counts), outputs)
    assert "\n" not in str(error.value)


def test_constructors_refuse_empty_outputs():
    with pytest.raises(ValueError, match="dim=0"):
        tasks.regression("size", dim=0)
    with pytest.raises(ValueError, match="num_classes=1"):
        tasks.classification("kind", 1)


def test_tasks_know_neither_flax_nor_files():
    check = "import sys, jmtl.tasks; print(sorted({'flax', 'orbax', 'grain'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
