"""Where an encoder's first parameters come from, if not from the seed: a file, or another run."""

import dataclasses
from pathlib import Path
from typing import Any

from experiments.config import RunConfig
from experiments.errors import UserError
from jmtl.nn.pretrained import from_torchvision, read_safetensors
from jmtl.train import checkpoint, leaves

Tree = Any


def named(file: Path | None, folder: Path | None, saved: dict[str, Any]) -> dict[str, Any]:
    """The origin of an encoder as a configuration has it.

    Args:
        file: of torchvision's weights, as given on the command line.
        folder: of another run, likewise.
        saved: the origin of the run that is continued, {} of another one.

    Returns:
        {} where nothing is said; what was saved, where the same is said again; else {"file": path}
        or {"run": path}, to which `fill` adds what it finds.

    Raises:
        UserError: both are given, or what is given is not there.
    """
    if file is not None and folder is not None:
        raise UserError("an encoder begins with --encoder-weights or with --init-from, not both")
    said = {name: str(at) for name, at in (("file", file), ("run", folder)) if at is not None}
    if said.items() <= saved.items():
        return saved
    if file is not None and not file.is_file():
        raise UserError(f"--encoder-weights: no file {file}")
    if folder is not None and not (folder / "config.json").is_file():
        raise UserError(f"--init-from: no run in {folder} (it has no config.json)")
    return said


def fill(config: RunConfig, params: Tree, model_state: Tree) -> tuple[RunConfig, Tree, Tree]:
    """Parameters and running statistics with the encoder's from its origin.

    Args:
        config: of the run; its origin is not {}.
        params: before the first step.
        model_state: likewise.

    Returns:
        The configuration, whose origin now has the digest `sha256` of what was taken, and the
        `step` of a run; parameters; running statistics.

    Raises:
        UserError: what is there cannot be read or does not fit the encoder, or is not what the run
            began with.
    """
    shared, state = params["shared"], model_state["shared"]
    if "file" in config.origin:
        where, found = config.origin["file"], {}
        shared, state = _of_file(where, config.encoder, shared, state)
    else:
        where = config.origin["run"]
        step, shared, state = _of_run(Path(where), config.encoder, shared, state)
        found = {"step": step}
    origin = {**config.origin, **found, "sha256": checkpoint.digest((shared, state))}
    if config.origin.get("sha256", origin["sha256"]) != origin["sha256"]:
        raise UserError(f"{where} no longer holds what this run began with: give another --out")
    config = dataclasses.replace(config, origin=origin)
    return config, {**params, "shared": shared}, {**model_state, "shared": state}


def _of_file(where: str, encoder: str, shared: Tree, state: Tree) -> tuple[Tree, Tree]:
    try:
        arrays = read_safetensors(where)
    except (OSError, ValueError) as error:
        raise UserError(f"--encoder-weights: {error}") from error
    try:
        return from_torchvision(arrays, shared, state)
    except ValueError as error:
        raise UserError(f"{where} does not fit the encoder {encoder}: {error}") from error


def _of_run(folder: Path, encoder: str, shared: Tree, state: Tree) -> tuple[int, Tree, Tree]:
    """The newest checkpoint's step, and what it has of the encoder."""
    try:
        step, every = checkpoint.read(folder / "checkpoints")
    except checkpoint.CheckpointError as error:
        raise UserError(f"--init-from: {error}") from error
    wanted = {"params": {"shared": shared}, "model_state": {"shared": state}}
    parts = ("params/shared/", "model_state/shared/")
    saved = {path: leaf for path, leaf in every.items() if path.startswith(parts)}
    kinds = {path: (leaf.dtype.name, leaf.shape) for path, leaf in saved.items()}
    if differing := leaves.differing_leaves(kinds, leaves.describe(wanted)):
        raise UserError(
            f"the encoder of {folder}, step {step}, does not fit the encoder {encoder} of this "
            f"run: {differing}"
        )
    filled = leaves.unflatten(wanted, saved)
    return step, filled["params"]["shared"], filled["model_state"]["shared"]
