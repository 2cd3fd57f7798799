"""What XLA makes of steps and methods for a GPU, read off programs compiled where there is none.

    JAX_PLATFORMS=cpu python -m experiments.speed.ahead

It needs `pip install "jax[cuda12]"` and no GPU: kernels are compiled for an H100 and not run. Times
are not known; what is, is what costs time there: kernels and library calls, bytes that they read
and write, loops whose end the host has to wait for, memory. No measurement chooses between
algorithms of a library, as it would on the card.
"""

import contextlib
import re
import sys
from collections.abc import Iterator
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import SingleDeviceSharding

from experiments.errors import UserError
from experiments.speed import report
from experiments.speed.aggregation import LEAVES, leaf_shape, update_of
from experiments.speed.models import MODELS, build, draw, to_batch
from experiments.speed.steps import dispatch_of, make_method
from jmtl.train.state import init_state

H100 = """
gpu_device_info {
  cuda_compute_capability { major: 9 minor: 0 }
  threads_per_block_limit: 1024 threads_per_warp: 32 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_core: 233472
  shared_memory_per_block_optin: 232448
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000 l2_cache_size: 52428800 device_memory_size: 84978958336
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 8 }
runtime_version { major: 12 minor: 9 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""

STEPS = (
    ("lenet", 2, "pcgrad", "float32"),
    ("lenet", 8, "pcgrad", "float32"),
    ("mlp", 2, "pcgrad", "float32"),
    ("mlp", 8, "nash", "float32"),
    ("resnet18", 3, "pcgrad", "bfloat16"),
)
"""(model, K, method, dtype) of what is looked at."""

AGGREGATED = ("pcgrad", "upgrad", "cagrad", "nash", "graddrop")
TASKS, PARAMETERS = 8, 100_000_000

_FREE = ("parameter", "constant", "tuple", "get-tuple-element", "bitcast", "while", "conditional")
_INSTRUCTION = re.compile(r"\s+(?:ROOT )?%([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*)")
_SIZES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "f32": 4, "s32": 4, "u32": 4}


class Compiled(NamedTuple):
    """What can be read off a program for a GPU.

    Attributes:
        kernels: kernels and library calls, those in a loop's body once.
        waits: loops and branches whose condition the host reads before it goes on.
        gigabytes: read and written by them.
        megabytes: temporaries.
    """

    kernels: int
    waits: int
    gigabytes: float
    megabytes: float


def read(text: str, megabytes: float) -> Compiled:
    """Count in a compiled program's text."""
    inside = set(re.findall(r"(?:calls|to_apply)=%([\w.\-]+)", text))
    kernels, moved = 0, 0
    sizes: dict[str, int] = {}
    fused = False
    for line in text.splitlines():
        if line.endswith("{") and (begun := re.match(r"(?:ENTRY )?%([\w.\-]+) \(", line)):
            fused = begun[1] in inside
        found = _INSTRUCTION.match(line)
        if fused or not found:
            continue
        name, shape, kind, operands = found.groups()
        sizes[name] = _bytes(shape)
        if kind not in _FREE:
            kernels += 1
            given = re.findall(r"%([\w.\-]+)", operands.split("), ")[0])
            moved += sizes[name] + sum(sizes.get(operand, 0) for operand in given)
    loops = [line for line in text.splitlines() if re.search(r" (while|conditional)\(", line)]
    waits = sum("known_trip_count" not in line for line in loops)
    return Compiled(kernels, waits, moved / 1e9, megabytes)


def _bytes(shape: str) -> int:
    total = 0
    for kind, dimensions in re.findall(r"(\w+)\[([\d,]*)\]", shape):
        size = _SIZES.get(kind, 0)
        for dimension in filter(None, dimensions.split(",")):
            size *= int(dimension)
        total += size
    return total


