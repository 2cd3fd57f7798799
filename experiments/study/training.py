"""Many trainings in one compiled program: seeds and hyperparameters are a vmap axis.

Each training is the run that `train` makes of its seed: the same parameters, examples and keys.
Over several devices the axis is cut into equal shares, and no device talks to another.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Float, Int, UInt32

from experiments.across import over_trainings
from experiments.config import find_augmentation
from experiments.parts import batches_of
from experiments.problem import Problem
from jmtl.data.indices import indices, position
from jmtl.data.loading import gather
from jmtl.method import Method
from jmtl.nn import Model
from jmtl.train.evaluate import evaluation_sums
from jmtl.train.state import TrainState, fresh_state, init_params
from jmtl.train.step import StepMetrics, make_step


class Told(NamedTuple):
    """What a training is told; every leaf may be traced, and has a leading axis under `vmap`.

    Attributes:
        seed: `[]`.
        learning_rate: `[]`.
        weight_decay: `[]`.
        options: numbers of the method by "method.option".
        judges: `[K]` 1 for the tasks whose metric chooses the step, 0 for others.
        knobs: numbers of the problem by name.
    """

    seed: UInt32[Array, ""]
    learning_rate: Float[Array, ""]
    weight_decay: Float[Array, ""]
    options: Mapping[str, Float[Array, "..."]]
    judges: Float[Array, " K"]
    knobs: Mapping[str, Float[Array, ""]]


class Setting(NamedTuple):
    """What all trainings of a program share.

    Attributes:
        problem: of what a training is told.
        model: of a problem.
        method: of what a training is told.
        optimizer: likewise.
        metrics: by task, the metric that chooses the step.
        batch_size: rows of a batch.
        every: updates between evaluations.
        measure_every: updates between measurements of conflict, for methods that do not see it.
        augment: a name in the problem's `augmentations`, or "none".
    """

    problem: Callable[[Told], Problem]
    model: Callable[[Problem], Model]
    method: Callable[[Told], Method]
    optimizer: Callable[[Told], optax.GradientTransformation]
    metrics: Mapping[str, str]
    batch_size: int
    every: int
    measure_every: int
    augment: str


class Record(NamedTuple):
    """What the steps between two evaluations gave, as `experiments.study.results.Curves` has it."""

    losses: Float[Array, " K"]
    weights: Float[Array, " K"]
    norms: Float[Array, " K"]
    cosine: Float[Array, "K K"]
    conflict_rate: Float[Array, ""]
    residual: Float[Array, ""]


class Best(NamedTuple):
    """The step that the validation split chose so far.

    Attributes:
        score: `[]`, -inf before there is one.
        step: `[]`.
        params: at that step.
        model_state: likewise.
        validation: metrics by task and name.
    """

    score: Float[Array, ""]
    step: Int[Array, ""]
    params: Any
    model_state: Any
    validation: Mapping[str, Mapping[str, Float[Array, ""]]]


class Compiled(NamedTuple):
    """A program over W trainings.

    Attributes:
        init: `(told [W, ...], params, model_state) -> TrainState [W, ...]`.
        advance: `(states, told, arrays, first, epoch, offset) -> (states, Record [W, ...])`: the
            steps first … first + every - 1; donates the states.
    """

    init: Callable[..., TrainState]
    advance: Callable[..., tuple[TrainState, Record]]


class Common(NamedTuple):
    """What W trainings share whatever their method: how they begin and how they are judged.

    Attributes:
        params: `(told) -> (params, model_state)` before the first step.
        first: `(told, params, model_state, validation) -> Best` before the first evaluation.
        settle: `(best, told, params, model_state, step, validation) -> (best, [W, K])`, the
            metrics that choose.
        test: `(best, told, test) -> ` metrics `[W]` by task and name.
    """

    params: Callable[[Told], tuple[Any, Any]]
    first: Callable[..., Best]
    settle: Callable[..., tuple[Best, Float[Array, "W K"]]]
    test: Callable[..., Mapping[str, Mapping[str, Float[Array, " W"]]]]


def program(setting: Setting, n: int, devices: int) -> Compiled:
    """The program that trains under a setting, compiled when it is first called.

    Args:
        setting: the setting.
        n: examples of the training split.
        devices: that share the trainings.
    """

    def init(told: Told, params: Any, model_state: Any) -> TrainState:
        key = jax.random.key(told.seed)
        return fresh_state(key, params, model_state, setting.method(told), setting.optimizer(told))

    def advance(
        state: TrainState, told: Told, arrays: Any, first: Any, epoch: Any, offset: Any
    ) -> tuple[TrainState, Record]:
        problem, method = setting.problem(told), setting.method(told)
        rows = setting.batch_size * method.batches
        step = make_step(
            setting.model(problem),
            problem.tasks,
            method,
            setting.optimizer(told),
            measure_every=setting.measure_every,
            augment=find_augmentation(problem, setting.augment),
        )

        def body(state: TrainState, i: Any) -> tuple[TrainState, StepMetrics]:
            at = offset + i.astype(jnp.uint32) * np.uint32(rows)
            chosen = indices(told.seed, epoch, at, rows, n, jnp)
            # The count that all trainings share, so that `measure_every` stays a branch under vmap.
            state = state._replace(step=first + i)
            return step(state, problem.to_batch(gather(arrays, chosen)))

        state, metrics = lax.scan(body, state, jnp.arange(setting.every, dtype=jnp.int32))
        return state, recorded(metrics)

    return Compiled(
        init=over_trainings(init, devices),
        advance=over_trainings(advance, devices, shared=(2, 3, 4, 5), donate=(0,)),
    )


def compile_now(made: Compiled, told: Told, params: Any, model_state: Any, feed: Any) -> Compiled:
    """The same program, compiled for arguments like these; may run beside other work.

    Args:
        made: of `program`.
        told: of a call.
        params: of a call.
        model_state: of a call.
        feed: what `advance` takes after `told`.
    """
    init = made.init.lower(told, params, model_state).compile()  # type: ignore[attr-defined]
    state = init(told, params, model_state)
    advance = made.advance.lower(state, told, *feed).compile()  # type: ignore[attr-defined]
    return Compiled(init, advance)


def recorded(metrics: StepMetrics) -> Record:
    """A record of T steps from their metrics `[T, ...]`; NaN where no step measured."""
    mean = {
        name: jnp.nanmean(getattr(metrics, name), axis=0)
        for name in Record._fields
        if name != "residual"
    }
    return Record(residual=jnp.max(metrics.residual), **mean)


def common(setting: Setting, example: Mapping[str, Any], devices: int) -> Common:
    """How trainings under a setting begin and are evaluated; the method plays no part.

    Args:
        setting: the setting.
        example: one raw example `[1, ...]` by feature, for shapes.
        devices: that share the trainings.
    """

    def params(told: Told) -> tuple[Any, Any]:
        problem = setting.problem(told)
        inputs = problem.to_batch(example).inputs
        return init_params(jax.random.key(told.seed), setting.model(problem), inputs)

    def metrics_of(told: Told, params: Any, model_state: Any, batches: Any) -> Any:
        problem = setting.problem(told)
        sums = evaluation_sums(setting.model(problem), problem.tasks, problem.to_batch)

        def add(_: None, batch: Any) -> tuple[None, Any]:
            return None, sums(params, model_state, *batch)

        _, parts = lax.scan(add, None, batches)
        found = {}
        for task in problem.tasks:
            stats, loss, count = jax.tree.map(lambda x: x.sum(axis=0), parts[task.name])
            scores = dict(task.metric.compute(stats))
            found[task.name] = scores | {"loss": loss / count}
        return found

    def first(told: Told, params: Any, model_state: Any, batches: Any) -> Best:
        shapes = jax.eval_shape(metrics_of, told, params, model_state, batches)
        nothing = jax.tree.map(lambda x: jnp.full(x.shape, jnp.nan, x.dtype), shapes)
        return Best(jnp.asarray(-jnp.inf), jnp.zeros((), jnp.int32), params, model_state, nothing)

    def settle(
        best: Best, told: Told, params: Any, model_state: Any, step: Any, batches: Any
    ) -> tuple[Best, Float[Array, " K"]]:
        problem = setting.problem(told)
        found = metrics_of(told, params, model_state, batches)
        main = jnp.stack([found[task.name][setting.metrics[task.name]] for task in problem.tasks])
        signs = [
            1.0 if task.metric.higher_is_better[setting.metrics[task.name]] else -1.0
            for task in problem.tasks
        ]
        score = selection_score(main, jnp.asarray(signs), told.judges)
        new = Best(score, step, params, model_state, found)
        better = score > best.score
        kept = jax.tree.map(lambda a, b: jnp.where(better, a, b), new, best)
        return kept, main

    def test(best: Best, told: Told, batches: Any) -> Any:
        found = metrics_of(told, best.params, best.model_state, batches)
        there = best.score > -jnp.inf
        return jax.tree.map(lambda x: jnp.where(there, x, jnp.nan), found)

    return Common(
        params=over_trainings(params, devices),
        first=over_trainings(first, devices, shared=(3,)),
        settle=over_trainings(settle, devices, shared=(4, 5), donate=(0,)),
        test=over_trainings(test, devices, shared=(2,)),
    )


def selection_score(
    metrics: Float[Array, " K"], signs: Float[Array, " K"], judges: Float[Array, " K"]
) -> Float[Array, ""]:
    """The mean over the judging tasks of ±log(metric), the sign making more be better.

    Relative changes of every task weigh alike. -inf where a judging metric is not a number.
    """
    logs = signs * jnp.log(metrics)
    score = jnp.sum(jnp.where(judges > 0, logs, 0.0)) / jnp.sum(judges > 0)
    return jnp.where(jnp.isnan(score), -jnp.inf, score)


def evaluation_arrays(split: Any, most: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """A split as batches of one size: arrays `[N, B, ...]` by feature, and weights `[N, B]`.

    Args:
        split: one source.
        most: rows of a batch.
    """
    batches = list(batches_of(split, most))
    raw = {name: np.stack([batch[name] for batch, _ in batches]) for name in batches[0][0]}
    return raw, np.stack([weights for _, weights in batches])


def start(first: int, batch_size: int, n: int, steps: int) -> tuple[np.int32, np.uint32, np.uint32]:
    """What `advance` is told of where its steps lie: (first step, epoch, offset)."""
    epoch, offset = position(first, batch_size, n, steps)
    return np.int32(first), np.uint32(epoch), np.uint32(offset)
