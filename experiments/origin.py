"""Where an encoder's first parameters come from, if not from the seed: a file of weights."""

import dataclasses
from pathlib import Path
from typing import Any

from experiments.config import RunConfig
from experiments.errors import UserError
from jmtl.nn.pretrained import from_torchvision, read_safetensors
from jmtl.train import checkpoint


def named(file: Path | None, saved: dict[str, Any]) -> dict[str, Any]:
    """The origin of an encoder as a configuration has it.

    Args:
        file: of torchvision's weights, as given on the command line.
        saved: the origin of the run that is continued, {} of another one.

    Returns:
        {} where nothing is said; what was saved, where the same is said again; else the path alone,
        to which `fill` adds the digest of what it finds.

    Raises:
        UserError: the file is not there.
    """
    said = {} if file is None else {"file": str(file)}
    if said.items() <= saved.items():
        return saved
    if file is not None and not file.is_file():
        raise UserError(f"--encoder-weights: no file {file}")
    return said


def fill(config: RunConfig, params: Any, model_state: Any) -> tuple[RunConfig, Any, Any]:
    """Parameters and running statistics with the encoder's from its origin.

    Args:
        config: of the run; its origin is not {}.
        params: before the first step.
        model_state: likewise.

    Returns:
        The configuration, whose origin now has the digest `sha256` of what was taken; parameters;
        running statistics.

    Raises:
        UserError: the file cannot be read or does not fit the encoder, or is not the one that the
            run began with.
    """
    where = config.origin["file"]
    try:
        arrays = read_safetensors(where)
    except (OSError, ValueError) as error:
        raise UserError(f"--encoder-weights: {error}") from error
    try:
        shared, state = from_torchvision(arrays, params["shared"], model_state["shared"])
    except ValueError as error:
        raise UserError(f"{where} does not fit the encoder {config.encoder}: {error}") from error
    origin = {**config.origin, "sha256": checkpoint.digest((shared, state))}
    if config.origin.get("sha256", origin["sha256"]) != origin["sha256"]:
        raise UserError(f"{where} is no longer what this run began with: give another --out")
    config = dataclasses.replace(config, origin=origin)
    return config, {**params, "shared": shared}, {**model_state, "shared": state}
