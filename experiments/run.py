"""One run: from a configuration to a trained model, its records and its checkpoints."""

import contextlib
import dataclasses
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

import jmtl
from experiments import hosts, last_epochs, tracing
from experiments.config import RunConfig, check, check_sampler, find_augmentation, find_problem
from experiments.errors import UserError
from experiments.initial import (
    method_of,
    model_of,
    optimizer_of,
    shapes_of,
    state_of,
    with_origin,
)
from experiments.labels import check_split
from experiments.parts import batches_of, example_of, first_of, open_splits, rows_of
from experiments.problem import Problem
from experiments.resume import begun, check_folder, continued, how_to_go_on, saved_config
from jmtl.data import loading, source
from jmtl.data.errors import DataDamaged
from jmtl.data.several import by_source
from jmtl.method import Method
from jmtl.train import checkpoint, records, sharding
from jmtl.train.evaluate import evaluator
from jmtl.train.loop import Dispatched, TrainingFailed, fit
from jmtl.train.parallel import Shell, check_divides, shell, start_of
from jmtl.train.state import TrainState
from jmtl.train.step import Step, make_step

RESIDENT_BYTES = 2**30
"""The largest training split that `input="auto"` puts on the devices."""

KEPT_BYTES = 2**31
"""The largest training split of which `input="stream"` keeps what it has read in memory."""

AHEAD = 16
"""Batches that a stream reads ahead, at least; and at least two dispatches."""


class Watcher(NamedTuple):
    """Who is told about a run while it goes on.

    Attributes:
        began: `(config, first step)`.
        logged: `(record)`, a line of metrics.jsonl.
        note: `(text)`, something that the person should know.
    """

    began: Callable[[RunConfig, int], None] = lambda config, start: None
    logged: Callable[[Mapping[str, Any]], None] = lambda record: None
    note: Callable[[str], None] = lambda text: None


def scorer(
    config: RunConfig, problem: Problem
) -> Callable[[TrainState, Any], dict[str, dict[str, float]]]:
    """What gives the metrics of a state on a split, by task; compiled once.

    Parameters that are split stay so; else one device does it.
    """
    scores_of = evaluator(model_of(config, problem), problem.tasks, problem.to_batch)

    def scores(state: TrainState, split: Any) -> dict[str, dict[str, float]]:
        params, model_state = state.params, state.model_state
        if not sharding.is_split(params):
            params, model_state = jax.device_get((params, model_state))
        return scores_of(params, model_state, batches_of(split, problem.evaluation_rows))

    return scores


def train(
    config: RunConfig,
    folder: Path,
    *,
    data_dir: Path,
    resume: bool,
    watcher: Watcher,
    log: Sequence[str] = (),
    profile: bool = False,
) -> dict[str, Any]:
    """Train a run to its last step and write its records.

    Args:
        config: checked here.
        folder: of the run; holds nothing, or with `resume` this run.
        data_dir: of all data sets.
        resume: continue from the newest usable checkpoint.
        watcher: who is told.
        log: "tensorboard", "wandb": where metrics go beside metrics.jsonl.
        profile: whether a few dispatches are traced, into the folder's profile/.

    Returns:
        What `summary.json` holds.

    Raises:
        UserError: one line, before anything is written where that is possible.
    """
    check(config)
    problem = find_problem(config.problem)
    check_sampler(config, problem)
    find_augmentation(problem, config.augment)
    check_folder(config, folder, resume)
    hosts.together("looked into the folder")  # before process 0 writes there
    method = method_of(config, problem)
    try:
        on_devices = shell(config.parallel, config.devices, config.model_parallel)  # type: ignore[arg-type]
        if isinstance(problem.data, str):
            over = on_devices.data_parallel
            check_divides(config.batch_size, over, microbatches=config.microbatches)
    except ValueError as error:
        raise UserError(str(error)) from error
    model_of(config, problem)
    try:
        with _not_left_empty(folder):
            records.check_writable(folder, hosts.primary())
            trace = folder / "profile" if profile and hosts.primary() else None
            return _train(
                config, problem, method, on_devices, folder, data_dir, resume, watcher, log, trace
            )
    except checkpoint.CheckpointError as error:  # it says itself which is the last one
        raise UserError(str(error)) from error
    except (records.OutputError, DataDamaged) as error:
        raise UserError(f"{error}{how_to_go_on(folder)}") from error
    except OSError as error:
        raise UserError(f"{folder}: {error.strerror or error}{how_to_go_on(folder)}") from error


