"""Checkpoints of a run: written in the background, verified when read, the last few kept.

With several processes each holds the whole state, on every device or in parts over its devices:
process 0 writes and reads, and hands what it read, or the error, to the others. Every process must
make the same calls in the same order.
"""

import contextlib
import errno
import json
import os
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import PyTree

from jmtl.train import folders
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
    "read",
    "restore",
    "save",
    "steps",
    "wait",
]


_PIECE = 2**24  # bytes that go to the other processes at once: every device holds them whole


class CheckpointError(Exception):
    """A checkpoint could not be written, or does not fit what it is read into."""


class NoCheckpoint(CheckpointError):
    """A folder holds no checkpoint that can be used."""


class Checkpoints(NamedTuple):
    """A folder of checkpoints and its writer: what `save`, `wait`, `close`, `restore` act on."""

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
        ValueError: `step` is negative, `metadata` is not JSON, or an array has parts that process 0
            does not hold.
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


def steps(directory: str | os.PathLike[str]) -> list[int]:
    """The finished checkpoints in a folder, ascending; they are verified only when read."""
    return sorted(step for step, _, finished in folders.listing(Path(directory)) if finished)


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
            `jax.ShapeDtypeStruct`s. An array that it splits over devices is put on each in its
            part; the whole is read by the host alone.
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
        except OSError as error:
            answer = {"error": f"{handle.directory}: {folders.cause(error)}", "none": True}
    answer = json.loads(_from_primary(json.dumps(answer).encode()))
    if "error" in answer:
        raise (NoCheckpoint if answer["none"] else CheckpointError)(answer["error"])
    if jax.process_count() > 1:
        data = _shared(data, template)
    state = lv.unflatten(template, data)
    return Restored(answer["step"], state, answer["metadata"], tuple(answer["skipped"]))


def read(directory: str | os.PathLike[str]) -> tuple[int, dict[str, np.ndarray]]:
    """The newest checkpoint that is whole, for what is no state like the one that was saved.

    Every process reads for itself.

    Args:
        directory: the folder of checkpoints; nobody saves there now.

    Returns:
        The step that was saved, and the leaves by their paths, as "params/shared/Dense_0/bias".

    Raises:
        NoCheckpoint: nothing usable is there; the message says what was found.
    """
    directory = Path(directory).absolute()
    try:
        found, leaves = _find(directory, None, None, lambda step: True)
    except OSError as error:
        raise NoCheckpoint(f"{directory}: {folders.cause(error)}") from error
    return found["step"], leaves


def _write(
    handle: Checkpoints, step: int, flat: dict[str, lv.Leaf], metadata: dict[str, Any]
) -> None:
    directory = handle.directory
    try:
        if not handle.made.is_set():
            directory.mkdir(parents=True, exist_ok=True)
            handle.made.set()
        if not directory.is_dir():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
        folders.clear_unfinished(directory)
        folders.write(directory, step, flat, metadata)
        done = [(at, path) for at, path, finished in folders.listing(directory) if finished]
        later = [path for at, path in done if at > step]
        older = [path for at, path in done if at <= step][handle.keep :]
        for path in later + older:
            folders.remove(path)
    except Exception as error:
        last = None
        with contextlib.suppress(OSError):
            folders.clear_unfinished(directory)
            last = max(steps(directory), default=None)
        raise CheckpointError(
            f"the checkpoint of step {step} could not be written to {directory}: "
            f"{folders.cause(error)}; "
            + ("no earlier one is there" if last is None else f"the last good one is step {last}")
        ) from error


def _find(
    directory: Path, template: PyTree, only: int | None, accept: Callable[[int], bool]
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    wanted = None if template is None else lv.describe(template)
    skipped: list[str] = []
    for step, path, finished in folders.listing(directory):
        if only is not None and step != only:
            continue
        if not finished:
            skipped.append(f"step {step}: unfinished, the run ended while it was being written")
        elif not accept(step):
            skipped.append(f"step {step}: not a step to continue from")
        else:
            try:
                record = folders.read_record(path, step)
                saved = {
                    name: (kind, tuple(size)) for name, (kind, size) in record["leaves"].items()
                }
                differing = lv.differing_leaves(saved, saved if wanted is None else wanted)
                flat = {} if differing else folders.read_leaves(path, saved)
                if not differing and lv.digest_of(flat) != record["leaves_sha256"]:
                    raise ValueError("the SHA-256 of its leaves is not the one recorded")
            except Exception as error:
                skipped.append(f"step {step}: damaged, {folders.cause(error)}")
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


def _primary() -> bool:
    return jax.process_index() == 0


def _from_primary(data: bytes) -> bytes:
    """Process 0's bytes on every process. Bytes, since a sum over processes would lose -0.0."""
    if jax.process_count() == 1:
        return data
    shared = multihost_utils.broadcast_one_to_all
    length = np.frombuffer(len(data).to_bytes(8, "little"), np.uint8)
    buffer = np.zeros(int.from_bytes(shared(length).tobytes(), "little"), np.uint8)
    if _primary():
        buffer[:] = np.frombuffer(data, np.uint8)
    for start in range(0, buffer.size, _PIECE):
        buffer[start : start + _PIECE] = shared(buffer[start : start + _PIECE])
    return buffer.tobytes()


def _shared(data: dict[str, np.ndarray], template: PyTree) -> dict[str, np.ndarray]:
    shared = {}
    for path, blank in sorted(lv.blanks(lv.describe(template)).items()):
        own = np.ascontiguousarray(data[path]) if _primary() else blank
        shared[path] = np.frombuffer(_from_primary(own.tobytes()), blank.dtype).reshape(blank.shape)
    return shared
