"""Statistics of every kind of task: additive over uneven batches and devices, deaf to garbage."""

import jax
import jax.numpy as jnp
import numpy as np

from tests.kinds import TASKS, example

N, DEVICES = 8, 4
OUTPUTS, BATCH = example(0, N)


def statistics(outputs, b):
    return {
        t.name: t.metric.update(outputs[t.name], b.labels[t.label], b.present[t.label])
        for t in TASKS
    }


@jax.jit
def values(sums):
    return {task.name: task.metric.compute(sums[task.name]) for task in TASKS}


def same(one, other):
    for a, b in zip(*map(jax.tree.leaves, (one, other)), strict=True):
        exact = jnp.issubdtype(jnp.asarray(a).dtype, jnp.integer)
        np.testing.assert_allclose(a, b, rtol=0 if exact else 1e-6)


def test_statistics_add_over_devices_and_uneven_batches():
    whole = jax.jit(statistics)(OUTPUTS, BATCH)
    split = jax.tree.map(lambda x: x.reshape(DEVICES, -1, *x.shape[1:]), (OUTPUTS, BATCH))
    add = jax.pmap(lambda part: jax.lax.psum(statistics(*part), "d"), axis_name="d")
    same(whole, jax.tree.map(lambda x: x[0], add(split)))
    # A batch of 6, and one of 2 that is filled up with rows of weight 0.
    first = BATCH._replace(present={k: v & (np.arange(N) < 6) for k, v in BATCH.present.items()})
    rest = jax.tree.map(lambda x: np.roll(x, -6, axis=0), (OUTPUTS, BATCH))
    rest[1].present.update({k: v & (np.arange(N) < 2) for k, v in rest[1].present.items()})
    parts = [jax.jit(statistics)(*part) for part in ((OUTPUTS, first), rest)]
    same(whole, jax.tree.map(jnp.add, *parts))


def test_values_are_finite_and_those_that_are_named():
    found = values(jax.jit(statistics)(OUTPUTS, BATCH))
    for task in TASKS:
        assert found[task.name].keys() == task.metric.higher_is_better.keys()
        assert all(np.isfinite(value) and value >= 0 for value in found[task.name].values())


def test_what_is_absent_changes_nothing():
    garbage = {}
    for name, y in BATCH.labels.items():
        present = BATCH.present[name].reshape(-1, *[1] * (y.ndim - 1))
        garbage[name] = np.where(present, y, np.nan if y.dtype == np.float32 else y.dtype.type(1))
    same(
        jax.jit(statistics)(OUTPUTS, BATCH),
        jax.jit(statistics)(OUTPUTS, BATCH._replace(labels=garbage)),
    )
