"""Compiled training steps: what they cost in memory and compile time, and how they are run."""

import time
from typing import Any, NamedTuple

import jax
from jax import lax

import jmtl
from experiments.speed.clock import Run
from experiments.speed.models import Built, draw, to_batch
from jmtl.gradients import STRATEGIES, Strategy
from jmtl.tasks import Batch
from jmtl.train.state import TrainState, init_state
from jmtl.train.step import make_step


class Program(NamedTuple):
    """Compiled steps.

    Attributes:
        run: does n dispatches, each from the state that the one before left.
        compile_seconds: tracing and compiling.
        megabytes: temporaries and outputs of the compiled program.
        steps: of a dispatch.
    """

    run: Run
    compile_seconds: float
    megabytes: float
    steps: int = 1


def make_method(name: str, k: int, key: Any = None) -> jmtl.Method:
    """A method by its name, with a key if it draws.

    Raises:
        ValueError: an unknown name, or a method with a required option.
    """
    keyed = "key" in jmtl.methods.options(name)
    key = jax.random.key(2) if key is None else key
    return jmtl.make(name, k, **({"key": key} if keyed else {}))


def strategies_of(method: jmtl.Method, asked: tuple[Strategy, ...]) -> tuple[Strategy, ...]:
    """Those of the asked strategies that change how the method's gradients are computed."""
    if method.needs == "losses":
        return ("auto",)
    stores = method.needs == "gradients" or method.batches > 1
    return tuple(s for s in asked if not (s == "recompute" and stores))


def all_strategies() -> tuple[Strategy, ...]:
    """Every strategy but "auto", which is one of the others."""
    return tuple(s for s in STRATEGIES if s != "auto")


def dispatch_of(built: Built, method: jmtl.Method, strategy: Strategy) -> Any:
    """`(state, a batch for each step) -> state`, jitted."""
    step = make_step(built.net, built.tasks, method, built.optimizer, strategy=strategy)

    def dispatch(state: TrainState, data: Batch) -> TrainState:
        return lax.scan(lambda state, batch: (step(state, batch)[0], None), state, data)[0]

    return jax.jit(dispatch, donate_argnums=0)


def compile_steps(built: Built, method: jmtl.Method, strategy: Strategy, steps: int) -> Program:
    """Compile training steps and make what they start from.

    Args:
        built: the model.
        method: for the model's tasks.
        strategy: how task gradients are computed.
        steps: of a dispatch, as `train` has many in one.
    """
    sizes = built.sizes
    raw = draw(sizes, len(built.tasks), steps * sizes.rows)
    # A batch a step: of one batch alone XLA would take what does not change out of the loop.
    data = jax.tree.map(
        lambda x: x.reshape(steps, sizes.rows, *x.shape[1:]), to_batch(sizes, built.tasks, raw)
    )
    first = jax.tree.map(lambda x: x[0], data)
    state = jax.jit(lambda key: init_state(key, built.net, method, built.optimizer, first.inputs))(
        jax.random.key(1)
    )
    began = time.perf_counter()
    compiled = dispatch_of(built, method, strategy).lower(state, data).compile()
    seconds = time.perf_counter() - began

    def run(n: int) -> None:
        nonlocal state
        for _ in range(n):
            state = compiled(state, data)
        jax.block_until_ready(state)

    return Program(run, seconds, megabytes(compiled), steps)


def megabytes(compiled: Any) -> float:
    """Temporaries and outputs of a compiled program; NaN where the backend does not say."""
    memory = compiled.memory_analysis()
    if memory is None:
        return float("nan")
    return (memory.temp_size_in_bytes + memory.output_size_in_bytes) / 1e6
