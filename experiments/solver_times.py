"""How long every Gramian method's K×K work takes once compiled.

python -m experiments.solver_times

From a Gramian on the device to weights: no gradients. Calls of all methods are interleaved, each
on another random Gramian than the call before, and medians are shown.
"""

import statistics
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import jmtl
from jmtl.method import Method, Seen

TASKS = (2, 8, 40)
PROBLEMS = 16  # random Gramians that the calls take in turn


class Timing(NamedTuple):
    """One method's cost at one K.

    Attributes:
        method: its name.
        tasks: K.
        milliseconds: the median call.
    """

    method: str
    tasks: int
    milliseconds: float


def gramian_methods(k: int) -> dict[str, Method]:
    """Every method of `METHODS` that reads a Gramian alone and takes K tasks, by name."""
    found = {}
    for name, constructor in jmtl.METHODS.items():
        keyed = "key" in jmtl.methods.options(name)
        needed = [option for option in ("weights", "trim") if option in jmtl.methods.options(name)]
        if needed or (name == "krum" and k < 3):
            continue
        method = constructor(k, **({"key": jax.random.key(0)} if keyed else {}))
        if method.needs == "gramian" and method.batches == 1:
            found[name] = method
    return found


def inputs(k: int) -> list[Seen]:
    """What methods see: normal gradients of norms within a factor of 10, about half in conflict."""
    seen = []
    for key in jax.random.split(jax.random.key(k), PROBLEMS):
        rows_key, norms_key = jax.random.split(key)
        rows = jax.random.normal(rows_key, (k, 2 * k))
        norms = 10 ** jax.random.uniform(norms_key, (k, 1))
        seen.append(Seen(jnp.ones(k), jmtl.gramian(rows * norms)))
    return seen


def measure(tasks: Sequence[int] = TASKS, repeats: int = 200) -> list[Timing]:
    """Time every Gramian method's update at each K.

    Args:
        tasks: values of K.
        repeats: calls of each method, in turn with those of the others.

    Returns:
        A row for each method and K.
    """
    rows = []
    for k in tasks:
        seen = inputs(k)
        programs: dict[str, Any] = {}
        for name, method in gramian_methods(k).items():
            state = method.init(jnp.zeros(()))
            program = jax.jit(method.update).lower(seen[0], state).compile()
            programs[name] = (program, state)
        took: dict[str, list[float]] = {name: [] for name in programs}
        for repeat in range(repeats + 2):
            for name, (program, state) in programs.items():
                began = time.perf_counter()
                jax.block_until_ready(program(seen[repeat % PROBLEMS], state))
                took[name].append(time.perf_counter() - began)
        # The first calls of a program pay for its loading.
        rows += [Timing(name, k, 1e3 * statistics.median(t[2:])) for name, t in took.items()]
    return rows


def table(rows: Sequence[Timing]) -> str:
    """The rows as a Markdown table: a line for each method, a column for each K."""
    tasks = sorted({row.tasks for row in rows})
    times = {(row.method, row.tasks): f"{row.milliseconds:.3f}" for row in rows}
    lines = ["| ms a call | " + " | ".join(f"K = {k}" for k in tasks) + " |"]
    lines.append("|---" + "|---:" * len(tasks) + "|")
    for name in dict.fromkeys(row.method for row in rows):
        cells = " | ".join(times.get((name, k), "") for k in tasks)
        lines.append(f"| `{name}` | {cells} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(f"jax {jax.__version__}, {jax.devices()[0].device_kind}\n")
    print(table(measure()))
