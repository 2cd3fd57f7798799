"""Batches decoded at once from the bytes that TFDS stores, not example by example.

TFDS stores an example as a protocol buffer, `tf.train.Example`: by the name of a feature, a list of
bytes, of floats or of integers. Here the records of a batch are laid end to end, and each field is
found and read in all of them by one step of NumPy. A field is a tag, a size N and N bytes:

    example   0a N features
    features  0a N entry, for each
    entry     0a N name, 12 N list
    list      0a N bytes, or 12 N floats, or 1a N integers
    bytes …   0a N values: as they are, as float32, as varints

References:
    https://protobuf.dev/programming-guides/encoding
"""

import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Int, Shaped, UInt8
from tensorflow_datasets.core.features.tensor_feature import Encoding

_ENTRY, _NAME, _LIST, _VALUES = 0x0A, 0x0A, 0x12, 0x0A
_BYTES, _FLOATS, _INTEGERS = 0x0A, 0x12, 0x1A
_PLAIN = (tfds.features.Tensor, tfds.features.Scalar, tfds.features.ClassLabel)


class Column(NamedTuple):
    """How a feature is stored.

    Attributes:
        kind: the tag of its list.
        shape: of an example's array.
        stored: the dtype of the bytes; int64 for integers.
        dtype: of the array that TFDS gives.
        compressed: whether the bytes are zlib's.
    """

    kind: int
    shape: tuple[int, ...]
    stored: np.dtype
    dtype: np.dtype
    compressed: bool = False


class Unexpected(ValueError):
    """Records of another form than the columns say."""


def columns_of(features: Any) -> dict[str, Column] | None:
    """The columns of a data set, None unless all of its features have fixed shapes and are plain.

    Args:
        features: the data set's. One that is a text is left out, as arrays leave it out.
    """
    if type(features) is not tfds.features.FeaturesDict:
        return None
    found = {
        name: _column(feature)
        for name, feature in features.items()
        if type(feature) is not tfds.features.Text
    }
    known = {name: column for name, column in found.items() if column is not None}
    return known if known and len(known) == len(found) else None


def _column(feature: Any) -> Column | None:
    info = feature.get_tensor_info() if type(feature) in _PLAIN else None
    if info is None or info.optional or None in info.shape or 0 in info.shape:
        return None
    shape, dtype = tuple(info.shape), np.dtype(info.np_dtype)
    if dtype.kind not in "biuf" or dtype == np.uint64:
        return None
    if feature._encoding != Encoding.NONE:
        return Column(_BYTES, shape, dtype, dtype, feature._encoding == Encoding.ZLIB)
    serialized = feature.get_serialized_info()
    if (tuple(serialized.shape), np.dtype(serialized.np_dtype)) != (shape, dtype):
        return None
    floats = dtype.kind == "f"
    stored = np.dtype("<f4" if floats else np.int64)
    if not shape and dtype.kind != "b":  # TFDS gives a number of Python
        dtype = np.dtype(float if floats else np.int64)
    return Column(_FLOATS if floats else _INTEGERS, shape, stored, dtype)


Where = Int[np.ndarray, " B"]


def decode(records: Sequence[bytes], columns: Mapping[str, Column]) -> dict[str, np.ndarray]:
    """The arrays of a batch.

    Args:
        records: B serialized examples, B >= 1.
        columns: from `columns_of`.

    Returns:
        By feature `[B, ...]`, what stacking TFDS's arrays gives.

    Raises:
        Unexpected: a record is not of that form.
    """
    whole = b"".join(records)
    stops = np.cumsum([len(record) for record in records])
    starts = np.concatenate([[0], stops[:-1]])
    try:
        found = _find(whole, starts, stops)
        data = np.frombuffer(whole, np.uint8)
        return {name: _values(data, *found[name], column) for name, column in columns.items()}
    except (IndexError, KeyError, UnicodeDecodeError, zlib.error) as error:
        raise Unexpected(f"{type(error).__name__}: {error}") from error


