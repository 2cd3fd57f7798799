"""Dense tasks on several devices, which hold uneven numbers of valid pixels and objects."""

import types

import flax.linen
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jmtl
from jmtl import nn, tasks
from jmtl.data.indices import batch_indices
from jmtl.data.loading import evaluation_batches
from jmtl.train.evaluate import evaluate
from jmtl.train.parallel import shell, start_of
from jmtl.train.state import init_state
from jmtl.train.step import make_step
from tests.train.toy import distance

N, SIDE, BATCH, STEPS, SEED = 24, 4, 8, 4, 1
TASKS = (
    tasks.segmentation("pixels", 3, size=(2 * SIDE, 2 * SIDE)),
    tasks.detection("boxes", 1),
)
OPTIMIZER = optax.sgd(0.05)


class Map(flax.linen.Module):
    @flax.linen.compact
    def __call__(self, images, train):
        return flax.linen.relu(flax.linen.Conv(4, (3, 3))(images[..., None]))


def arrays():
    rng = np.random.default_rng(0)
    valid = lambda side: rng.random((N, side, side)) < rng.choice([0.05, 1.0], (N, 1, 1))
    corner = rng.uniform(0, 0.5, (N, 3, 2))
    kinds = np.where(rng.random((N, 3)) < rng.choice([0.0, 1.0], (N, 1)), 0.0, -1.0)
    return {
        "image": rng.normal(size=(N, SIDE, SIDE)).astype(np.float32),
        "pixels": np.where(
            valid(2 * SIDE), rng.integers(0, 3, (N, 2 * SIDE, 2 * SIDE)), 255
        ).astype(np.uint8),
        "depth": np.where(valid(SIDE), rng.uniform(1, 3, (N, SIDE, SIDE)), 0).astype(np.float32),
        "boxes": np.concatenate([corner, corner + 0.4, kinds[..., None]], -1).astype(np.float32),
        "has": rng.random(N) < 0.8,
    }


ARRAYS = arrays()


def to_batch(raw):
    labels = {task.label: raw[task.label] for task in TASKS}
    return tasks.batch(raw["image"], labels, {"pixels": raw["has"]})


def trained(kind, devices):
    place = shell(kind, devices)
    build = lambda axis_name: nn.model(Map(), nn.make_heads(TASKS), axis_name)
    method = jmtl.pcgrad(len(TASKS), key=jax.random.key(0))
    state = jax.jit(
        lambda key: init_state(key, build(None), method, OPTIMIZER, jnp.zeros((1, SIDE, SIDE)))
    )(jax.random.key(0))
    step = make_step(build(place.axis_name), TASKS, method, OPTIMIZER, axis_name=place.axis_name)
    placed = place.place(state)
    feed = start_of(place.resident(ARRAYS), SEED, 0, BATCH, N, STEPS)
    run = place.compile(step, to_batch, placed, feed, STEPS, BATCH)
    state, metrics = run(placed, feed)
    return jax.device_get((place.unplace(state), metrics))


@pytest.fixture(scope="module")
def single():
    return trained("jit", 1)


def leaves(state):
    paths = jax.tree_util.tree_leaves_with_path(state.params)
    return {jax.tree_util.keystr(path): leaf for path, leaf in paths}


@pytest.mark.parametrize("kind", ["pmap", pytest.param("jit", marks=pytest.mark.slow)])
def test_devices_train_as_one(kind, single):
    weights = [np.asarray(task.weight(ARRAYS[task.label])) for task in TASKS]
    weights[0] = weights[0] * ARRAYS["has"]
    for t in range(STEPS):
        rows = batch_indices(SEED, t, BATCH, N).reshape(4, -1)
        assert all(len(set(weight[rows].sum(axis=1))) > 1 for weight in weights)
    state, metrics = trained(kind, 4)
    assert distance(leaves(state), leaves(single[0])) < 1e-5
    np.testing.assert_allclose(metrics.losses, single[1].losses, rtol=1e-5)


def test_an_evaluation_is_over_pixels_whatever_the_batches():
    task = tasks.depth("depth")
    echo = types.SimpleNamespace(apply=lambda params, state, inputs: ({"depth": inputs}, state))
    to_batch = lambda raw: tasks.batch(raw["image"], {"depth": raw["depth"]})
    found = evaluate(echo, (task,), to_batch, {}, {}, evaluation_batches(ARRAYS, 9))["depth"]
    error = np.abs(ARRAYS["image"] - ARRAYS["depth"])[ARRAYS["depth"] > 0]
    assert found["loss"] == pytest.approx(float(error.mean()), rel=1e-5)
    assert found["loss"] == pytest.approx(found["abs_error"], rel=1e-6)
