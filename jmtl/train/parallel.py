"""Thin shells around the one step: `jit` over a mesh of devices, and `pmap` with a named axis.

The mesh has two axes: the batch lies over `data`, and parameters that are large, with the
optimiser's state and the task gradients, over `model` (`jmtl.train.sharding`), of size 1 unless
asked for.

Both run N steps a call in one `lax.scan`, on batches that come from a `Feed`. A feed either gathers
rows of a split that lies on the devices, or is cut from batches that the host has loaded.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jmtl.data.loading import start_at, take
from jmtl.data.several import several
from jmtl.nn import Model
from jmtl.tasks import Batch
from jmtl.train import sharding
from jmtl.train.sharding import MODEL, Rules
from jmtl.train.state import TrainState
from jmtl.train.step import Step, StepMetrics

AXIS = "data"
"""The name of the axis that a batch lies over, of a mesh and of `pmap`."""

ToBatch = Callable[[Mapping[str, Any]], Batch]
Run = Callable[[TrainState, Any], tuple[TrainState, StepMetrics]]


class Resident(NamedTuple):
    """A feed from a split on the device: `arrays` leaves `[n, ...]`, and where the steps begin.

    Of several data sets, all but the seed are by name.
    """

    arrays: Mapping[str, Any]
    seed: Any
    epoch: Any
    offset: Any


class Streamed(NamedTuple):
    """A feed of batches that the host has loaded: leaves `[N, B, ...]`, of several by name."""

    batches: Mapping[str, Any]


class Shell(NamedTuple):
    """How states, data and the scanned step lie on devices.

    Attributes:
        devices: how many there are, over all processes.
        data_parallel: how many share a batch: all, but for those along the mesh's `model` axis,
            which share parameters.
        axis_name: what `make_step` and the model need: a name under `pmap`, else None.
        held: the model whose step is compiled, with parameters and gradients held where they lie.
        create: `(init, *arguments)` to the state that `init` computes of them, placed: what is
            split is computed in parts, and is whole nowhere.
        template: a state's shapes, to what `checkpoint.restore` fills for `filled`.
        filled: such a state, placed; it may be the same arrays.
        place: a state, the same for every device, put on them.
        unplace: the inverse: the state of one device; what is split stays split.
        resident: a split's arrays `[n, ...]`, put on every device.
        streamed: this process's share of N batches, leaves `[N, B / processes, ...]`, put on its
            devices.
        compile: `(step, to_batch, state, feed, steps, batch_size)` to a compiled
            `(state, feed) -> (state, StepMetrics [N, ...])` that donates the state. `batch_size` is
            the rows that one call of the step sees over all devices, of several data sets by name.
    """

    devices: int
    data_parallel: int
    axis_name: str | None
    held: Callable[[Model], Model]
    create: Callable[..., TrainState]
    template: Callable[[TrainState], TrainState]
    filled: Callable[[TrainState], TrainState]
    place: Callable[[TrainState], TrainState]
    unplace: Callable[[TrainState], TrainState]
    resident: Callable[[Mapping[str, np.ndarray]], Any]
    streamed: Callable[[Mapping[str, np.ndarray]], Any]
    compile: Callable[..., Run]


def start_of(arrays: Any, seed: int, t: int, batch_size: Any, n: Any, steps: int) -> Resident:
    """The resident feed of steps t … t + steps − 1 of a split of n examples."""
    return Resident(arrays, np.uint32(seed), *start_at(t, batch_size, n, steps))


def shell(
    kind: Literal["jit", "pmap"] = "jit",
    devices: int | None = None,
    model_parallel: int = 1,
    rules: Rules = MappingProxyType({}),
) -> Shell:
    """The shell of a kind over the first devices, or all of them.

    Args:
        kind: "jit" over a mesh, or "pmap".
        devices: how many, over all processes; None for all there are.
        model_parallel: over how many of them parameters are split, under "jit".
        rules: which dimension of which parameter, where it is not its largest; see
            `jmtl.train.sharding`.

    Raises:
        ValueError: an unknown kind; fewer devices than asked for; a share of several processes'
            devices; parameters split under "pmap", or over a number that does not divide the
            devices of a process.
    """
    there = jax.device_count()
    devices = there if devices is None else devices
    if kind not in ("jit", "pmap"):
        raise ValueError(f"parallel must be jit or pmap, got {kind!r}")
    if not 1 <= devices <= there:
        raise ValueError(
            f"{devices} devices asked for, and there {'is' if there == 1 else 'are'} {there}"
            + (
                ": to simulate more on a CPU, set "
                f"XLA_FLAGS=--xla_force_host_platform_device_count={devices}"
                if jax.default_backend() == "cpu" and devices > there
                else ""
            )
        )
    if jax.process_count() > 1 and devices != there:
        raise ValueError(f"{jax.process_count()} processes use all {there} devices, not {devices}")
    local = devices // jax.process_count()
    if model_parallel < 1 or local % model_parallel:
        each = "" if jax.process_count() == 1 else " of a process"
        raise ValueError(
            f"parameters cannot be split over {model_parallel} of {local} devices{each}: "
            "use a number that divides them"
        )
    if kind == "jit":
        return _jit_shell(devices, model_parallel, rules)
    if model_parallel > 1:
        raise ValueError("pmap does not split parameters: use jit")
    return _pmap_shell(devices)


def check_divides(
    batch_size: Any, devices: int, name: str | None = None, microbatches: int = 1
) -> None:
    """Refuse a batch whose microbatches do not lie evenly on the devices."""
    parts = devices * microbatches
    if several(batch_size):
        for source, rows in batch_size.items():
            check_divides(rows, devices, source, microbatches)
    elif batch_size % parts:
        whose = f" of {name}" if name else ""
        over = "1 device" if devices == 1 else f"{devices} devices"
        cut = "" if microbatches == 1 else f" in {microbatches} microbatches"
        raise ValueError(
            f"batch size {batch_size}{whose} does not divide over {over}{cut}: "
            f"use {batch_size - batch_size % parts or parts} or "
            f"{batch_size + -batch_size % parts}"
        )


def _scanned(
    step: Step, to_batch: ToBatch, steps: int, batch_size: Any, rows: Callable[[int], Any], put: Any
) -> Run:
    """N steps in one scan; `rows` are this device's row numbers of B, `put` places a batch."""

    def run(state: TrainState, feed: Any) -> tuple[TrainState, StepMetrics]:
        def fetch(x: Any) -> Mapping[str, Any]:
            if isinstance(feed, Streamed):
                return x
            return take(feed.arrays, feed.seed, feed.epoch, feed.offset, x, batch_size, rows)

        def body(state: TrainState, x: Any) -> tuple[TrainState, StepMetrics]:
            return step(state, put(to_batch(fetch(x))))

        xs = feed.batches if isinstance(feed, Streamed) else jnp.arange(steps, dtype=jnp.uint32)
        return lax.scan(body, state, xs)

    return run


