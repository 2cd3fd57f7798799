"""Checkpoints of a run: written in the background, verified when read, the last few kept.

One folder a step, each an Orbax checkpoint of two items. `state` holds the bytes of all leaves, in
the order of their paths, as one array; `record` names each leaf with its dtype and shape, and holds
the SHA-256 of the leaves and the caller's metadata. Orbax alone loads a flipped byte in silence, so
`SHA256SUMS` lists the folder's files (`sha256sum -c SHA256SUMS` reads it): they are verified before
Orbax sees them, and the leaves after.

With several processes the state is replicated: process 0 writes and reads, and hands what it read,
or the error, to the others. Every process must make the same calls in the same order.
"""

import errno
import hashlib
import json
import logging
import os
import re
import shutil
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from jaxtyping import PyTree

from jmtl.train import leaves as lv
from jmtl.train.leaves import digest

__all__ = [
    "CheckpointError",
    "Checkpoints",
    "NoCheckpoint",
    "Restored",
    "close",
    "digest",
    "open_checkpoints",
    "restore",
    "save",
    "steps",
    "wait",
]

_STEP = re.compile(r"(\d+)")
_UNFINISHED = re.compile(r"(\d+)\.saving.*")
_REMOVING = ".removing"
_SUMS = "SHA256SUMS"
_CHUNK = 2**28  # bytes; compressors take less than 2 GiB at once


class CheckpointError(Exception):
    """A checkpoint could not be written, or does not fit what it is read into."""


class NoCheckpoint(CheckpointError):
    """A folder holds no checkpoint that can be used."""


class Checkpoints(NamedTuple):
    """A folder of checkpoints: what `save`, `wait`, `close`, `steps` and `restore` act on."""

    directory: Path
    keep: int
    writer: ThreadPoolExecutor
    pending: deque[Future[None]]
    made: threading.Event


class Restored(NamedTuple):
    """What `restore` found.

    Attributes:
        step: the step that was saved.
        state: a tree like the template.
        metadata: the caller's, as JSON gives it back (tuples are lists).
        skipped: one line for every newer checkpoint passed over, newest first.
    """

    step: int
    state: PyTree
    metadata: dict[str, Any]
    skipped: tuple[str, ...]


def open_checkpoints(directory: str | os.PathLike[str], keep: int = 3) -> Checkpoints:
    """A handle on a folder of checkpoints. Nothing is written before the first `save`.

    Args:
        directory: the folder; made, with its parents, by the first `save`.
        keep: how many checkpoints stay, at least 1.

    Raises:
        ValueError: `keep` is not positive.
    """
    if keep < 1:
        raise ValueError(f"keep must be at least 1, got {keep}")
    # Orbax logs the traceback of each of its threads before it raises the error to the caller.
    logging.getLogger("absl").addFilter(_not_orbax_noise)
    writer = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
    return Checkpoints(Path(directory).absolute(), keep, writer, deque(), threading.Event())