def _find(whole: bytes, at: Where, stops: Where) -> dict[str, tuple[Where, Where, Where]]:
    """By name, the tag of a feature's list, and where its values begin and stop, in each record."""
    data, n = np.frombuffer(whole, np.uint8), len(at)
    found: dict[str, tuple[Where, Where, Where]] = {}
    at, end = _field(data, at, _ENTRY)
    _expect(end == stops)
    while (at < stops).any():
        _expect(at < stops)  # all records have as many features
        first = int(at[0])
        name, tag, begin, stop = _entry(whole, first)
        head = np.frombuffer(whole[first:begin], np.uint8)
        if (_gather(data, at, len(head)) == head).all():  # the same name and sizes in all records
            begins, at = at + len(head), at + (stop - first)
            found[name] = np.full(n, tag), begins, at
            continue
        at, end = _field(data, at, _ENTRY)
        names, after = _field(data, at, _NAME)
        lists, at = _field(data, after, _LIST)
        _expect(at == end)
        tags = data[lists]
        begins, end = _field(data, _field(data, lists, tags)[0], _VALUES)
        _expect(end == at)
        rows: dict[str, list[int]] = {}  # of each name: one, unless records are ordered differently
        for row, (a, b) in enumerate(zip(names.tolist(), after.tolist(), strict=True)):
            rows.setdefault(whole[a:b].decode(), []).append(row)
        for own, chosen in rows.items():
            blank = np.zeros(n, int), np.zeros(n, int), np.zeros(n, int)  # no list has the tag 0
            for kept, values in zip(found.setdefault(own, blank), (tags, begins, at), strict=True):
                kept[chosen] = values[chosen]
    _expect(at == stops)
    return found


def _entry(whole: bytes, at: int) -> tuple[str, int, int, int]:
    """The name of the entry at a position, the tag of its list, where its values begin and stop."""

    # `_field` of one row alone would make a batch of 128 take 1.5 times as long.
    def field(at: int, tag: int) -> tuple[int, int]:
        _expect(whole[at] == tag)
        size = shift = 0
        while True:
            at += 1
            size |= (whole[at] & 127) << shift
            shift += 7
            if whole[at] < 128:
                return size, at + 1

    length, at = field(at, _ENTRY)
    stop = at + length
    length, at = field(at, _NAME)
    name = whole[at : at + length].decode()
    _, at = field(at + length, _LIST)
    tag = whole[at]
    _, at = field(at, tag)
    length, at = field(at, _VALUES)
    _expect(at + length == stop)
    return name, tag, at, stop


def _values(
    data: UInt8[np.ndarray, " N"], tags: Where, at: Where, stops: Where, column: Column
) -> np.ndarray:
    """`[B, ...]`: one feature of all records."""
    _expect(tags == column.kind)
    n, count = len(at), math.prod(column.shape)
    size = count * column.stored.itemsize
    if column.kind == _INTEGERS:
        values = _integers(data, at, stops, count)
    elif column.compressed:
        values = np.empty((n, size), np.uint8)
        for row, (a, b) in zip(values, zip(at, stops, strict=True), strict=True):
            row[:] = np.frombuffer(zlib.decompress(data[a:b], bufsize=size), np.uint8)
    else:
        _expect(stops - at == size)
        values = _gather(data, at, size)
    if column.kind != _INTEGERS:
        values = values.view(column.stored)
    return values.astype(column.dtype, copy=False).reshape(n, *column.shape)


def _field(
    data: UInt8[np.ndarray, " N"], at: Where, tag: int | UInt8[np.ndarray, " B"]
) -> tuple[Where, Where]:
    """Where the contents of the fields at `at` begin and stop; all have one tag."""
    _expect(data[at] == tag)
    at = at + 1
    part = data[at]
    size = (part & 127).astype(np.int64)
    shift = 7
    while (more := part >= 128).any():
        at = at + more
        part = np.where(more, data[at], 0)
        size += (part & 127).astype(np.int64) << shift
        shift += 7
    return at + 1, at + 1 + size


def _gather(data: UInt8[np.ndarray, " N"], at: Where, size: int) -> UInt8[np.ndarray, "B size"]:
    """`size` bytes from each position."""
    windows = max(len(data) - size + 1, 0)
    return np.ndarray((windows, size), np.uint8, data, strides=(1, 1))[at]


def _integers(
    data: UInt8[np.ndarray, " N"], at: Where, stops: Where, count: int
) -> Shaped[np.ndarray, "B count"]:
    """`count` varints between positions: 7 bits a byte, the lowest first, + 128 but in the last."""
    sizes = stops - at
    if (sizes == count).all():
        values = _gather(data, at, count)
        _expect(values < 128)
        return values
    ends = np.cumsum(sizes)
    parts = data[np.repeat(at - (ends - sizes), sizes) + np.arange(ends[-1])]
    lasts = np.flatnonzero(parts < 128)
    _expect(len(lasts) == count * len(at))
    _expect(lasts[count - 1 :: count] == ends - 1)
    firsts = np.concatenate([[0], lasts[:-1] + 1])
    shift = 7 * (np.arange(len(parts)) - np.repeat(firsts, lasts + 1 - firsts))
    bits = (parts & 127).astype(np.uint64) << shift.astype(np.uint64)
    return np.add.reduceat(bits, firsts).view(np.int64)


def _expect(holds: np.ndarray | np.bool | bool) -> None:
    if not (holds if isinstance(holds, bool) else holds.all()):
        raise Unexpected("a record is not as TFDS writes it")
