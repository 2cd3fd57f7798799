"""A small problem with one task of each kind, and many steps of it on any number of devices."""

import ast
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import jmtl
from jmtl.data.loading import stream
from jmtl.method import Method
from jmtl.nn import make_encoder, make_heads, model
from jmtl.tasks import Batch, batch, classification, regression
from jmtl.train import leaves as lv
from jmtl.train.parallel import start_of
from jmtl.train.state import TrainState, init_state
from jmtl.train.step import StepMetrics, make_step

TASKS = (classification("kind", 10), regression("size"))
N, SEED, BATCH = 200, 7, 32
OPTIMIZER = optax.sgd(0.05)

PLAIN = ("mlp", {"hidden": (8,)})
MLP = ("mlp", {"hidden": (16, 8), "dropout": 0.2})
WIDE = ("mlp", {"hidden": (64, 128)})  # two kernels are large enough to be split
RESNET = ("resnet", {"widths": (4,), "blocks": (1,)})
DEEP = ("resnet", {"widths": (4, 8), "blocks": (1, 1), "dropout": 0.2})


def arrays_of(n: int = N) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        "image": rng.integers(0, 16, (n, 8, 8)).astype(np.uint8),
        "kind": rng.integers(0, 10, n).astype(np.int32),
        "size": rng.normal(size=n).astype(np.float32),
        "has_kind": rng.random(n) < 0.4,
    }


ARRAYS = arrays_of()


def to_batch(raw: Any) -> Batch:
    images = raw["image"].astype(jnp.float32) / 16
    labels = {"kind": raw["kind"], "size": raw["size"]}
    return batch(images, labels, {"kind": raw["has_kind"]})


def net(encoder: tuple[str, dict[str, Any]], axis_name: str | None = None) -> Any:
    return model(make_encoder(encoder[0], **encoder[1]), make_heads(TASKS), axis_name)


@functools.cache
def _initial(encoder: str, seed: int) -> TrainState:
    name, options = ast.literal_eval(encoder)
    example = to_batch({name: values[:1] for name, values in ARRAYS.items()})
    parts = net((name, options)), jmtl.equal(len(TASKS)), OPTIMIZER, example.inputs
    return jax.jit(lambda key: init_state(key, *parts))(jax.random.key(seed))


def start(
    encoder: tuple[str, dict[str, Any]],
    method: Method,
    seed: int = 0,
    optimizer: optax.GradientTransformation = OPTIMIZER,
) -> TrainState:
    """The state before the first step; each encoder's parameters are drawn once."""
    state = _initial(repr(encoder), seed)
    return state._replace(
        opt_state=optimizer.init(state.params), method_state=method.init(state.params["shared"])
    )


class Trained(NamedTuple):
    state: TrainState
    metrics: StepMetrics


def train(
    shell: Any,
    encoder: tuple[str, dict[str, Any]] = MLP,
    method: Method | None = None,
    streamed: bool = False,
    steps: int = 20,
    seed: int = 0,
    axis_in_model: bool = True,
    **options: Any,
) -> Trained:
    """`steps` steps of PCGrad, or of another method, from one state over one stretch of data."""
    method = jmtl.pcgrad(len(TASKS)) if method is None else method
    rows = BATCH * method.batches
    placed = shell.place(start(encoder, method, seed))
    its_net = shell.held(net(encoder, shell.axis_name if axis_in_model else None))
    step = make_step(its_net, TASKS, method, OPTIMIZER, axis_name=shell.axis_name, **options)
    if streamed:
        host, hosts = jax.process_index(), jax.process_count()
        batches = list(stream(ARRAYS, SEED, rows, 0, steps, host, hosts))
        feed = shell.streamed({name: np.stack([b[name] for b in batches]) for name in ARRAYS})
    else:
        feed = start_of(shell.resident(ARRAYS), SEED, 0, rows, N, steps)
    state, metrics = shell.compile(step, to_batch, placed, feed, steps, rows)(placed, feed)
    return Trained(shell.unplace(state), metrics)


def numbers(trained: Trained) -> dict[str, np.ndarray]:
    """What training moved: parameters, batch statistics and the method's state, by path."""
    state = trained.state
    leaves = jax.tree_util.tree_leaves_with_path(
        (state.params, state.model_state, state.method_state)
    )
    return lv.on_host(
        {
            jax.tree_util.keystr(path): leaf
            for path, leaf in leaves
            if jnp.issubdtype(leaf.dtype, jnp.floating)
        }
    )


def distance(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> float:
    """The largest difference in a leaf relative to that leaf's largest magnitude."""
    assert one.keys() == other.keys()
    return max(
        float(np.abs(one[name] - other[name]).max() / np.abs(other[name]).max()) for name in one
    )
