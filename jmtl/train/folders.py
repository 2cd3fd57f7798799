"""One checkpoint as a folder: its files, written whole or not at all, and verified.

Each is an Orbax checkpoint of two items. `state` holds the bytes of all leaves, in
the order of their paths, as one array; `record` names each leaf with its dtype and shape, and holds
the SHA-256 of the leaves and the caller's metadata. Orbax alone loads a flipped byte in silence, so
`SHA256SUMS` lists the folder's files (`sha256sum -c SHA256SUMS` reads it): they are verified before
Orbax sees them, and the leaves after.
"""

import hashlib
import logging
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import orbax.checkpoint as ocp

from jmtl.train import leaves as lv

_STEP = re.compile(r"(\d+)")
_UNFINISHED = re.compile(r"(\d+)\.saving.*")
_REMOVING = ".removing"
_SUMS = "SHA256SUMS"
_CHUNK = 2**28  # bytes; compressors take less than 2 GiB at once


def write(
    directory: Path, step: int, flat: Mapping[str, lv.Leaf], metadata: dict[str, Any]
) -> None:
    """Writes the checkpoint of a step beside its place, then moves it there."""
    staged = directory / f"{step}.saving"
    record: dict[str, Any] = {
        "step": step,
        "leaves": {path: [leaf.dtype, list(leaf.shape)] for path, leaf in flat.items()},
        "leaves_sha256": lv.digest_of(flat),
        "metadata": metadata,
    }
    items = {"record": ocp.args.JsonSave(record)}
    # One array, since Orbax leaves writes of others running when one fails, and they print
    # tracebacks once the event loop is gone. It refuses arrays of size zero.
    packed = lv.pack(flat)
    if packed.size:
        chunks = {"leaves": ocp.SaveArgs(chunk_byte_size=_CHUNK)}
        items["state"] = ocp.args.PyTreeSave({"leaves": packed}, save_args=chunks)
    with _orbax() as orbax:
        orbax.save(staged, args=ocp.args.Composite(**items))
    (staged / _SUMS).write_text(_sums(staged))
    remove(directory / str(step))
    staged.rename(directory / str(step))


def read_record(path: Path, step: int) -> dict[str, Any]:
    """What a checkpoint says of itself, its files verified.

    Raises:
        ValueError: a file is not as it was written, or the folder is another step's.
    """
    if changed := _changed(path):
        raise ValueError(f"{changed[0]} is not as {_SUMS} lists it")
    with _orbax() as orbax:
        args = ocp.args.Composite(record=ocp.args.JsonRestore())
        record = orbax.restore(path, args=args)["record"]
    if record["step"] != step:
        raise ValueError(f"it was saved as step {record['step']}")
    return record


def read_leaves(path: Path, saved: dict[str, tuple[str, tuple[int, ...]]]) -> dict[str, lv.Leaf]:
    """The leaves of a checkpoint, given their dtypes and shapes."""
    blanks = lv.blanks(saved)
    packed = np.empty(0, np.uint8)
    if any(blank.size for blank in blanks.values()):
        kinds = {"leaves": ocp.RestoreArgs(restore_type=np.ndarray)}
        args = ocp.args.Composite(state=ocp.args.PyTreeRestore(restore_args=kinds))
        with _orbax() as orbax:
            packed = orbax.restore(path, args=args)["state"]["leaves"]
    data = lv.unpack(packed, blanks)
    return {name: lv.Leaf(*saved[name], data[name]) for name in blanks}


def listing(directory: Path) -> list[tuple[int, Path, bool]]:
    """Step, folder and whether it was finished, newest first."""
    found = []
    for path in directory.iterdir() if directory.is_dir() else ():
        for pattern, finished in ((_STEP, True), (_UNFINISHED, False)):
            if (match := pattern.fullmatch(path.name)) and path.is_dir():
                found.append((int(match[1]), path, finished))
    return sorted(found, reverse=True)


def clear_unfinished(directory: Path) -> None:
    """Removes what killed processes left."""
    for _, path, finished in listing(directory):
        if not finished:
            shutil.rmtree(path, ignore_errors=True)
    for path in directory.glob(f"*{_REMOVING}"):
        shutil.rmtree(path, ignore_errors=True)


def remove(path: Path) -> None:
    """Removes a checkpoint, if it is there."""
    # Renamed first: killed half way, it must not look like a checkpoint.
    if path.exists():
        shutil.rmtree(path.rename(path.with_name(path.name + _REMOVING)))


def cause(error: BaseException) -> str:
    """One line: the system's own word for an error number, however deep it lies in the text."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = str(error)
    if number := re.search(r"os_error_code='?(\d+)", text):
        return os.strerror(int(number[1]))
    line = " ".join(text.split()) or type(error).__name__
    return line if len(line) <= 160 else line[:160] + "…"


def _not_orbax_noise(record: logging.LogRecord) -> bool:
    """A filter: Orbax's threads log tracebacks of errors that reach the caller anyway."""
    return record.levelno < logging.ERROR or "orbax" not in record.pathname


def _orbax() -> ocp.Checkpointer:
    # Orbax logs the traceback of each of its threads before it raises the error to the caller.
    logging.getLogger("absl").addFilter(_not_orbax_noise)
    # Process 0 alone, so that Orbax's barriers never wait for, or hang, the others' collectives.
    alone = ocp.options.MultiprocessingOptions(primary_host=0, active_processes={0})
    handler = ocp.CompositeCheckpointHandler(
        composite_options=ocp.CompositeOptions(multiprocessing_options=alone),
        state=ocp.PyTreeCheckpointHandler(multiprocessing_options=alone),
        record=ocp.JsonCheckpointHandler(multiprocessing_options=alone),
    )
    return ocp.Checkpointer(handler, multiprocessing_options=alone)


def _sums(path: Path) -> str:
    """The SHA-256 of every file below a folder, as `sha256sum` prints them."""
    lines = []
    for file in sorted(path.rglob("*")):
        if file.is_file() and file.name != _SUMS:
            with file.open("rb") as stream:
                sum_of_file = hashlib.file_digest(stream, "sha256").hexdigest()
            lines.append(f"{sum_of_file}  {file.relative_to(path).as_posix()}\n")
    return "".join(lines)


def _changed(path: Path) -> list[str]:
    """The files that are not as the folder's sums list them."""
    sums = path / _SUMS
    if not sums.is_file():
        return [_SUMS]
    listed = sums.read_text(errors="replace")
    differing = set(listed.splitlines()) ^ set(_sums(path).splitlines())
    names = sorted({line[66:] for line in differing})
    return names or ([] if listed == _sums(path) else [_SUMS])
