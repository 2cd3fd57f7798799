"""The training step: one pure function of (state, batch)."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax import lax
from jaxtyping import Array, Float, Int

from jmtl.checks import check_count
from jmtl.conflict import conflict_rate
from jmtl.gradients import At, Encoded, Strategy, value_and_grads, value_and_gramian
from jmtl.gramian import Gramian
from jmtl.method import Method, named_key
from jmtl.nn import Model, penalties
from jmtl.tasks import Batch, Task, task_counts, task_losses
from jmtl.train import accumulate
from jmtl.train.state import TrainState, all_finite, all_true


class StepMetrics(NamedTuple):
    """What a step reports, all on the device.

    Attributes:
        losses: `[K]` before the update, with what a way of sharing adds to them.
        weights: `[K]` the method's, NaN where it has none.
        residual: `[]` the method's.
        norms: `[K]` of the task gradients; NaN at steps where they were not measured.
        cosine: `[K, K]` between task gradients; NaN likewise.
        conflict_rate: `[]` in [0, 1]; NaN likewise.
        failed: `[2]` as in `TrainState`, after the step.
    """

    losses: Float[Array, " K"]
    weights: Float[Array, " K"]
    residual: Float[Array, ""]
    norms: Float[Array, " K"]
    cosine: Float[Array, "K K"]
    conflict_rate: Float[Array, ""]
    failed: Int[Array, "2"]


Step = Callable[[TrainState, Batch], tuple[TrainState, StepMetrics]]


def make_step(
    model: Model,
    tasks: Sequence[Task],
    method: Method,
    optimizer: optax.GradientTransformation,
    *,
    strategy: Strategy = "auto",
    at: At = "parameters",
    axis_name: str | None = None,
    measure_every: int = 0,
    augment: Callable[..., Batch] | None = None,
    microbatches: int = 1,
) -> Step:
    """The step of a problem: weighted losses, surgery, the optimiser's update, metrics.

    Args:
        model: built with the same `axis_name`.
        tasks: K tasks; the method's `num_tasks` is K.
        method: any method. One that takes n batches a step gets a batch of n B rows: rows
            i, i + n, i + 2n, … are its batch i, however many devices hold them.
        optimizer: over {"shared", "tasks"}.
        strategy: how task gradients are computed, see `jmtl.gradients`.
        at: where gradients are taken, see `jmtl.value_and_grads`.
        axis_name: of the `pmap` around the step, if any; each device then holds an equal share of
            the batch, and every statistic is taken over all of them.
        measure_every: at steps that this divides, a method that sees no task gradients has them
            measured for the report, at the cost of K backward passes; 0 is never. Under a `vmap`
            that batches `state.step` every step pays.
        augment: `(key, batch, axis_name) -> batch`, what training sees of a batch; see
            `jmtl.data.augment`.
        microbatches: into how many the batch is cut, each after the other, to be accumulated; it
            divides a device's rows. Batch norm sees microbatches: see `jmtl.train.accumulate`.

    Returns:
        `(TrainState, Batch) -> (TrainState, StepMetrics)`, to be jitted, pmapped, scanned, vmapped.

    Raises:
        ValueError: the method's `num_tasks` is not the number of tasks, `at` is "representation"
            and the model has none that all tasks read, or `microbatches` is below 1.
    """
    k = len(tasks)
    if method.num_tasks != k:
        names = ", ".join(task.name for task in tasks)
        raise ValueError(f"{method.name} has num_tasks={method.num_tasks}; there are {k}: {names}")
    if at == "representation" and not model.common:
        raise ValueError(
            "at='representation' needs one representation that all tasks read, and this way of "
            "sharing has none: use at='parameters', or hard sharing"
        )
    check_count("make_step", "microbatches", microbatches, 1)
    keys = [task.name for task in tasks]
    ways: Any = {"strategy": strategy, "at": at, "axis_name": axis_name}

    def losses_from(model_state: Any) -> Any:
        def encode(shared: Any, batch: Batch, counts: Any, key: Any) -> tuple[Any, Any]:
            del counts
            return model.encode(shared, model_state, batch.inputs, True, key)

        def losses(
            own: Any, representation: Any, carried: Any, batch: Batch, counts: Any, key: Any
        ) -> tuple[Any, Any]:
            outputs, carried = model.decode(own, carried, representation, True, key)
            values = task_losses(tasks, outputs, batch, counts)
            if axis_name is not None:
                # Shares of a global mean add up over devices; value_and_grads takes their mean.
                values = tuple(value * lax.axis_size(axis_name) for value in values)
            added = penalties(carried)
            values = tuple(
                value + added[task.name] / microbatches if task.name in added else value
                for task, value in zip(tasks, values, strict=True)
            )
            return values, carried

        return Encoded(encode, losses)

    def measured(state: TrainState, args: Any) -> Gramian:
        def measure() -> Gramian:
            shared, own = state.params["shared"], state.params["tasks"]
            fun = losses_from(state.model_state)
            if microbatches > 1:
                return accumulate.gramian_of(fun, microbatches, shared, own, args, axis_name)
            of_shared = value_and_gramian(
                lambda shared: fun(shared, own, *args)[0], axis_name=axis_name
            )
            return of_shared(shared)[1]

        missing = jax.tree.map(
            lambda x: jnp.full(x.shape, jnp.nan, x.dtype), jax.eval_shape(measure)
        )
        if measure_every == 0:
            return missing
        return lax.cond(state.step % measure_every == 0, measure, lambda: missing)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, StepMetrics]:
        if augment is not None:
            key = named_key(jax.random.fold_in(state.key, state.step), "augment")
            batch = augment(key, batch, axis_name)
        args = _arguments(tasks, batch, state, method.batches, axis_name)
        shared, own = state.params["shared"], state.params["tasks"]
        fun = losses_from(state.model_state)
        if microbatches > 1:
            compute = accumulate.value_and_grads(fun, method, keys, microbatches, **ways)
        else:
            compute = value_and_grads(fun, method, has_aux=True, split=True, **ways)
        result = compute(state.method_state, shared, own, *args)
        last = args if method.batches == 1 else jax.tree.map(lambda x: x[-1], args)
        gramian = measured(state, last) if result.gramian is None else result.gramian

        gradient = dict(zip(("shared", "tasks"), result.gradient, strict=True))
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        method_state = result.state
        if method.observe is not None:
            after = accumulate.losses(
                fun, microbatches, params["shared"], params["tasks"], last, axis_name
            )
            method_state = method.observe(result.losses, after, method_state)

        new = TrainState(
            state.step + 1, params, result.aux, opt_state, method_state, state.key, state.failed
        )
        new = _unless_failed(state, new, result.losses, result.gramian)
        metrics = StepMetrics(
            losses=result.losses,
            weights=result.weights,
            residual=result.residual,
            norms=gramian.norms,
            cosine=gramian.cosine,
            conflict_rate=conflict_rate(gramian),
            failed=new.failed,
        )
        return new, metrics

    return step


def _arguments(
    tasks: Sequence[Task], batch: Batch, state: TrainState, batches: int, axis_name: str | None
) -> tuple[Batch, Any, Any]:
    """(batch, counts of labels over all devices, key), each with a leading axis of `batches`."""
    key = jax.random.fold_in(state.key, state.step)
    keys = key
    if batches > 1:
        # Every n-th row, not B consecutive ones: a device's rows then lie in the same batches
        # whether its share is cut out by pmap or not.
        batch = jax.tree.map(
            lambda x: jnp.moveaxis(x.reshape(-1, batches, *x.shape[1:]), 1, 0), batch
        )
        counts: Any = jax.vmap(lambda part: task_counts(tasks, part))(batch)
        keys = jax.random.split(key, batches)
    else:
        counts = task_counts(tasks, batch)
    if axis_name is not None:
        counts = lax.psum(counts, axis_name)
    return batch, counts, keys


def _unless_failed(
    old: TrainState, new: TrainState, losses: Array, gramian: Gramian | None
) -> TrainState:
    """The new state where it and all before it are finite, else the old one with the blame."""
    finite = jnp.isfinite(losses)
    if gramian is not None:
        finite &= jnp.isfinite(gramian.norms)
    failed_before = old.failed[0] >= 0
    moves = all_true([jnp.all(finite), all_finite(new), ~failed_before])
    task = jnp.where(jnp.all(finite), len(losses), jnp.argmin(finite))
    blame = jnp.stack([old.step, task.astype(jnp.int32)])
    kept = jax.tree.map(lambda n, o: jnp.where(moves, n, o), new, old)
    return kept._replace(failed=jnp.where(failed_before | moves, old.failed, blame))