def train_or_continue(
    config: RunConfig, folder: Path, data_dir: Path, watcher: Watcher
) -> tuple[dict[str, Any], bool]:
    """`train`, from the newest checkpoint of the folder if the run was begun there.

    A run saves what an `input` of "auto" became, and goes on with that.

    Returns:
        The summary, and whether the run had been begun.
    """
    resume = begun(folder)
    if resume:
        config = dataclasses.replace(config, input=saved_config(folder).input)
    return train(config, folder, data_dir=data_dir, resume=resume, watcher=watcher), resume


@contextlib.contextmanager
def _not_left_empty(folder: Path) -> Iterator[None]:
    """Removes a folder that was made for a run and holds nothing when the run is refused."""
    made = not folder.exists()
    try:
        yield
    except BaseException:
        if made:
            with contextlib.suppress(OSError):
                folder.rmdir()
        raise


def _train(
    config: RunConfig,
    problem: Problem,
    method: Method,
    on_devices: Shell,
    folder: Path,
    data_dir: Path,
    resume: bool,
    watcher: Watcher,
    log: Sequence[str],
    trace: Path | None,
) -> dict[str, Any]:
    primary = hosts.primary()
    splits = open_splits(problem, data_dir)
    training, test = splits("train"), splits("test")
    if config.input == "auto":
        small = source.nbytes(training) <= RESIDENT_BYTES
        config = dataclasses.replace(config, input="resident" if small else "stream")
    example = example_of(training)
    shapes = _fitting_shapes(config, problem, method, training, on_devices.data_parallel)
    whole = config.input == "resident"
    if whole:
        training = source.as_arrays(training)
    else:
        source.keep(training, KEPT_BYTES)
    check_split(problem, training, "train", whole)
    check_split(problem, test, "test", whole, all_tasks=False)
    handle = checkpoint.open_checkpoints(folder / "checkpoints")
    try:
        found = None
        if resume:
            template = on_devices.template(shapes)
            found = continued(handle, template, config, folder, watcher.note)
        start = 0 if found is None else found.step
        if found is not None:
            state = on_devices.filled(found.state)
        else:
            state = state_of(config, problem, method, example, on_devices)
            if config.origin:
                config, state = with_origin(config, method, state, on_devices)
        # Before the first step: a longer run that is interrupted goes on as the longer run.
        records.write_json(folder / "config.json", dataclasses.asdict(config), primary)
        writer = _writer(config, folder, start if resume else None, log, primary)
        watcher.began(config, start)
        began = time.perf_counter()

        compiling: dict[int, float] = {}
        scores, due = scorer(config, problem), _last_epochs(config, problem, training)
        scored = last_epochs.read(folder, [step for step in due if step <= start])

        def look(step: int, placed: TrainState) -> None:
            scored[step] = scores(on_devices.unplace(placed), test)
            last_epochs.write(folder, scored, primary)

        def report(done: Dispatched) -> None:
            if done.step - done.steps == start:  # later, the device works on while one compiles
                done = done._replace(seconds=done.seconds - compiling.get(start, 0.0))
            record = _record(done, problem, config.batch_size * method.batches)
            writer.write(record)
            watcher.logged(record)

        try:
            run = _runner(config, problem, method, on_devices, training, compiling)
            with tracing.traced(run, trace, watcher.note) as run:
                state = fit(
                    state,
                    run,
                    start=start,
                    stop=config.steps,
                    every=config.steps_per_dispatch,
                    report=report,
                    save=lambda step, placed: checkpoint.save(
                        handle, step, on_devices.unplace(placed)
                    ),
                    save_every=config.checkpoint_every,
                    look=look,
                    look_at=due[:-1],
                )
        except TrainingFailed as failure:
            checkpoint.wait(handle)
            raise UserError(_blame(failure, problem, config, folder, handle)) from failure
        finally:
            writer.close()
        state = on_devices.unplace(state)
        checkpoint.wait(handle)
    finally:
        checkpoint.close(handle)
    summary: dict[str, Any] = {
        "problem": config.problem,
        "method": config.method,
        "seed": config.seed,
        "steps": int(state.step),
        "test": scores(state, test),
        "final_losses": _last_losses(folder) if primary else None,
        "params_norm": float(jax.jit(jmtl.global_norm)(state.params)),
        "params_sha256": checkpoint.digest(state.params),
        "versions": records.versions(),
        "devices": f"{config.devices} × {jax.devices()[0].device_kind}",
        "seconds": round(time.perf_counter() - began, 3),
    }
    if due:
        scored[config.steps] = summary["test"]
        last_epochs.write(folder, scored, primary)
        summary["last_epochs"] = last_epochs.summary(problem, scored)
    records.write_json(folder / "summary.json", summary, primary)
    return summary