def save(
    handle: Checkpoints, step: int, state: PyTree, metadata: dict[str, Any] | None = None
) -> None:
    """Copies a state to the host, then writes it in the background.

    Waits for the save before it, so at most one copy is held. When it returns, the state's buffers
    may be donated. A checkpoint of the same step is replaced once the new one is whole; later steps
    belong to a history that this one replaces, and are removed.

    Args:
        handle: from `open_checkpoints`.
        step: steps done, not negative.
        state: arrays, typed keys and numbers in any containers.
        metadata: anything JSON holds, without NaN.

    Raises:
        CheckpointError: the save before this one failed.
        ValueError: `step` is negative, `metadata` is not JSON, or an array is split over processes.
    """
    if step < 0:
        raise ValueError(f"step must not be negative, got {step}")
    try:
        metadata = json.loads(json.dumps(metadata or {}, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise ValueError(f"a checkpoint's metadata must be JSON: {error}") from error
    wait(handle)
    if _primary():
        flat = lv.flatten(state)
        handle.pending.append(handle.writer.submit(_write, handle, step, flat, metadata))


def wait(handle: Checkpoints) -> None:
    """Waits until what was saved is on disk.

    Raises:
        CheckpointError: it could not be written; the checkpoints before it are untouched.
    """
    failure = None
    while handle.pending:
        try:
            handle.pending[0].result()
        except CheckpointError as error:
            failure = error
        handle.pending.popleft()
    message = _from_primary(str(failure or "").encode()).decode()
    if message:
        raise CheckpointError(message) from failure


def close(handle: Checkpoints) -> None:
    """Waits as `wait` does, and ends the writer.

    Raises:
        CheckpointError: the last save could not be written.
    """
    try:
        wait(handle)
    finally:
        handle.writer.shutdown()


def steps(handle: Checkpoints) -> list[int]:
    """The finished checkpoints in the folder, ascending; they are verified only when read."""
    return sorted(step for step, _, finished in _listing(handle.directory) if finished)


def restore(
    handle: Checkpoints,
    template: PyTree,
    step: int | None = None,
    accept: Callable[[int], bool] = lambda step: True,
) -> Restored:
    """Reads the newest checkpoint that is whole.

    Args:
        handle: from `open_checkpoints`.
        template: the state's structure, shapes, dtypes and placement: a state itself, or one of
            `jax.ShapeDtypeStruct`s.
        step: this step alone, instead of the newest.
        accept: which steps may be taken.

    Returns:
        The state, bit for bit as saved, and what was passed over for it.

    Raises:
        NoCheckpoint: nothing usable is there; the message says what was found.
        CheckpointError: the newest whole checkpoint holds another state than the template's, or a
            save before this call failed.
    """
    wait(handle)
    data: dict[str, np.ndarray] = {}
    answer: dict[str, Any] = {}
    if _primary():
        try:
            answer, data = _find(handle.directory, template, step, accept)
        except CheckpointError as error:
            answer = {"error": str(error), "none": isinstance(error, NoCheckpoint)}
    answer = json.loads(_from_primary(json.dumps(answer).encode()))
    if "error" in answer:
        raise (NoCheckpoint if answer["none"] else CheckpointError)(answer["error"])
    if jax.process_count() > 1:
        data = _shared(data, template)
    state = lv.unflatten(template, data)
    return Restored(answer["step"], state, answer["metadata"], tuple(answer["skipped"]))


def _write(
    handle: Checkpoints, step: int, flat: dict[str, lv.Leaf], metadata: dict[str, Any]
) -> None:
    directory, staged = handle.directory, handle.directory / f"{step}.saving"
    try:
        if not handle.made.is_set():
            directory.mkdir(parents=True, exist_ok=True)
            handle.made.set()
        if not directory.is_dir():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        _clear_unfinished(directory)
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
        _remove(directory / str(step))
        staged.rename(directory / str(step))
        done = [(at, path) for at, path, finished in _listing(directory) if finished]
        later = [path for at, path in done if at > step]
        older = [path for at, path in done if at <= step][handle.keep :]
        for path in later + older:
            _remove(path)
    except Exception as error:
        _clear_unfinished(directory)
        last = max(steps(handle), default=None)
        raise CheckpointError(
            f"the checkpoint of step {step} could not be written to {directory}: {_cause(error)}; "
            + ("no earlier one is there" if last is None else f"the last good one is step {last}")
        ) from error


def _find(
    directory: Path, template: PyTree, only: int | None, accept: Callable[[int], bool]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    wanted = lv.describe(template)
    skipped: list[str] = []
    for step, path, finished in _listing(directory):
        if only is not None and step != only:
            continue
        if not finished:
            skipped.append(f"step {step}: unfinished, the run ended while it was being written")
        elif not accept(step):
            skipped.append(f"step {step}: not a step to continue from")
        else:
            try:
                if changed := _changed(path):
                    raise ValueError(f"{changed[0]} is not as {_SUMS} lists it")
                record = _read_record(path, step)
                saved = {
                    name: (kind, tuple(size)) for name, (kind, size) in record["leaves"].items()
                }
                differing = lv.differing_leaves(saved, wanted)
                flat = {} if differing else _read_leaves(path, saved, template)
                if not differing and lv.digest_of(flat) != record["leaves_sha256"]:
                    raise ValueError("the SHA-256 of its leaves is not the one recorded")
            except Exception as error:
                skipped.append(f"step {step}: damaged, {_cause(error)}")
                continue
            if differing:
                raise CheckpointError(f"{path} holds another state than this one: {differing}")
            found = {"step": step, "metadata": record["metadata"], "skipped": skipped}
            return found, {name: leaf.data for name, leaf in flat.items()}
    of = "" if only is None else f" of step {only}"
    raise NoCheckpoint(
        f"no usable checkpoint{of} in {directory}"
        + (f" ({'; '.join(skipped)})" if skipped else "")
        + ": name another folder, or start a new run"
    )


def _read_record(path: Path, step: int) -> dict[str, Any]:
    with _orbax() as orbax:
        args = ocp.args.Composite(record=ocp.args.JsonRestore())
        record = orbax.restore(path, args=args)["record"]
    if record["step"] != step:
        raise ValueError(f"it was saved as step {record['step']}")
    return record


def _read_leaves(
    path: Path, saved: dict[str, tuple[str, tuple[int, ...]]], template: PyTree
) -> dict[str, lv.Leaf]:
    blanks = lv.blanks(template)
    packed = np.empty(0, np.uint8)
    if any(blank.size for blank in blanks.values()):
        kinds = {"leaves": ocp.RestoreArgs(restore_type=np.ndarray)}
        args = ocp.args.Composite(state=ocp.args.PyTreeRestore(restore_args=kinds))
        with _orbax() as orbax:
            packed = orbax.restore(path, args=args)["state"]["leaves"]
    data = lv.unpack(packed, blanks)
    return {name: lv.Leaf(*saved[name], data[name]) for name in blanks}


def _orbax() -> ocp.Checkpointer:
    # Process 0 alone, so that Orbax's barriers never wait for, or hang, the others' collectives.
    alone = ocp.options.MultiprocessingOptions(primary_host=0, active_processes={0})
    handler = ocp.CompositeCheckpointHandler(
        composite_options=ocp.CompositeOptions(multiprocessing_options=alone),
        state=ocp.PyTreeCheckpointHandler(multiprocessing_options=alone),
        record=ocp.JsonCheckpointHandler(multiprocessing_options=alone),
    )
    return ocp.Checkpointer(handler, multiprocessing_options=alone)


def _listing(directory: Path) -> list[tuple[int, Path, bool]]:
    """Step, folder and whether it was finished, newest first."""
    found = []
    for path in directory.iterdir() if directory.is_dir() else ():
        for pattern, finished in ((_STEP, True), (_UNFINISHED, False)):
            if (match := pattern.fullmatch(path.name)) and path.is_dir():
                found.append((int(match[1]), path, finished))
    return sorted(found, reverse=True)


def _clear_unfinished(directory: Path) -> None:
    for _, path, finished in _listing(directory):
        if not finished:
            shutil.rmtree(path, ignore_errors=True)
    for path in directory.glob(f"*{_REMOVING}"):
        shutil.rmtree(path, ignore_errors=True)


def _remove(path: Path) -> None:
    # Renamed first: killed half way, it must not look like a checkpoint.
    if path.exists():
        shutil.rmtree(path.rename(path.with_name(path.name + _REMOVING)))


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


def _cause(error: BaseException) -> str:
    """One line: the system's own word for an error number, however deep it lies in the text."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = str(error)
    if number := re.search(r"os_error_code='?(\d+)", text):
        return os.strerror(int(number[1]))
    line = " ".join(text.split()) or type(error).__name__
    return line if len(line) <= 160 else line[:160] + "…"


def _not_orbax_noise(record: logging.LogRecord) -> bool:
    return record.levelno < logging.ERROR or "orbax" not in record.pathname


def _primary() -> bool:
    return jax.process_index() == 0


def _from_primary(data: bytes) -> bytes:
    """Process 0's bytes on every process. Bytes, since a sum over processes would lose -0.0."""
    if jax.process_count() == 1:
        return data
    size = int(multihost_utils.broadcast_one_to_all(np.int32(len(data))))
    buffer = np.zeros(size, np.uint8)
    if _primary():
        buffer[:] = np.frombuffer(data, np.uint8)
    return multihost_utils.broadcast_one_to_all(buffer).tobytes() if size else b""


def _shared(data: dict[str, np.ndarray], template: PyTree) -> dict[str, np.ndarray]:
    shared = {}
    for path, blank in sorted(lv.blanks(template).items()):
        own = np.ascontiguousarray(data[path]) if _primary() else blank
        shared[path] = np.frombuffer(_from_primary(own.tobytes()), blank.dtype).reshape(blank.shape)
    return shared
