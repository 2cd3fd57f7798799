"""A run that was begun: its configuration, whether it may go on, and from which checkpoint."""

import dataclasses
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax

from experiments.config import MAY_CHANGE, RunConfig, find_problem, from_json
from experiments.errors import UserError
from experiments.initial import method_of, shapes_of
from jmtl.train import checkpoint, records
from jmtl.train.parallel import shell
from jmtl.train.state import TrainState


def begun(folder: Path) -> bool:
    """Whether a run was begun in a folder."""
    return (folder / "config.json").exists()


def saved_config(folder: Path) -> RunConfig:
    """The configuration of the run in a folder.

    Raises:
        UserError: there is no run, or its configuration cannot be read.
    """
    path = folder / "config.json"
    try:
        return from_json(json.loads(path.read_text()), folder)
    except FileNotFoundError:
        raise UserError(
            f"no run in {folder} (it has no config.json): name the folder of a run, "
            "or leave out --resume to start one"
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from None


def check_folder(config: RunConfig, folder: Path, resume: bool) -> None:
    """Refuse a folder that holds a run when one begins, or when another one goes on.

    Raises:
        UserError: naming the fields that differ, or what is in the way.
    """
    if resume:
        _refuse_differences(saved_config(folder), config, folder)
    elif begun(folder):
        raise UserError(
            f"{folder} already holds a run: pass --resume to continue it, or another --out"
        )
    elif (folder / "checkpoints").exists():
        raise UserError(
            f"{folder} holds checkpoints of a run without its config.json: name another --out"
        )


def continued(
    handle: checkpoint.Checkpoints,
    template: TrainState,
    config: RunConfig,
    folder: Path,
    note: Callable[[str], None],
) -> checkpoint.Restored | None:
    """The checkpoint to go on from, in the template's form; None where none was due before.

    Raises:
        UserError: the run is past its last step already.
    """
    every, there = config.steps_per_dispatch, checkpoint.steps(handle.directory)
    if there and there[-1] > config.steps:
        raise UserError(
            f"the run in {folder} is at step {there[-1]} already; --steps {config.steps} is behind"
        )

    def fits(step: int) -> bool:
        # A last step that no dispatch of a longer run ends on would change where dispatches lie.
        return step % every == 0 or step == config.steps

    if not any(map(fits, there)):
        note(f"no checkpoint on a multiple of {every} steps yet: starting from step 0")
        return None
    found = checkpoint.restore(handle, template, accept=fits)
    for line in found.skipped:
        note(line)
    return found


def restored(
    config: RunConfig, folder: Path, example: Mapping[str, Any], note: Callable[[str], None]
) -> checkpoint.Restored:
    """The newest usable checkpoint of a run, for its own configuration.

    Parameters that the run split over devices are split over as many here, if they are there.

    Raises:
        UserError: there is none.
    """
    problem = find_problem(config.problem)
    template = shapes_of(config, problem, method_of(config, problem), example)
    parts = config.model_parallel
    if 1 < parts <= jax.device_count():
        template = shell("jit", parts, parts).template(template)
    handle = checkpoint.open_checkpoints(folder / "checkpoints")
    try:
        found = checkpoint.restore(handle, template)
    except checkpoint.CheckpointError as error:
        raise UserError(str(error)) from error
    finally:
        checkpoint.close(handle)
    for line in found.skipped:
        note(line)
    return found


def how_to_go_on(folder: Path) -> str:
    """The end of the message on a run that an error stopped; nothing where none had begun."""
    if not begun(folder):
        return ""
    kept = checkpoint.steps(folder / "checkpoints")
    last = f"the last checkpoint is step {kept[-1]}" if kept else "there is no checkpoint yet"
    return f"; {last}: then continue with --resume"


def _refuse_differences(saved: RunConfig, given: RunConfig, folder: Path) -> None:
    """Refuse to continue a run under another configuration, naming the fields that differ."""
    old, new = dataclasses.asdict(saved), dataclasses.asdict(given)
    for field in MAY_CHANGE:
        old.pop(field), new.pop(field)
    if lines := records.differing(old, new):
        raise UserError(
            f"the run in {folder} has another configuration: {'; '.join(lines)}. "
            "Give the saved values, or another --out"
        )