def _fitting_shapes(
    config: RunConfig, problem: Problem, method: Method, training: Any, over: int
) -> TrainState:
    """The shapes of the state, once a step with it has been traced; batches lie `over` devices.

    Raises:
        UserError: the data, the encoder, the method and its options do not fit one another.
    """
    n = source.lengths(training)

    def check_size(name: str | None, n: int, rows: int) -> None:
        if n + config.steps_per_dispatch * rows >= 2**31:
            raise UserError(f"--batch-size {config.batch_size} is too large for {n:,} examples")
        parts = over * config.microbatches
        if rows // method.batches % parts:  # one data set's have been checked before it was read
            cut = "" if config.microbatches == 1 else f" in {config.microbatches} microbatches"
            raise UserError(
                f"--batch-size {config.batch_size} gives {name} {rows // method.batches} rows, "
                f"which do not lie evenly on {over} devices{cut}: use a multiple of "
                f"{16 * parts}"
            )

    by_source(check_size, n, _rows(config, method, n))
    try:
        shapes = shapes_of(config, problem, method, example_of(training))
        few = problem.to_batch(first_of(training, method.batches * config.microbatches))
        jax.eval_shape(_step_of(config, problem, method), shapes, few)
    except ValueError as error:
        raise UserError(str(error)) from error
    except TypeError as error:
        raise UserError(
            f"an option of --method {config.method} has a value of the wrong kind: {error}"
        ) from error
    return shapes


def _rows(config: RunConfig, method: Method, n: Any) -> Any:
    """The rows that one call of the step takes; of several data sets of n examples, by name."""
    dealt = rows_of(config.batch_size, config.sampler, config.temperature, n)
    return by_source(lambda _, rows: rows * method.batches, dealt)


def _last_epochs(config: RunConfig, problem: Problem, training: Any) -> tuple[int, ...]:
    """After which updates the test split is evaluated for the mean that the problem asks for."""
    if problem.mean_of_last_epochs is None:
        return ()
    return last_epochs.ends(
        problem.mean_of_last_epochs,
        sum(jax.tree.leaves(source.lengths(training))),
        config.batch_size,
        config.steps_per_dispatch,
        config.steps,
    )


def _step_of(
    config: RunConfig, problem: Problem, method: Method, on_devices: Shell | None = None
) -> Step:
    axis_name = None if on_devices is None else on_devices.axis_name
    net = model_of(config, problem, axis_name)
    return make_step(
        net if on_devices is None else on_devices.held(net),
        problem.tasks,
        method,
        optimizer_of(config),
        strategy=config.strategy,  # type: ignore[arg-type]
        at=config.at,  # type: ignore[arg-type]
        axis_name=axis_name,
        measure_every=config.measure_every,
        augment=find_augmentation(problem, config.augment),
        microbatches=config.microbatches,
    )


