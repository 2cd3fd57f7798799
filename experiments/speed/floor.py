"""What a training step cannot be faster than, on the machine that it runs on.

A step is a sum of parts, and each part takes at least the larger of its operations over the
machine's peak rate and its bytes over its bandwidth:

| part        | operations                     | bytes                                           |
|-------------|--------------------------------|-------------------------------------------------|
| forward     | F, counted; 2 F with `observe` | counted, likewise                               |
| backward    | loss methods: one backward pass of the sum of the losses, counted; others: K      |
|             | backward passes, each through one head and the encoder, counted; all that is left |
|             | of a program of losses and gradients when its forward pass is taken off           |
| Gramian     | K(K+1) P, methods that see one | 4 K P: the K gradients are read once            |
| combination | 2 K P, all but loss methods    | 4 (K + 1) P: they are read again, one is written |
| update      | 12 a parameter                 | 28 a parameter: Adam reads four and writes three |

P are the shared parameters, float32. F and the backward passes are counted by XLA on programs of
one and of two tasks, and are linear in K beyond. Operations are those of the program as JAX wrote
it, before XLA rewrites it (a GPU's compiled program hides its matrix products in library calls);
bytes are those of the compiled program, every fusion reading and writing its arrays once. Another
compiler could fuse more, and a GPU's library calls go uncounted, so the bytes are an estimate;
nothing here counts the time to launch a program.

The peak rates are measured in the same run: a large matrix product in the model's dtype, the same
in float32 at the highest precision (for the Gramian and the combination, which are computed so),
and arrays of several sizes multiplied in place. Small arrays stay in caches and are faster: a part
has the best rate of any array at least as large as what it touches.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import jmtl
from experiments.speed.clock import interleaved
from experiments.speed.models import Dtype, Sizes, build, draw, to_batch
from jmtl.tasks import task_losses

ADAM_OPERATIONS = 12
ADAM_BYTES = 28
"""Of a float32 parameter: itself, its gradient and two moments read, all but the gradient
written."""


class Cost(NamedTuple):
    """What a part must do.

    Attributes:
        operations: floating point.
        bytes: moved.
        footprint: bytes that it touches, each counted once.
        highest: whether it works in float32 at the highest precision.
    """

    operations: float
    bytes: float
    footprint: float
    highest: bool = False


class Passes(NamedTuple):
    """A model's passes, as counted on programs of one and of two tasks.

    Attributes:
        forward: the losses: of one task, of two.
        both: the losses and the gradient of their sum, likewise.
        shared: P, parameters that the tasks share.
        own: parameters of one task.
    """

    forward: tuple[Cost, Cost]
    both: tuple[Cost, Cost]
    shared: int
    own: int


class Rates(NamedTuple):
    """A machine's peak rates.

    Attributes:
        operations: a second, in the model's dtype.
        highest: a second, in float32 at the highest precision.
        bandwidth: (bytes of an array, bytes a second read and written), for several sizes.
    """

    operations: float
    highest: float
    bandwidth: tuple[tuple[int, float], ...]


def count_passes(sizes: Sizes, dtype: Dtype) -> Passes:
    """Count a model's passes; compiles four programs and runs none.

    Args:
        sizes: of the model.
        dtype: what it computes in.
    """
    forward, both, shared, own = [], [], 0, 0
    for k in (1, 2):
        built = build(sizes, k, dtype)
        data = jax.eval_shape(lambda k=k, b=built: to_batch(sizes, b.tasks, draw(sizes, k)))
        key = jax.eval_shape(lambda: jax.random.key(0))
        params, state = jax.eval_shape(built.net.init, key, data.inputs)

        def losses(params: Any, state: Any, data: Any, key: Any, built: Any = built) -> Any:
            outputs, state = built.net.apply(params, state, data.inputs, True, key)
            values = jnp.stack(task_losses(built.tasks, outputs, data))
            return values.sum(), (values, state)

        def gradient(*args: Any, losses: Any = losses) -> Any:
            return jax.value_and_grad(losses, has_aux=True)(*args)

        forward.append(_counted(losses, params, state, data, key))
        both.append(_counted(gradient, params, state, data, key))
        shared = sum(x.size for x in jax.tree.leaves(params["shared"]))
        own = sum(x.size for x in jax.tree.leaves(params["tasks"])) // k
    return Passes((forward[0], forward[1]), (both[0], both[1]), shared, own)


def _counted(fun: Any, *shapes: Any) -> Cost:
    compiled = jax.jit(fun).lower(*shapes).compile()
    analysis: Any = compiled.cost_analysis() or {}
    memory = compiled.memory_analysis()
    moved = max(float(analysis.get("bytes accessed", 0)), 0.0)
    footprint = moved
    if memory is not None:
        footprint = float(
            memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
        )
    return Cost(_operations(fun, *shapes) or float(analysis["flops"]), moved, footprint)


def _operations(fun: Any, *shapes: Any) -> float | None:
    """Of the program as JAX wrote it; only the CPU's client counts those, on any machine."""
    try:
        cpu = jax.local_devices(backend="cpu")[0]
    except RuntimeError:  # JAX_PLATFORMS leaves it out
        return None
    with jax.default_device(cpu):
        analysis: Any = jax.jit(fun).lower(*shapes).cost_analysis()
    return float(analysis["flops"])


