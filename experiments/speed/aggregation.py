"""Aggregation alone: from a stored stack of task gradients to one gradient."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

import jmtl
from experiments.speed.clock import interleaved
from experiments.speed.floor import Rates, bandwidth
from experiments.speed.steps import make_method, megabytes

LEAVES = 25
"""Of the stack."""


class Aggregation(NamedTuple):
    """One method's aggregation.

    Attributes:
        method: its name.
        tasks: K.
        parameters: P.
        milliseconds: the median call.
        low: its first quartile.
        high: its third quartile.
        reading: milliseconds to read the stack at the measured bandwidth: twice for a method that
            sees the Gramian and combines, once for one that sees the gradients.
        of_reading: the ratio of the two.
        megabytes: temporaries and outputs.
    """

    method: str
    tasks: int
    parameters: int
    milliseconds: float
    low: float
    high: float
    reading: float
    of_reading: float
    megabytes: float


def measure(
    k: int, parameters: int, methods: Sequence[str], rates: Rates, repeats: int, seconds: float
) -> list[Aggregation]:
    """Time the methods that see gradients on one random stack.

    Args:
        k: K.
        parameters: about P; rounded to square matrices.
        methods: names; loss methods, which combine nothing, are left out.
        rates: of the machine.
        repeats: rounds.
        seconds: the least that one timing lasts.
    """
    keys = jax.random.split(jax.random.key(0), LEAVES)
    stack = [jax.random.normal(key, leaf_shape(k, parameters)) for key in keys]
    total = sum(leaf.size for leaf in stack) // k
    made = [make_method(name, k) for name in methods]
    made = [method for method in made if method.needs != "losses"]
    programs = [_compiled(method, stack) for method in made]
    times = interleaved([_run(program, stack) for program in programs], repeats, seconds)
    rows = []
    for method, (program, _), time in zip(made, programs, times, strict=True):
        reads = 2 if method.needs == "gramian" else 1
        reading = reads * 4 * k * total / bandwidth(rates, 4 * k * total)
        rows.append(
            Aggregation(
                method.name,
                k,
                total,
                1e3 * time.median,
                1e3 * time.low,
                1e3 * time.high,
                1e3 * reading,
                time.median / reading,
                megabytes(program),
            )
        )
    return rows


def leaf_shape(k: int, parameters: int) -> tuple[int, int, int]:
    """Of each of `LEAVES` leaves: K square matrices."""
    side = max(1, round((parameters / LEAVES) ** 0.5))
    return k, side, side


def _compiled(method: jmtl.Method, stack: Any) -> tuple[Any, Any]:
    update, state = update_of(method, stack)
    return update.lower(stack, state).compile(), state


def update_of(method: jmtl.Method, stack: Any) -> tuple[Any, Any]:
    """`(stack, state) -> (gradient, state)`, jitted, and the state to begin from."""
    aggregate = jmtl.aggregator(method)
    state = aggregate.init([jnp.zeros(leaf.shape[1:], leaf.dtype) for leaf in stack])
    losses = jnp.ones(method.num_tasks) if method.uses_losses else None
    return jax.jit(lambda stack, state: aggregate.update(stack, state, losses=losses)), state


def _run(program: tuple[Any, Any], stack: Any) -> Any:
    compiled, state = program

    def run(n: int) -> None:
        for _ in range(n):
            out = compiled(stack, state)
        jax.block_until_ready(out)

    return run