def _jit_shell(devices: int, model_parallel: int, rules: Rules) -> Shell:
    # Along the model axis devices of one process: then each process holds every part of a state.
    chosen = sorted(jax.devices()[:devices], key=lambda device: device.process_index)
    grid = np.array(chosen).reshape(-1, model_parallel)
    mesh = Mesh(grid, (AXIS, MODEL), axis_types=(AxisType.Auto,) * 2)
    everywhere = NamedSharding(mesh, PartitionSpec())
    split = NamedSharding(mesh, PartitionSpec(AXIS))
    split_batches = NamedSharding(mesh, PartitionSpec(None, AXIS))

    def lies(state: TrainState) -> Any:
        return jax.tree.map(
            lambda spec: NamedSharding(mesh, spec),
            sharding.specs(state, model_parallel, rules),
            is_leaf=lambda x: isinstance(x, PartitionSpec),
        )

    def create(init: Callable[..., TrainState], *arguments: Any) -> TrainState:
        where = lies(jax.eval_shape(init, *arguments))
        return jax.jit(init, out_shardings=where)(*arguments)

    def template(shapes: TrainState) -> TrainState:
        return jax.tree.map(
            lambda x, where: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where),
            shapes,
            lies(shapes),
        )

    def place(state: TrainState) -> TrainState:
        # Copies: what is placed will be donated, and the caller's state must outlive that.
        return jax.jit(lambda s: jax.tree.map(jnp.copy, s), out_shardings=lies(state))(state)

    def put(batch: Batch) -> Batch:
        return lax.with_sharding_constraint(batch, split)

    def streamed(batches: Mapping[str, np.ndarray]) -> Streamed:
        return Streamed(
            jax.tree.map(
                lambda x: jax.make_array_from_process_local_data(split_batches, x), batches
            )
        )

    def compile_(
        step: Step, to_batch: ToBatch, state: Any, feed: Any, steps: int, batch_size: Any
    ) -> Run:
        where = lies(state)

        def held(state: TrainState, batch: Batch) -> tuple[TrainState, StepMetrics]:
            state, metrics = step(state, batch)
            return lax.with_sharding_constraint(state, where), metrics

        kept = step if model_parallel == 1 else held
        run = _scanned(kept, to_batch, steps, batch_size, lambda size: size, put)
        jitted = jax.jit(run, donate_argnums=0, out_shardings=(where, everywhere))
        return jitted.lower(state, feed).compile()

    return Shell(
        devices=devices,
        data_parallel=devices // model_parallel,
        axis_name=None,
        held=lambda net: net if model_parallel == 1 else sharding.held(net, mesh, rules),
        create=create,
        template=template,
        filled=lambda state: state,
        place=place,
        unplace=lambda state: state,
        resident=lambda arrays: jax.tree.map(
            lambda x: jax.make_array_from_process_local_data(everywhere, x, x.shape), arrays
        ),
        streamed=streamed,
        compile=compile_,
    )