def parts(passes: Passes, k: int, method: jmtl.Method) -> dict[str, Cost]:
    """What a method's step consists of.

    Args:
        passes: of the model.
        k: K.
        method: any method of one batch a step.

    Returns:
        By name, the costs of the table above.
    """
    shared, every = passes.shared, passes.shared + k * passes.own
    forward = _linear(*passes.forward, k)
    single = _less(passes.both[0], passes.forward[0])
    found = {"forward": _times(forward, 2 if method.observe else 1)}
    if method.needs == "losses":
        found["backward"] = _less(_linear(*passes.both, k), forward)
    else:
        found["backward"] = _times(single, k)
        stack = 4 * k * shared
        if method.needs == "gramian":
            found["Gramian"] = Cost(k * (k + 1) * shared, stack, stack, True)
        whole = stack + 4 * shared
        found["combination"] = Cost(2 * k * shared, whole, whole, True)
    # Four arrays, written where they were read.
    found["update"] = Cost(ADAM_OPERATIONS * every, ADAM_BYTES * every, 16 * every, True)
    return found


def _linear(one: Cost, two: Cost, k: int) -> Cost:
    """The cost for K tasks from those for one and two."""
    operations, moved, footprint = (
        a + (k - 1) * max(b - a, 0.0) for a, b in zip(one[:3], two[:3], strict=True)
    )
    return Cost(operations, moved, footprint)


def _less(all_of_it: Cost, part: Cost) -> Cost:
    operations = max(all_of_it.operations - part.operations, 0.0)
    return Cost(operations, max(all_of_it.bytes - part.bytes, 0.0), all_of_it.footprint)


def _times(cost: Cost, n: int) -> Cost:
    return cost._replace(operations=n * cost.operations, bytes=n * cost.bytes)


def bandwidth(rates: Rates, footprint: float) -> float:
    """Bytes a second of the best array that is at least as large, else of the largest."""
    large = [rate for size, rate in rates.bandwidth if size >= footprint]
    return max(large) if large else max(rates.bandwidth)[1]


def seconds(cost: Cost, rates: Rates) -> float:
    """The larger of the times that a part's operations and its bytes take."""
    peak = rates.highest if cost.highest else rates.operations
    return max(cost.operations / peak, cost.bytes / bandwidth(rates, cost.footprint))


def floor(costs: Mapping[str, Cost], rates: Rates) -> dict[str, float]:
    """The seconds of each part; their sum is the floor."""
    return {name: seconds(cost, rates) for name, cost in costs.items()}


def measure_rates(dtype: Dtype, repeats: int = 7) -> Rates:
    """Measure this machine's peaks; seconds.

    Args:
        dtype: of the model.
        repeats: rounds, of which the best counts.
    """
    large = jax.default_backend() != "cpu"
    side = 8192 if large else 1024
    sizes = [2**20, 2**23, 2**26, 2**30] if large else [2**18, 2**21, 2**24, 2**27]
    kind = jnp.bfloat16 if dtype == "bfloat16" else jnp.float32
    # Random data: zeros take less power, and a GPU multiplies them faster.
    matrix = jax.random.normal(jax.random.key(0), (side, side))
    runs = [
        _product(matrix.astype(kind), None),
        _product(matrix, jax.lax.Precision.HIGHEST),
        *(_in_place(size) for size in sizes),
    ]
    best = [spread.best for spread in interleaved(runs, repeats, 0.02)]
    operations, highest = (2 * side**3 / time for time in best[:2])
    moved = tuple((size, 2 * size / time) for size, time in zip(sizes, best[2:], strict=True))
    return Rates(operations, highest, moved)


def _product(matrix: Any, precision: Any) -> Any:
    multiply = jax.jit(lambda x: jnp.matmul(x, x, precision=precision))

    def run(n: int) -> None:
        jax.block_until_ready([multiply(matrix) for _ in range(n)][-1])

    return run


def _in_place(size: int) -> Any:
    """An array of so many bytes, read and written where it lies: no page is new."""
    double = jax.jit(lambda x, by: x * by, donate_argnums=0)
    array, by = jnp.ones(size // 4), jnp.float32(1)

    def run(n: int) -> None:
        nonlocal array
        for _ in range(n):
            array = double(array, by)
        jax.block_until_ready(array)

    return run


def shown(rates: Rates, dtype: str) -> str:
    """The rates in one line."""
    moved = ", ".join(
        f"{rate / 1e9:,.0f} at {size / 1e6:,.1f} MB" for size, rate in rates.bandwidth
    )
    return (
        f"peaks measured: {rates.operations / 1e9:,.0f} Gflop/s in {dtype}, "
        f"{rates.highest / 1e9:,.0f} in float32 at the highest precision; GB/s: {moved}"
    )
