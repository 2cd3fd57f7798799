"""Step time and memory of the strategies for task gradients, side by side in one run.

python -m experiments speed

Data are made on the device; the repeats of all programs are interleaved, and medians are shown.
"""

import statistics
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

import jmtl
from jmtl.gradients import Strategy
from jmtl.nn import make_encoder, make_heads, model
from jmtl.tasks import batch, classification
from jmtl.train.state import init_state
from jmtl.train.step import make_step

MODELS: dict[str, tuple[str, dict[str, Any], tuple[int, ...], int]] = {
    "mlp": ("mlp", {"hidden": (128, 64)}, (100,), 128),
    "deep": ("mlp", {"hidden": (512,) * 12}, (512,), 64),
    "lenet": ("lenet", {}, (28, 28), 256),
    "resnet18": (
        "resnet",
        {"widths": (64, 128, 256, 512), "blocks": (2, 2, 2, 2)},
        (32, 32, 3),
        16,
    ),
}
"""By name: the encoder, its options, the shape of an example, the batch size."""

CLASSES = 10


class Timing(NamedTuple):
    """One program's cost.

    Attributes:
        model: a name in `MODELS`.
        tasks: K.
        method: its name.
        strategy: how its task gradients are computed.
        milliseconds: the median step.
        ratio: to the median step with equal weights.
        megabytes: temporary memory of the compiled step.
    """

    model: str
    tasks: int
    method: str
    strategy: str
    milliseconds: float
    ratio: float
    megabytes: float


def program(name: str, k: int, method: jmtl.Method, strategy: Strategy) -> tuple[Any, Any, Any]:
    """The compiled step of a model with K tasks, its state and its batch."""
    encoder, options, shape, rows = MODELS[name]
    tasks = tuple(classification(f"task{i}", CLASSES) for i in range(k))
    net = model(make_encoder(encoder, **options), make_heads(tasks))
    image, label = jax.random.split(jax.random.key(0))
    labels = jax.random.randint(label, (k, rows), 0, CLASSES)
    data = batch(
        jax.random.normal(image, (rows, *shape)),
        {task.name: labels[i] for i, task in enumerate(tasks)},
    )
    optimizer = optax.adam(1e-3)
    state = init_state(jax.random.key(1), net, method, optimizer, data.inputs)
    step = jax.jit(make_step(net, tasks, method, optimizer, strategy=strategy))
    return step.lower(state, data).compile(), state, data


def measure(
    models: Sequence[str], tasks: Sequence[int], repeats: int, seconds: float = 0.05
) -> list[Timing]:
    """Time PCGrad by each strategy, and equal weights, for each model and K.

    Args:
        models: names in `MODELS`.
        tasks: values of K.
        repeats: interleaved repeats.
        seconds: the least that a repeat of one program lasts.

    Returns:
        A row for each program.
    """
    rows = []
    for name in models:
        for k in tasks:
            made = {("equal", "auto"): program(name, k, jmtl.equal(k), "auto")}
            pcgrad = jmtl.pcgrad(k, key=jax.random.key(2))
            strategies: tuple[Strategy, ...] = ("unroll", "vmap", "recompute")
            for strategy in strategies:
                made["pcgrad", strategy] = program(name, k, pcgrad, strategy)
            times = _interleaved(list(made.values()), repeats, seconds)
            for (method, way), (step, _, _), took in zip(made, made.values(), times, strict=True):
                memory = step.memory_analysis()
                rows.append(
                    Timing(
                        name,
                        k,
                        method,
                        way,
                        took * 1e3,
                        took / times[0],
                        memory.temp_size_in_bytes / 1e6 if memory else float("nan"),
                    )
                )
    return rows


def _interleaved(programs: Sequence[Any], repeats: int, seconds: float) -> list[float]:
    """The median seconds a call of each program, measured in turn."""
    calls = []
    for step, state, data in programs:
        jax.block_until_ready(step(state, data))
        began = time.perf_counter()
        jax.block_until_ready(step(state, data))
        calls.append(max(1, int(np.ceil(seconds / (time.perf_counter() - began)))))
    took: list[list[float]] = [[] for _ in programs]
    for _ in range(repeats):
        for i, (step, state, data) in enumerate(programs):
            began = time.perf_counter()
            for _ in range(calls[i]):
                out = step(state, data)
            jax.block_until_ready(out)
            took[i].append((time.perf_counter() - began) / calls[i])
    return [statistics.median(times) for times in took]