def _writer(
    config: RunConfig, folder: Path, resume_step: int | None, log: Sequence[str], primary: bool
) -> records.Writer:
    writers = [records.jsonl(folder / "metrics.jsonl", resume_step, primary)]
    if "tensorboard" in log:
        writers.append(records.tensorboard(folder / "tensorboard", primary))
    if "wandb" in log:
        about = dataclasses.asdict(config)
        writers.append(records.wandb("jmtl", folder.name, about, folder, primary))
    return records.combine(*writers)


def _runner(
    config: RunConfig,
    problem: Problem,
    method: Method,
    on_devices: Shell,
    training: Any,
    compiling: dict[int, float],
) -> Callable[[TrainState, int, int], Any]:
    """`fit`'s run: the compiled program of a number of steps, and its feed.

    `compiling` is given the seconds that compiling took, by the first step of the dispatch that
    waited for it.
    """
    step = _step_of(config, problem, method, on_devices)
    n = source.lengths(training)
    rows = _rows(config, method, n)
    if config.input == "resident":
        arrays = on_devices.resident(training)

        def feed(first: int, steps: int) -> Any:
            return start_of(arrays, config.seed, first, rows, n, steps)
    else:
        batches: Any = None

        def feed(first: int, steps: int) -> Any:
            nonlocal batches
            if batches is None:
                batches = loading.stream(
                    training,
                    config.seed,
                    rows,
                    start_step=first,
                    stop_step=config.steps,
                    host=jax.process_index(),
                    hosts=jax.process_count(),
                    prefetch=max(2, -(-AHEAD // config.steps_per_dispatch)),
                    every=config.steps_per_dispatch,
                )
            return on_devices.streamed(next(batches))

    compiled: dict[int, Any] = {}

    def run(state: TrainState, first: int, steps: int) -> Any:
        with jax.profiler.TraceAnnotation("feed"):
            given = feed(first, steps)
        if steps not in compiled:
            began = time.perf_counter()
            compiled[steps] = on_devices.compile(step, problem.to_batch, state, given, steps, rows)
            compiling.setdefault(first, time.perf_counter() - began)
        return compiled[steps](state, given)

    return run


def _record(done: Dispatched, problem: Problem, rows: int) -> dict[str, Any]:
    """A line of metrics.jsonl: the last step of a dispatch, and its mean conflict."""
    names = [task.name for task in problem.tasks]
    metrics = done.metrics

    def by_task(values: Any) -> dict[str, float]:
        return dict(zip(names, map(float, values), strict=True))

    rates = metrics.conflict_rate[~np.isnan(metrics.conflict_rate)]
    cosines = metrics.cosine[~np.isnan(metrics.cosine).any(axis=(1, 2))]
    return {
        "step": done.step,
        "losses": by_task(metrics.losses[-1]),
        "weights": by_task(metrics.weights[-1]),
        "residual": float(metrics.residual.max()),
        "conflict_rate": float(rates.mean()) if len(rates) else math.nan,
        "cosine": cosines.mean(axis=0).tolist() if len(cosines) else None,
        "examples_per_second": done.steps * rows / done.seconds,
    }


def _last_losses(folder: Path) -> dict[str, float] | None:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return json.loads(lines[-1])["losses"] if lines else None


def _blame(
    failure: TrainingFailed,
    problem: Problem,
    config: RunConfig,
    folder: Path,
    handle: checkpoint.Checkpoints,
) -> str:
    tasks = problem.tasks
    what = (
        f"the loss or gradient of task {tasks[failure.task].name!r} is"
        if failure.task < len(tasks)
        else "the update is"
    )
    kept = checkpoint.steps(folder / "checkpoints")
    last = f"the last good checkpoint, step {kept[-1]}, is kept" if kept else "no checkpoint yet"
    return (
        f"{what} not finite at step {failure.step}; {last} in {folder}: "
        f"try a learning rate below {config.learning_rate:g}, or look at that task's data"
    )
