"""Heads: their outputs' shapes for every kind of task, and what each begins at."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmtl import nn, tasks
from tests.kinds import OUTPUTS, SIDE, TASKS, T

PARTS = {"vector": (6,), "map": (SIDE, SIDE, 6), "sequence": (T, 6)}


@pytest.mark.parametrize("options", [{}, {"hidden": (4,), "dropout": 0.5, "activation": "gelu"}])
def test_every_task_has_a_head_of_its_outputs_shape(options):
    heads = nn.make_heads(TASKS, **options)
    given = {name: jax.ShapeDtypeStruct((2, *tail), jnp.bfloat16) for name, tail in PARTS.items()}
    assert {heads[task.name].reads for task in TASKS} == PARTS.keys()

    def run(given):
        found = {}
        for name, head in heads.items():
            variables = head.init(jax.random.key(0), given[head.reads], False)
            rngs = {"dropout": jax.random.key(1)}
            found[name] = head.apply(variables, given[head.reads], True, rngs=rngs)
        return found

    found = jax.eval_shape(run, given)
    assert {name: output.shape for name, output in found.items()} == {
        name: (2, *tail) for name, tail in OUTPUTS.items()
    }
    assert {output.dtype for output in found.values()} == {jnp.dtype(jnp.float32)}


def test_a_map_is_resized_to_its_label():
    head = nn.make_head(tasks.segmentation("t", 3, size=(8, 12)).head)
    x = jnp.broadcast_to(jnp.arange(4.0)[None, :, None, None], (1, 4, 6, 2))
    output, variables = head.init_with_output(jax.random.key(0), x, False)
    assert output.shape == (1, 8, 12, 3)
    # Linear in height, with half a cell on either side that is held constant.
    kernel = np.asarray(variables["params"]["Conv_0"]["kernel"])[0, 0].sum(0)
    rows = np.clip((np.arange(8) + 0.5) / 2 - 0.5, 0, 3)
    expected = np.broadcast_to((rows[:, None] * kernel)[:, None], (8, 12, 3))
    np.testing.assert_allclose(output[0], expected, rtol=1e-5, atol=1e-6)


def test_a_centre_begins_at_a_tenth():
    head = nn.make_head(tasks.detection("t", 2).head)
    output, _ = head.init_with_output(jax.random.key(0), jnp.zeros((1, 2, 2, 5)), False)
    np.testing.assert_allclose(jax.nn.sigmoid(output[..., :2]), 0.1, rtol=1e-6)
    np.testing.assert_array_equal(output[..., 2:], 0)


def test_presence_is_the_soft_maximum_over_the_places():
    head = nn.make_head(tasks.Head("presence", 2))
    assert head.reads == "map"
    x = np.zeros((2, 3, 4, 1), np.float32)
    x[1, 2, 3] = 50.0
    params = {"kernel": jnp.array([[[[1.0, -1.0]]]]), "bias": jnp.array([0.5, -1.0])}
    output = head.apply({"params": {"MapHead_0": {"Conv_0": params}}}, x, False)
    np.testing.assert_allclose(output[0], [0.5, -1], rtol=1e-6)
    large, small = 50.5 - np.log(12), -1 + np.log(11 / 12)
    np.testing.assert_allclose(output[1], [large, small], rtol=1e-6)


def test_a_map_from_a_vector_is_refused():
    head = nn.make_head(tasks.depth("t").head)
    with pytest.raises(ValueError, match=r"representation \[B, H, W, C\], got \(2, 5\): use an"):
        head.init(jax.random.key(0), jnp.zeros((2, 5)), False)


def explicit(x, kernel, rate):
    """A convolution of `[H, W, C]` by sums over the pixels that a dilated kernel reads."""
    reach = rate * (len(kernel) // 2)
    padded = np.pad(x, ((reach, reach), (reach, reach), (0, 0)))
    total = np.zeros((*x.shape[:2], kernel.shape[-1]))
    for i, j in np.ndindex(kernel.shape[:2]):
        rows, columns = slice(i * rate, i * rate + len(x)), slice(j * rate, j * rate + x.shape[1])
        total += padded[rows, columns] @ kernel[i, j]
    return np.maximum(total / np.sqrt(1 + 1e-5), 0)  # batch norm as it begins, and ReLU


def test_an_atrous_pyramid_is_the_formula():
    task = tasks.segmentation("t", 3)
    (head,) = nn.make_heads([task], atrous=[2, 3], width=4, dropout=0.5).values()
    x = jax.random.normal(jax.random.key(0), (1, 6, 7, 2))
    output, variables = jax.jit(lambda key: head.init_with_output(key, x, False))(jax.random.key(1))
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), variables["params"])
    kernel = lambda name: p[f"{name}_conv"]["kernel"]
    x = np.asarray(x[0], np.float64)
    mean = explicit(x.mean((0, 1), keepdims=True), kernel("mean"), 1)
    branches = [
        explicit(x, kernel("near"), 1),
        explicit(x, kernel("dilated_2"), 2),
        explicit(x, kernel("dilated_3"), 3),
        np.broadcast_to(mean, (6, 7, 4)),
    ]
    joined = explicit(np.concatenate(branches, -1), kernel("join"), 1)
    mixed = explicit(joined, kernel("mix"), 1)
    expected = mixed @ p["answer"]["kernel"][0, 0] + p["answer"]["bias"]
    np.testing.assert_allclose(output[0], expected, rtol=1e-4, atol=1e-5)


def test_an_atrous_pyramid_in_training_and_resized():
    head = nn.make_head(tasks.depth("t", (8, 10)).head, atrous=(1,), width=4, dtype="bfloat16")
    given = jax.ShapeDtypeStruct((2, 4, 5, 3), jnp.bfloat16)
    variables = jax.eval_shape(lambda key, x: head.init(key, x, False), jax.random.key(0), given)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype(jnp.float32)}
    rngs = {"dropout": jax.random.key(1)}
    train = lambda v, x: head.apply(v, x, True, rngs=rngs, mutable=["batch_stats"])
    output, moved = jax.eval_shape(train, variables, given)
    assert (output.shape, output.dtype) == ((2, 8, 10, 1), jnp.float32)
    assert jax.tree.structure(moved) == jax.tree.structure(
        {"batch_stats": variables["batch_stats"]}
    )
    with pytest.raises(ValueError, match=r"representation \[B, H, W, C\], got \(2, 5\): use an"):
        head.init(jax.random.key(0), jnp.zeros((2, 5)), False)
