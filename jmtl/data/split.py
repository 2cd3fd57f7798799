"""A prepared split on disk: read at random, a batch at once where its features allow."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from array_record.python.array_record_module import ArrayRecordReader
from tensorflow_datasets.core.data_sources.base import file_instructions

from jmtl.data.errors import DataDamaged
from jmtl.data.stored import Unexpected, columns_of, decode

_BUFFER = 2**15  # bytes; larger ones are read in vain, as rows are at random


class Split(Sequence[Mapping[str, Any]]):
    """The examples of a split as TFDS decodes them; `arrays` has those of some rows by feature.

    Files are opened when they are first read, and may be read by several threads.

    Attributes:
        dataset_info: TFDS's.
    """

    def __init__(self, dataset_info: Any, split: str) -> None:
        """Open nothing yet.

        Args:
            dataset_info: of a prepared data set, stored as array_record.
            split: a name or a slice in TFDS's notation.
        """
        self.dataset_info = dataset_info
        self._columns = columns_of(dataset_info.features)
        files = file_instructions(dataset_info, split)
        self._paths = [Path(file.filename) for file in files]
        self._skipped = np.array([file.skip for file in files])
        self._stops = np.cumsum([file.take for file in files])
        self._readers: dict[int, ArrayRecordReader] = {}
        self._kept: dict[str, np.ndarray] = {}
        self._have: np.ndarray | None = None  # [n] whether a row is among them; None to keep none

    def __len__(self) -> int:
        return int(self._stops[-1])

    def __getitem__(self, key: Any) -> Any:
        return self.__getitems__([key])[0]

    def __getitems__(self, keys: Sequence[int]) -> list[Mapping[str, Any]]:
        features = self.dataset_info.features
        return [features.deserialize_example_np(record) for record in self.records(keys)]

    def keep(self) -> None:
        """Keep what `arrays` reads from now on in memory: each example is decoded once."""
        self._have = np.zeros(len(self), bool)

    def arrays(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        """Some examples, by feature; texts are left out.

        Args:
            rows: `[B]` in [0, n), B >= 1.

        Returns:
            By feature `[B, ...]`, in the dtypes that JAX gives them.

        Raises:
            DataDamaged: a file is gone or is not as it was written.
        """
        if self._have is None:
            return self._decoded(rows)
        missing = np.unique(rows[~self._have[rows]])
        if missing.size:
            for name, values in self._decoded(missing).items():
                # One array, whichever of several threads makes it; memory is taken row by row.
                empty = np.empty((len(self), *values.shape[1:]), values.dtype)
                self._kept.setdefault(name, empty)[missing] = values
            self._have[missing] = True
        return {name: values[rows] for name, values in self._kept.items()}

    def _decoded(self, rows: np.ndarray) -> dict[str, np.ndarray]:
        records = self.records(rows.tolist())
        if self._columns:
            try:
                return _canonical(decode(records, self._columns))
            except Unexpected:
                pass  # TFDS's word is the last
        features = self.dataset_info.features
        examples = [features.deserialize_example_np(record) for record in records]
        return stacked(examples)

    def records(self, rows: Sequence[int]) -> list[bytes]:
        """The serialized examples of some rows.

        Raises:
            IndexError: a row outside [0, n).
            DataDamaged: a file is gone or is not as it was written.
        """
        at = np.asarray(rows, int)
        if at.size and not (at.min() >= 0 and at.max() < len(self)):
            raise IndexError(f"rows {at.min()} to {at.max()} of {len(self)} examples")
        files = np.searchsorted(self._stops, at, side="right")
        found = [b""] * len(at)
        for file in np.unique(files).tolist():
            chosen = np.flatnonzero(files == file)
            first = self._stops[file - 1] if file else 0
            inside = (at[chosen] - first + self._skipped[file]).tolist()
            for i, record in zip(chosen.tolist(), self._read(file, inside), strict=True):
                found[i] = record
        return found

    def _read(self, file: int, positions: list[int]) -> list[bytes]:
        path = self._paths[file]
        try:
            if file not in self._readers:  # two threads may both open it, and one reader stays
                self._readers[file] = ArrayRecordReader(
                    str(path), options="readahead_buffer_size:0", file_reader_buffer_size=_BUFFER
                )
            records = self._readers[file].read(positions)
        except (RuntimeError, ValueError, IndexError, OSError) as error:
            raise DataDamaged(_mend(path, error)) from error
        if len(records) != len(positions) or b"" in records:  # a file that was cut while it is open
            raise DataDamaged(_mend(path, "it ends too early"))
        return records


def stacked(examples: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Examples by feature `[B, ...]`, in the dtypes that JAX gives them; texts are left out."""
    return _canonical(
        {
            name: np.stack([example[name] for example in examples])
            for name, value in examples[0].items()
            if not isinstance(value, str | bytes)
        }
    )


def _canonical(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {
        name: values.astype(jax.dtypes.canonicalize_dtype(values.dtype), copy=False)
        for name, values in arrays.items()
    }


def _mend(path: Path, error: object) -> str:
    # array_record says the reason, then hashes and positions.
    why = " ".join(str(error).split()).split(";")[0].split(" (computed")[0]
    return (
        f"{path} cannot be read ({why}): put the file back, or remove {path.parent} to have the "
        "data set prepared again"
    )