def _pmap_shell(devices: int) -> Shell:
    local = [d for d in jax.devices()[:devices] if d.process_index == jax.process_index()]

    def stack(tree: Any) -> Any:
        """The same on every local device, with a leading device axis."""
        copy = jax.pmap(lambda _, x: x, in_axes=(0, None), devices=local)
        return copy(jnp.arange(len(local)), tree)

    def streamed(batches: Mapping[str, np.ndarray]) -> Streamed:
        def cut(x: np.ndarray) -> np.ndarray:
            steps, rows = x.shape[:2]
            shares = x.reshape(steps, len(local), rows // len(local), *x.shape[2:])
            return np.moveaxis(shares, 1, 0)

        return Streamed(jax.tree.map(cut, batches))

    def compile_(
        step: Step, to_batch: ToBatch, state: Any, feed: Any, steps: int, batch_size: Any
    ) -> Run:
        def rows(size: int) -> Any:
            share = size // devices
            first = lax.axis_index(AXIS).astype(jnp.uint32) * np.uint32(share)
            return first + jnp.arange(share, dtype=jnp.uint32)

        run = _scanned(step, to_batch, steps, batch_size, rows, lambda batch: batch)
        axes: list[Any] = [0] if isinstance(feed, Streamed) else [0, None, None, None]
        mapped = jax.pmap(
            run,
            axis_name=AXIS,
            in_axes=(0, type(feed)(*axes)),
            donate_argnums=0,
            devices=None if jax.process_count() > 1 else local,
        )
        compiled = mapped.lower(state, feed).compile()

        def call(state: TrainState, feed: Any) -> tuple[TrainState, StepMetrics]:
            state, metrics = compiled(state, feed)
            return state, jax.tree.map(lambda x: x[0], metrics)

        return call

    return Shell(
        devices=devices,
        data_parallel=devices,
        axis_name=AXIS,
        held=lambda net: net,
        create=lambda init, *arguments: stack(jax.jit(init)(*arguments)),
        template=lambda shapes: shapes,
        filled=stack,
        place=stack,
        unplace=lambda state: jax.tree.map(lambda x: x[0], state),
        resident=stack,
        streamed=streamed,
        compile=compile_,
    )
