"""Data sets on disk: prepared once by TFDS, read at random.

A data set lies in `DATA_DIR/NAME/VERSION`. Downloads lie in `DATA_DIR/downloads`; files that were
fetched by hand are looked for in `DATA_DIR/downloads/manual/NAME`.
"""

import contextlib
import fcntl
import importlib
import io
import logging
import math
import os
import shutil
import urllib.error
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol
from unittest import mock

import jax
import numpy as np
import requests
import tensorflow_datasets as tfds
from absl import logging as absl_logging
from tensorflow_datasets.core.download import checksums, download_manager, downloader
from tensorflow_datasets.core.utils import tqdm_utils

from jmtl.data.errors import DataUnavailable
from jmtl.data.several import by_source, several
from jmtl.data.split import Split, stacked
from jmtl.data.tfds_compat import without_tensorflow
from jmtl.methods import nearest

BUILDERS = {
    "celeb_a64": "CelebA64",
    "cityscapes": "Cityscapes",
    "digit_attributes": "DigitAttributes",
    "molecules": "Molecules",
    "multi_digits": "MultiDigits",
    "multi_mnist": "MultiMnist",
    "norb": "Norb",
    "nyuv2": "Nyuv2",
    "pets": "Pets",
    "scenes": "Scenes",
    "smart_home": "SmartHome",
    "spoken_digit": "SpokenDigit",
    "tabular": "Tabular",
}
"""This package's own data sets: module and class. A configuration follows a slash: `scenes/96`."""

EXTRAS = {"h5py": "hdf5"}
"""Of modules that some builders of TFDS read with: the extra of this package that installs it."""

_CHUNK = 4096
_RETRIES = 3  # TFDS's 10 keep a machine without a network waiting for minutes


class Source(Protocol):
    """What is read from: TFDS's data source, or any list of examples with batch reading."""

    def __len__(self) -> int: ...

    def __getitems__(self, keys: Sequence[int]) -> Sequence[Mapping[str, Any]]: ...


def prepare(
    name_or_class: str | type[tfds.core.DatasetBuilder],
    data_dir: str | os.PathLike[str],
    verbose: bool = False,
) -> tfds.core.DatasetBuilder:
    """Prepares a data set unless it is there, and returns its builder.

    Processes that prepare the same data set wait for one another. What a killed preparation left
    is removed by the next.

    Args:
        name_or_class: a name in `BUILDERS`, any name that TFDS knows, or a builder class.
        data_dir: the folder of all data sets.
        verbose: whether TFDS may print and show progress.

    Raises:
        DataUnavailable: if files cannot be downloaded, or have a wrong checksum. The message says
            which, and where to put them.
        ValueError: if no data set has this name.
    """
    root = Path(data_dir).expanduser()
    with contextlib.nullcontext() if verbose else _quiet():
        builder = _builder(name_or_class, root)
        if builder.data_path.exists():
            return builder
        parent = Path(builder.data_path).parent
        parent.mkdir(parents=True, exist_ok=True)
        with _locked(root / f".{builder.name}.lock"):
            # Another process may have finished it meanwhile; only a new builder reads its records.
            builder = _builder(name_or_class, root)
            if not builder.data_path.exists():
                extracted = root / "downloads" / "extracted" / builder.name
                # Only under the lock, as what a live preparation writes looks the same.
                _remove(*parent.glob("incomplete*"), *extracted.glob("incomplete*"))
                _remove(*(root / "downloads" / builder.name).glob("*.tmp.*"))
                _download_and_prepare(builder, root, extracted)
    return builder


def load(builder: tfds.core.DatasetBuilder, split: str) -> Source:
    """Opens a split for reading at random.

    Args:
        builder: from `prepare`.
        split: a name or a slice in TFDS's notation, such as `train[:10%]`.

    Raises:
        ValueError: if the data set has no such split.
    """
    if split.split("[")[0] not in builder.info.splits:
        raise ValueError(
            f"{builder.name} has no split {split!r}; it has {', '.join(builder.info.splits)}"
        )
    # One filter, however often it is added.
    absl_logging.get_absl_logger().addFilter(_not_about_opencv)
    builder.as_data_source(split)  # refuses what is not stored for reading at random
    return Split(builder.info, split)


