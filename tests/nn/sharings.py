"""Models of every way of sharing, and steps of them on any number of devices."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jmtl
from jmtl import nn, tasks
from jmtl.train.parallel import shell
from jmtl.train.state import fresh_state
from jmtl.train.step import make_step
from tests.nn.tiny import B, tiny

TASKS = (tasks.classification("kind", 3), tasks.regression("size"))
LABELS = {"kind": np.arange(B) % 3, "size": np.arange(B) / np.float32(B)}
PRESENT = {"kind": np.arange(B) != 0, "size": np.arange(B) % 3 == 0}
DEVICES = 4
SGD, PCGRAD = optax.sgd(0.1), jmtl.pcgrad(2, order="fixed")

OPTIONS: dict[str, dict[str, Any]] = {
    "dselect_k": {"experts": 3, "entropy": 0.1},  # no power of 2: both penalties
    "mmoe": {"experts": 2},
}


def drawn(model: Any, inputs: Any, spread: float) -> tuple[Any, Any]:
    """Normal parameters of the right shapes and a fresh model state, with nothing to compile."""
    rng = np.random.default_rng(0)
    params, state = jax.eval_shape(model.init, jax.random.key(0), inputs)

    def fresh(path: Any, leaf: Any) -> Any:
        is_variance = jax.tree_util.keystr(path).endswith("['var']")
        return jnp.full(leaf.shape, int(is_variance), leaf.dtype)

    fill = lambda leaf: jnp.asarray(spread * rng.normal(size=leaf.shape), leaf.dtype)
    return jax.tree.map(fill, params), jax.tree_util.tree_map_with_path(fresh, state)


def network(sharing: str, encoder: str, axis_name: str | None) -> Any:
    """The model; with dropout in the heads where there is little else to compile, or much."""
    dropout = 0.0 if encoder == "mlp" and sharing != "none" else 0.25
    heads = nn.make_heads(TASKS, hidden=(4,), dropout=dropout)
    options = OPTIONS.get(sharing, {})
    return nn.make_sharing(sharing, tiny(encoder)[0], heads, axis_name, **options)


@functools.cache
def start(sharing: str, encoder: str) -> Any:
    """A state before the first step."""
    parts = drawn(network(sharing, encoder, None), tiny(encoder)[1], spread=0.3)
    return fresh_state(jax.random.key(0), *parts, PCGRAD, SGD)


def two_steps(sharing: str, encoder: str, form: str, devices: int) -> dict[str, np.ndarray]:
    """What two steps of PCGrad move and measure, by path; `form` is "jit" or "pmap"."""
    on = shell(form, devices)
    model = network(sharing, encoder, on.axis_name)
    step = make_step(model, TASKS, PCGRAD, SGD, axis_name=on.axis_name)
    raw = {"inputs": tiny(encoder)[1], "labels": LABELS, "present": PRESENT}
    # Two batches: the rows in two orders.
    feed = on.streamed(jax.tree.map(lambda x: np.stack([x, np.roll(x, 3, axis=0)]), raw))
    to_batch = lambda raw: tasks.batch(raw["inputs"], raw["labels"], raw["present"])
    placed = on.place(start(sharing, encoder))
    state, metrics = on.compile(step, to_batch, placed, feed, 2, B)(placed, feed)
    if form == "pmap":
        same_everywhere(state)
    state = on.unplace(state)
    tree = {"params": state.params, "model_state": state.model_state, "metrics": metrics}
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def same_everywhere(stacked: Any) -> None:
    """Every device ends with the same bits."""
    for leaf in jax.tree.leaves((stacked.params, stacked.model_state)):
        value = np.asarray(leaf)
        np.testing.assert_array_equal(value, np.broadcast_to(value[:1], value.shape))
