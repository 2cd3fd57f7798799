"""A step on several data sets is the sum of the steps on each alone."""

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jmtl
from jmtl import nn, tasks
from jmtl.tasks import batch, task_losses
from jmtl.train.state import init_state
from jmtl.train.step import make_step

ROWS = {"one": 6, "two": 4}
TASKS = (
    tasks.classification("kind", 3)._replace(source="one"),
    tasks.regression("size")._replace(source="two"),
)


def model_of(chosen):
    heads = nn.make_heads(chosen)
    return nn.with_stems(nn.MLP((6,)), heads, {task.name: task.source for task in chosen}, 5)


def example():
    """Two data sets with inputs of 2 and 3 numbers; one kind is missing."""
    rng = np.random.default_rng(0)
    sizes = {name: (n, 2 + i) for i, (name, n) in enumerate(ROWS.items())}
    inputs = {name: rng.normal(size=size).astype(np.float32) for name, size in sizes.items()}
    labels = {"kind": rng.integers(0, 3, 6), "size": rng.normal(size=4).astype(np.float32)}
    return batch(inputs, labels, {"kind": np.arange(6) != 2})


def test_task_gradients_are_those_of_each_tasks_batch_alone():
    whole, given, method, rate = model_of(TASKS), example(), jmtl.equal(2), optax.sgd(1.0)
    state = init_state(jax.random.key(0), whole, method, rate, given.inputs)
    shared, own = state.params["shared"], state.params["tasks"]

    @jax.jit
    def together(shared):
        def losses(shared):
            params = {"shared": shared, "tasks": own}
            outputs, _ = whole.apply(params, state.model_state, given.inputs, True)
            return jnp.stack(task_losses(TASKS, outputs, given))

        return jmtl.value_and_task_grads(losses)(shared)

    def alone(task):
        """The task's loss and gradients by a model that has heard of no other task."""
        net = model_of((task,))
        part = batch(
            {task.source: given.inputs[task.source]},
            {task.label: given.labels[task.label]},
            {task.label: given.present[task.label]},
        )

        def loss(shared, mine):
            params = {"shared": shared, "tasks": {task.name: mine}}
            state = {"shared": {}, "tasks": {task.name: {}}}
            outputs, _ = net.apply(params, state, part.inputs, True)
            return task_losses((task,), outputs, part)[0]

        return jax.jit(jax.value_and_grad(loss, (0, 1)))(shared, own[task.name])

    values, rows = together(shared)
    new, metrics = jax.jit(make_step(whole, TASKS, method, rate))(state, given)
    total = jax.tree.map(jnp.zeros_like, shared)
    for k, task in enumerate(TASKS):
        value, (gradient, mine) = alone(task)
        np.testing.assert_allclose([values[k], metrics.losses[k]], value, rtol=1e-6)
        for row, expected in zip(jax.tree.leaves(rows), jax.tree.leaves(gradient), strict=True):
            assert np.abs(expected).max() > 1e-3
            np.testing.assert_allclose(row[k], expected, rtol=1e-6, atol=1e-6)
        moved = jax.tree.map(lambda a, b: a - b, own[task.name], new.params["tasks"][task.name])
        for a, b in zip(jax.tree.leaves(moved), jax.tree.leaves(mine), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)
        total = jax.tree.map(jnp.add, total, gradient)
    moved = jax.tree.map(lambda a, b: a - b, shared, new.params["shared"])
    for a, b in zip(jax.tree.leaves(moved), jax.tree.leaves(total), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