def device() -> Any:
    """The GPU that is compiled for.

    Raises:
        UserError: JAX has no compiler for NVIDIA GPUs here, or is not told to run on the CPU.
    """
    if jax.default_backend() != "cpu":
        raise UserError("set JAX_PLATFORMS=cpu: this compiles for a GPU and runs on none")
    try:
        return topologies.get_topology_desc(
            "h100", "cuda", target_config=H100, topology="1x1x1"
        ).devices[0]
    except (NotImplementedError, RuntimeError) as error:
        raise UserError(
            f"no compiler for NVIDIA GPUs here ({' '.join(str(error).split())[:80]}): "
            'pip install "jax[cuda12]", and set JAX_PLATFORMS=cpu'
        ) from error


@contextlib.contextmanager
def _traced_for(gpu: Any) -> Iterator[None]:
    """What is traced takes the ways that it would on a machine with this one GPU."""
    # Caches hold what was traced for the CPU.
    jax.clear_caches()
    with (
        mock.patch("jax.default_backend", return_value="gpu"),
        mock.patch("jax.device_count", return_value=1),
        mock.patch("jax.devices", return_value=[gpu]),
        mock.patch("jax._src.interpreters.pxla.get_default_device", return_value=gpu),
    ):
        yield
    jax.clear_caches()


def compiled(gpu: Any, jitted: Any, *args: Any) -> Compiled:
    """Compile a jitted function for a GPU, from arguments of these shapes."""
    place = SingleDeviceSharding(gpu)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), args)
    with _traced_for(gpu):
        program = jitted.lower(*shapes).compile()
    return read(program.as_text(), program.memory_analysis().temp_size_in_bytes / 1e6)


def step(gpu: Any, model: str, k: int, name: str, dtype: Any) -> Compiled:
    """A training step."""
    built, method = build(MODELS[model], k, dtype), make_method(name, k)
    batch = to_batch(built.sizes, built.tasks, draw(built.sizes, k))
    state = jax.eval_shape(
        lambda key: init_state(key, built.net, method, built.optimizer, batch.inputs),
        jax.random.key(1),
    )
    one = jax.tree.map(lambda x: jax.ShapeDtypeStruct((1, *x.shape), x.dtype), batch)
    return compiled(gpu, dispatch_of(built, method, "auto"), state, one)


def aggregation(gpu: Any, name: str) -> Compiled:
    """A method from a stored stack of `PARAMETERS` × `TASKS` numbers to one gradient."""
    shape = leaf_shape(TASKS, PARAMETERS)
    stack = [jax.ShapeDtypeStruct(shape, jnp.float32)] * LEAVES
    method = make_method(name, TASKS)
    state = jax.eval_shape(lambda: update_of(method, stack)[1])
    update = jax.jit(lambda stack, state: update_of(method, stack)[0](stack, state))
    return compiled(gpu, update, stack, state)


def main() -> int:
    """Print both tables; returns the exit code."""
    try:
        gpu = device()
    except UserError as error:
        print("error:", error, file=sys.stderr)
        return 2
    print(f"compiled for an {gpu.device_kind} with jax {jax.__version__}, not run\n")
    cells = [
        [model, dtype, name, str(k), *_cells(step(gpu, model, k, name, dtype))]
        for model, k, name, dtype in STEPS
    ]
    report.show(("a step", ["model", "dtype", "method", "K", *_COLUMNS], cells))
    cells = [[name, *_cells(aggregation(gpu, name))] for name in AGGREGATED]
    title = f"aggregation alone, K = {TASKS}, {PARAMETERS:,} parameters"
    report.show((title, ["method", *_COLUMNS], cells))
    print(
        f"two reads of the stack are {2 * 4 * TASKS * PARAMETERS / 1e9:.1f} GB, one write "
        f"of the gradient {4 * PARAMETERS / 1e9:.1f}"
    )
    return 0


_COLUMNS = ("kernels", "waits", "GB moved", "MB of temporaries")


def _cells(found: Compiled) -> list[str]:
    return [str(found.kernels), str(found.waits), *map(report.digits, found[2:])]


if __name__ == "__main__":
    sys.exit(main())
