"""What a run leaves beside its checkpoints: JSON files and a line a logged step; dashboards."""

import contextlib
import importlib
import importlib.metadata
import json
import math
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

_PACKAGES = ("jmtl", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")
_TENSORBOARD = (
    "tensorboardX.record_writer",
    "tensorboardX.proto.event_pb2",
    "tensorboardX.summary",
)
_FLUSH_EVERY = 10.0  # seconds
_PROBE = 2**16  # bytes; more than a file system keeps inside an inode


class OutputError(Exception):
    """A run's folder, or a writer asked for, cannot be used."""


class Writer(NamedTuple):
    """Where the records of a run go.

    Attributes:
        write: takes a record: `step`, and numbers or nested dicts of numbers.
        close: ends the writer; nothing may be written after.
    """

    write: Callable[[Mapping[str, Any]], None]
    close: Callable[[], None]


def null() -> Writer:
    """A writer that keeps nothing."""
    return Writer(lambda record: None, lambda: None)


def combine(*writers: Writer) -> Writer:
    """One writer over several; all are closed even where one fails."""

    def write(record: Mapping[str, Any]) -> None:
        for writer in writers:
            writer.write(record)

    def close() -> None:
        with contextlib.ExitStack() as stack:
            for writer in reversed(writers):
                stack.callback(writer.close)

    return Writer(write, close)


def jsonl(
    path: str | os.PathLike[str], resume_step: int | None = None, primary: bool = True
) -> Writer:
    """One line of strict JSON a record; NaN and infinities are written as null.

    Args:
        path: the file. A new run replaces it.
        resume_step: the step a run continues from: the lines up to it stay, those after it and
            lines that are torn are dropped.
        primary: whether this process writes.

    Raises:
        OutputError: the file cannot be written; while it is written to, also where it was removed.
    """
    if not primary:
        return null()
    path = Path(path)
    kept = []
    with _output_errors(path):
        if resume_step is not None and path.exists():
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                step = _step_of(line)
                if step is not None and step <= resume_step:
                    kept.append(line + "\n")
        _replace(path, "".join(kept))
        file = path.open("a", encoding="utf-8")

    def write(record: Mapping[str, Any]) -> None:
        with _output_errors(path):
            file.write(json.dumps(plain(record), allow_nan=False) + "\n")
            file.flush()
            path.stat()  # an open file takes writes even where it has been removed

    def close() -> None:
        with _output_errors(path):
            file.close()

    return Writer(write, close)


def tensorboard(directory: str | os.PathLike[str], primary: bool = True) -> Writer:
    """TensorBoard events: a nested `{"losses": {"left": x}}` is the scalar `losses/left`.

    Raises:
        OutputError: the extra is not installed, or the folder cannot be written.
    """
    if not primary:
        return null()
    # Its SummaryWriter writes in a thread, which a full disk ends, and then waits for it forever.
    _extra("tensorboardX", "tensorboard")
    files, protos, summaries = map(importlib.import_module, _TENSORBOARD)
    directory = Path(directory)
    with _output_errors(directory):
        directory.mkdir(parents=True, exist_ok=True)
        name = f"events.out.tfevents.{int(time.time())}.{platform.node()}"
        file = files.RecordWriter(str(directory / name))
        first = protos.Event(wall_time=time.time(), file_version="brain.Event:2")
        file.write(first.SerializeToString())
    due = time.monotonic() + _FLUSH_EVERY

    def write(record: Mapping[str, Any]) -> None:
        nonlocal due
        with _output_errors(directory):
            for name, value in _scalars(record).items():
                event = protos.Event(wall_time=time.time(), step=int(record["step"]))
                event.summary.CopyFrom(summaries.scalar(name, value))
                file.write(event.SerializeToString())
            if time.monotonic() >= due:
                file.flush()  # through to the disk, hence not for every record
                due = time.monotonic() + _FLUSH_EVERY

    def close() -> None:
        with _output_errors(directory):
            file.close()

    return Writer(write, close)


def wandb(
    project: str,
    name: str | None = None,
    config: Mapping[str, Any] | None = None,
    directory: str | os.PathLike[str] | None = None,
    primary: bool = True,
) -> Writer:
    """A run on Weights & Biases, with the scalars named as in `tensorboard`.

    Args:
        project: its project.
        name: the run's name; theirs if none is given.
        config: what to show as the run's configuration.
        directory: where its local files go.
        primary: whether this process writes.

    Raises:
        OutputError: the extra is not installed.
    """
    if not primary:
        return null()
    module = _extra("wandb", "wandb")
    run = module.init(
        project=project,
        name=name,
        config=plain(config or {}),
        dir=None if directory is None else str(directory),
    )
    return Writer(
        lambda record: run.log(_scalars(record), step=int(record["step"])), lambda: run.finish()
    )


def write_json(path: str | os.PathLike[str], content: Any, primary: bool = True) -> None:
    """Writes a JSON file whole or not at all; NaN and infinities are written as null.

    Args:
        path: the file.
        content: dicts, lists, NamedTuples, strings, numbers and arrays.
        primary: whether this process writes.

    Raises:
        OutputError: the file cannot be written; one that was there is untouched.
    """
    if primary:
        with _output_errors(Path(path)):
            _replace(Path(path), json.dumps(plain(content), indent=2, allow_nan=False) + "\n")


def plain(value: Any) -> Any:
    """A value as strict JSON holds it: arrays as lists, paths as strings, not-finite as None."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if hasattr(value, "_asdict"):
        value = value._asdict()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def differing(saved: Mapping[str, Any], given: Mapping[str, Any]) -> list[str]:
    """The fields in which two configurations differ, one line each, in order of name.

    Args:
        saved: the one on disk; tuples and lists are the same here, as in JSON.
        given: the one asked for.

    Returns:
        Lines like `optimizer.learning_rate: saved 0.001, given 0.01`; empty if they agree.
    """
    one, other = dict(_fields(plain(saved))), dict(_fields(plain(given)))
    return [
        f"{name}: saved {_spell(one, name)}, given {_spell(other, name)}"
        for name in sorted(one.keys() | other.keys())
        if name not in one
        or name not in other
        or one[name] != other[name]
        or isinstance(one[name], bool) != isinstance(other[name], bool)
    ]


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that decide a run's numbers."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def check_writable(directory: str | os.PathLike[str], primary: bool = True) -> None:
    """Makes a folder and proves that it takes a file, before anything is trained for it.

    Args:
        directory: the folder; its parents are made too. Where the proof fails, what was made for
            it is removed.
        primary: whether this process writes.

    Raises:
        OutputError: a file is in the way, it is read-only or not permitted, or the disk is full.
    """
    if not primary:
        return
    directory = Path(directory).absolute()
    probe = directory / f".probe-{os.getpid()}"
    made: list[Path] = []
    with _output_errors(directory):
        try:
            made = [path for path in (directory, *directory.parents) if not path.exists()]
            directory.mkdir(parents=True, exist_ok=True)
            _write_through(probe, "0" * _PROBE)
            probe.unlink()
        except OSError:
            for path, remove in [(probe, Path.unlink), *((path, Path.rmdir) for path in made)]:
                with contextlib.suppress(OSError):
                    remove(path)
            raise


@contextlib.contextmanager
def _output_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OutputError(
            f"cannot write to {path}: {error.strerror or error}; make room or name another folder"
        ) from error


def _replace(path: Path, text: str) -> None:
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        _write_through(beside, text)
        beside.replace(path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise


def _write_through(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _step_of(line: str) -> int | None:
    try:
        step = json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return None
    return step if isinstance(step, int) else None


def _extra(module: str, extra: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise OutputError(f"{module} is not installed; run: pip install 'jmtl[{extra}]'") from error


def _scalars(record: Mapping[str, Any]) -> dict[str, float]:
    fields = _fields(plain(record), separator="/")
    return {
        name: float(value)
        for name, value in fields
        if name != "step" and isinstance(value, bool | int | float)
    }


def _fields(value: Any, path: str = "", separator: str = ".") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict) and (value or not path):
        for key, item in value.items():
            yield from _fields(item, f"{path}{separator}{key}" if path else key, separator)
    else:
        yield path, value


def _spell(fields: dict[str, Any], name: str) -> str:
    return json.dumps(fields[name], ensure_ascii=False) if name in fields else "nothing"