def as_arrays(source: Any) -> dict[str, Any]:
    """Reads a whole split into memory.

    Args:
        source: from `load`, or several by name; its features have fixed shapes.

    Returns:
        By feature `[n, ...]`, in the source's order and in the dtypes that JAX gives them: 64-bit
        numbers become 32-bit ones, unless JAX's 64-bit mode is on. A feature that is one text an
        example, as TFDS's `id`, is left out. Of several, these by name.

    Raises:
        ValueError: if the source is empty.
    """
    return by_source(lambda name, part: _as_arrays(part), source)


def _as_arrays(source: Source | Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    if isinstance(source, Mapping):
        return dict(source)
    n = len(source)
    if n == 0:
        raise ValueError("the split has no examples; choose another split")
    arrays: dict[str, np.ndarray] = {}
    for start in range(0, n, _CHUNK):
        part = _read(source, np.arange(start, min(start + _CHUNK, n)))
        for name, values in part.items():
            if start == 0:
                arrays[name] = np.empty((n, *values.shape[1:]), values.dtype)
            arrays[name][start : start + len(values)] = values
    return arrays


def read(source: Any, rows: Any) -> dict[str, Any]:
    """Reads some examples.

    Args:
        source: from `load`, or arrays as `as_arrays` gives them; or several of these by name.
        rows: `[B]` integers in [0, n); of several by name.

    Returns:
        By feature `[B, ...]`, dtypes as in `as_arrays`. Of several, these by name.
    """
    return by_source(lambda name, part, rows: _read(part, rows), source, rows)


def lengths(source: Any) -> Any:
    """The number of examples of a split, or of several by name."""
    if several(source):
        return {name: lengths(part) for name, part in source.items()}
    if not isinstance(source, Mapping):
        return len(source)
    found = {name: len(values) for name, values in source.items()}
    if len(set(found.values())) != 1:
        raise ValueError(f"arrays have lengths {found}; expected one length")
    return next(iter(found.values()))


def keep(source: Any, most: int) -> bool:
    """Keeps what is read of a split from now on in memory, if the whole split is small enough.

    Args:
        source: from `load`, or several by name.
        most: bytes.

    Returns:
        Whether it does: not where the arrays would take more, or their sizes are not known.
    """
    parts = list(source.values()) if several(source) else [source]
    try:
        if not all(isinstance(part, Split) for part in parts) or nbytes(source) > most:
            return False
    except ValueError:
        return False
    for part in parts:
        part.keep()
    return True


def _read(source: Source | Mapping[str, np.ndarray], rows: np.ndarray) -> dict[str, np.ndarray]:
    if isinstance(source, Mapping):
        return {name: values[rows] for name, values in source.items()}
    if isinstance(source, Split):
        return source.arrays(rows)
    return stacked(source.__getitems__(rows.tolist()))


def nbytes(source: Any) -> int:
    """The bytes of `as_arrays(source)`, from the features' shapes, without reading.

    Raises:
        ValueError: if a feature has no fixed shape.
    """
    if several(source):
        return sum(map(nbytes, source.values()))
    total = 0
    for name, feature in source.dataset_info.features.items():
        if isinstance(feature, tfds.features.Text):
            continue
        info = feature.get_tensor_info()
        if None in info.shape or info.np_dtype == np.object_:
            raise ValueError(f"feature {name!r} has no fixed size; stream this data set")
        total += math.prod(info.shape) * jax.dtypes.canonicalize_dtype(info.np_dtype).itemsize
    return total * len(source)


def _builder(name: str | type, root: Path) -> tfds.core.DatasetBuilder:
    if not isinstance(name, str):
        return name(data_dir=root, file_format="array_record")
    own, _, config = name.partition("/")
    if own in BUILDERS:
        made = getattr(importlib.import_module(f"jmtl.data.{own}"), BUILDERS[own])
        known = [each.name for each in made.BUILDER_CONFIGS]
        try:
            return made(data_dir=root, file_format="array_record", config=config or None)
        except ValueError as error:
            if config and "BuilderConfig" in str(error):  # TFDS's own words, of many lines
                raise ValueError(f"{own} has no {config!r}; {nearest(config, known)}") from None
            raise
    try:
        return tfds.builder(name, data_dir=root, file_format="array_record")
    except tfds.core.DatasetNotFoundError:
        raise ValueError(
            f"no data set is named {name!r}; expected {', '.join(BUILDERS)} or a name of TFDS"
        ) from None


def _download_and_prepare(builder: tfds.core.DatasetBuilder, root: Path, extracted: Path) -> None:
    manual = root / "downloads" / "manual" / builder.name
    config = tfds.download.DownloadConfig(
        manual_dir=manual,
        # Files of one name (mnist's and fashion_mnist's) must not stand for one another.
        extract_dir=extracted,
        try_download_gcs=False,
    )
    try:
        with (
            without_tensorflow(type(builder)),
            mock.patch.object(downloader, "MAX_RETRIES", _RETRIES),
        ):
            builder.download_and_prepare(download_dir=root / "downloads", download_config=config)
    except (requests.RequestException, urllib.error.URLError, tfds.download.DownloadError) as error:
        raise DataUnavailable(_what_to_download(builder, manual, error)) from error
    except download_manager.NonMatchingChecksumError as error:
        raise DataUnavailable(_what_is_damaged(builder, manual)) from error
    except ImportError as error:
        module = getattr(error.__cause__, "name", None) or error.name  # TFDS says more, nameless
        if module == "bs4":  # reads Google Drive's page that asks whether one is sure
            raise DataUnavailable(_what_to_download(builder, manual, error)) from error
        extra = f", or jmtl's extra {EXTRAS[module]}" if module in EXTRAS else ""
        raise DataUnavailable(
            f"{builder.name} is read with {module}, which is not installed: "
            f"pip install {module}{extra}"
        ) from error
    except ValueError as error:
        if "confirmation link for GDrive" not in str(error):
            raise
        raise DataUnavailable(_what_to_download(builder, manual, error)) from error


def _what_to_download(builder: Any, manual: Path, error: Exception) -> str:
    missing = {
        url: info.filename or url.rpartition("/")[2]
        for url, info in (builder.url_infos or {}).items()
        if not (info.filename and (manual / info.filename).exists())
    }
    names, places = [], set()
    for url, name in missing.items():
        folder, _, tail = url.rpartition("/")
        if "?" in tail:  # an address of Google Drive says neither a file's name nor a folder
            names.append(name)
            places.add(builder.info.homepage)
        else:
            names.append(name if name == tail else f"{tail} as {name}")
            places.add(f"{folder}/")
    return (
        f"{builder.name} cannot be downloaded here ({type(error).__name__}): download "
        f"{', '.join(names) or 'its files'} from {', '.join(sorted(places)) or 'its homepage'} "
        f"into {manual} and run again"
    )


def _what_is_damaged(builder: Any, manual: Path) -> str:
    damaged = [
        info.filename
        for info in (builder.url_infos or {}).values()
        if info.filename
        and (manual / info.filename).exists()
        and checksums.compute_url_info(manual / info.filename) != info
    ]
    if not damaged:
        return (
            f"a download of {builder.name} has a wrong checksum: run again to repeat it, or put "
            f"its files into {manual}"
        )
    return (
        f"{builder.name}: {', '.join(damaged)} in {manual} has a wrong checksum: download it again"
    )


def _remove(*paths: Path) -> None:
    for path in paths:
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink()


def _not_about_opencv(record: logging.LogRecord) -> bool:
    """Whether TFDS has more to say than that it decodes pictures by Pillow."""
    return not str(record.msg).startswith("OpenCV is not installed")


def _not_about_retries(record: logging.LogRecord) -> bool:
    """Whether a connection has more to say than that it tries again."""
    return not str(record.msg).startswith("Retrying")


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Holds an exclusive lock on a file; the system lets it go when the process ends."""
    with open(path, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keeps progress bars, prints and warnings of TFDS and its downloads off the terminal."""
    connections = logging.getLogger("urllib3.connectionpool")
    bars, verbosity, level = tqdm_utils._active, absl_logging.get_verbosity(), connections.level
    tqdm_utils.display_progress_bar(False)
    absl_logging.set_verbosity(absl_logging.ERROR)
    connections.setLevel(logging.ERROR)
    # The first download that fails ends a preparation, and the others go on in their threads.
    connections.addFilter(_not_about_retries)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        tqdm_utils.display_progress_bar(bars)
        absl_logging.set_verbosity(verbosity)
        connections.setLevel(level)
