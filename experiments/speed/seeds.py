"""How many trainings a device does at once: seeds as a vmap axis, against one after another.

A training here is what a study's is: its parameters, method and examples are functions of its seed,
the examples lie on the device, and one call does many steps. Steps are those of W trainings side by
side (`vmap`, cut over the devices; of a CPU, a device a core), or of one training alone, W times in
turn.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from experiments.across import over_trainings, place
from experiments.speed.clock import Run, Spread, interleaved
from experiments.speed.models import Built, Dtype, Sizes, build, draw, to_batch
from experiments.speed.steps import make_method
from jmtl.data.indices import indices
from jmtl.train.state import TrainState, init_state
from jmtl.train.step import make_step

STEPS = 20
"""That one call does."""

EXAMPLES = 2_048
"""That lie on the device."""


class Throughput(NamedTuple):
    """Trainings side by side against one after another.

    Attributes:
        model: a name in `experiments.speed.models.MODELS`.
        tasks: K.
        dtype: what the model computes in.
        method: its name.
        seeds: W.
        devices: that share them.
        vmap: trainings × steps a second, side by side.
        alone: the same, one compiled training after another.
        ratio: the time side by side over the time one after another: alone / vmap.
        torch: the same of the PyTorch loop, one after another; NaN where it was not measured.
    """

    model: str
    tasks: int
    dtype: str
    method: str
    seeds: int
    devices: int
    vmap: float
    alone: float
    ratio: float
    torch: float


def measure(
    model: str,
    sizes: Sizes,
    k: int,
    method: str,
    seeds: Sequence[int],
    dtype: Dtype,
    repeats: int,
    seconds: float,
    peer: Run | None,
    say: Callable[[str], None],
    late: Callable[[], bool] = lambda: False,
) -> list[Throughput]:
    """Measure the throughput of several numbers of seeds, interleaved.

    Args:
        model: the name to show.
        sizes: of the model.
        k: K.
        method: a name.
        seeds: values of W.
        dtype: what the model computes in.
        repeats: rounds.
        seconds: the least that one timing lasts.
        peer: the PyTorch loop's steps, timed in the same rounds; None for none.
        say: told which numbers of seeds do not fit in memory.
        late: whether the time is over: then nothing more is compiled.
    """
    built = build(sizes, k, dtype)
    runs = {0: training(built, method, None)}
    for w in seeds:
        if late():
            say(f"{model}, {w} seeds: left out, the time being over")
            continue
        try:
            run = training(built, method, w)
            run(1)
        except jax.errors.JaxRuntimeError as error:
            say(f"{model}, {w} seeds: {str(error).splitlines()[0][:120]}")
        else:
            runs[w] = run
    times = interleaved([*runs.values(), *([peer] if peer else [])], repeats, seconds)
    theirs = 1 / times[-1].median if peer else float("nan")
    together = dict(zip(runs, times, strict=False))
    alone = together.pop(0)
    return [
        throughput(model, k, dtype, method, w, time, alone, theirs) for w, time in together.items()
    ]


def throughput(
    model: str,
    k: int,
    dtype: str,
    method: str,
    seeds: int,
    together: Spread,
    alone: Spread,
    torch: float,
) -> Throughput:
    """From the seconds that `STEPS` steps take of W trainings together, and of one alone."""
    return Throughput(
        model,
        k,
        dtype,
        method,
        seeds,
        shares(seeds),
        seeds * STEPS / together.median,
        STEPS / alone.median,
        together.median / (seeds * alone.median),
        torch,
    )


def shares(seeds: int) -> int:
    """Devices that share W trainings: as many as cut them into equal shares."""
    return next(n for n in range(jax.device_count(), 0, -1) if not seeds % n)


def training(built: Built, method: str, seeds: int | None) -> Run:
    """Compile the steps of trainings of seeds 0 … W - 1 side by side, or of one without `vmap`."""
    sizes, k = built.sizes, len(built.tasks)
    arrays = draw(sizes, k, EXAMPLES)
    example = to_batch(sizes, built.tasks, jax.tree.map(lambda x: x[:1], arrays)).inputs

    def made(seed: Any) -> Any:
        return make_method(method, k, jax.random.fold_in(jax.random.key(seed), 1))

    def init(seed: Any) -> TrainState:
        return init_state(jax.random.key(seed), built.net, made(seed), built.optimizer, example)

    def advance(state: TrainState, seed: Any, arrays: Any, first: Any) -> TrainState:
        step = make_step(built.net, built.tasks, made(seed), built.optimizer)

        def body(state: TrainState, i: Any) -> tuple[TrainState, None]:
            offset = i.astype(jnp.uint32) * np.uint32(sizes.rows)
            chosen = indices(seed, 0, offset, sizes.rows, EXAMPLES, jnp)
            batch = to_batch(sizes, built.tasks, jax.tree.map(lambda x: x[chosen], arrays))
            # The count that all trainings share, as in a study.
            return step(state._replace(step=first + i), batch)[0], None

        return lax.scan(body, state, jnp.arange(STEPS, dtype=jnp.int32))[0]

    if seeds is None:
        given: Any = np.uint32(0)
        begin, go = jax.jit(init), jax.jit(advance, donate_argnums=0)
    else:
        devices = shares(seeds)
        given = place(np.arange(seeds, dtype=np.uint32), devices, shared=False)
        arrays = place(arrays, devices, shared=True)
        begin = over_trainings(init, devices)
        go = over_trainings(advance, devices, shared=(2, 3), donate=(0,))
    state = begin(given)
    first = np.int32(0)
    compiled = go.lower(state, given, arrays, first).compile()

    def run(n: int) -> None:
        nonlocal state
        for _ in range(n):
            state = compiled(state, given, arrays, first)
        jax.block_until_ready(state)

    return run
