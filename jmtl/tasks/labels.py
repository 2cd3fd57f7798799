"""What labels are refused when data is loaded, on the host.

A check takes labels `[n, ...]` and which rows are present `[n]`, both NumPy, and answers what is
wrong in one sentence, or None.
"""

from collections.abc import Callable, Collection

import numpy as np

Check = Callable[[np.ndarray, np.ndarray], str | None]
Tail = tuple[int | None, ...] | None
"""The dimensions of a label after the first, None where a size is free; None where all are."""


def integers(low: int, high: int, others: Collection[int] = (), tail: Tail = None) -> Check:
    """Integers or booleans in low .. high, or among `others`, which mark what has none."""
    marks = f", or {' or '.join(map(str, others))} where there is none" if others else ""
    words = f"{low} or {high}" if high == low + 1 else f"integers in {low} .. {high}"

    def check(label: np.ndarray, present: np.ndarray) -> str | None:
        if not (np.issubdtype(label.dtype, np.integer) or label.dtype == bool):
            return f"its values are integers, got {label.dtype}"
        bad = ((label < low) | (label > high)) & ~np.isin(label, list(others))
        return _shape(label, tail) or _first(f"its values are {words}{marks}", label, bad, present)

    return check


def numbers(low: float = -np.inf, tail: Tail = None) -> Check:
    """Finite numbers of at least `low`."""
    words = "finite numbers" + (f" >= {low:g}" if np.isfinite(low) else "")

    def check(label: np.ndarray, present: np.ndarray) -> str | None:
        if wrong := _shape(label, tail) or _number(label):
            return wrong
        bad = ~np.isfinite(label) | (label < low)
        return _first(f"its values are {words}", label, bad, present)

    return check


def boxes(num_classes: int) -> Check:
    """Objects `[n, N, 5]` for detection, see `jmtl.objects`."""

    def check(label: np.ndarray, present: np.ndarray) -> str | None:
        if wrong := _shape(label, (None, 5)) or _number(label):
            return wrong
        corners, kind = label[..., :4], label[..., 4]
        inside = ((corners >= 0) & (corners <= 1)).all(-1)
        ordered = (corners[..., :2] <= corners[..., 2:]).all(-1)
        known = (kind == np.floor(kind)) & (kind >= 0) & (kind < num_classes)
        bad = ~(kind == -1) & ~(inside & ordered & known)
        words = (
            "an object is top <= bottom, left <= right (as top, left, bottom, right) in [0, 1] and "
            f"a class in 0 .. {num_classes - 1}, or -1 for padding"
        )
        return _first(words, label, bad, present)

    return check


def tracks(label: np.ndarray, present: np.ndarray) -> str | None:
    """Objects `[n, N, 5]` for tracking, see `jmtl.objects`."""
    if wrong := _shape(label, (None, 5)) or _number(label):
        return wrong
    centre, moved, seen = label[..., :2], label[..., 2:4], label[..., 4]
    inside = ((centre >= 0) & (centre <= 1)).all(-1) & np.isfinite(moved).all(-1)
    bad = ~((seen == 0) | ((seen == 1) & inside))
    words = "an object is a centre in [0, 1], a finite displacement, and 1, or 0 for padding"
    return _first(words, label, bad, present)


def _shape(label: np.ndarray, tail: Tail) -> str | None:
    if tail is None:
        return None
    shape = label.shape[1:]
    if len(shape) == len(tail) and all(w in (None, n) for n, w in zip(shape, tail, strict=True)):
        return None
    words = ", ".join("any" if n is None else str(n) for n in tail)
    wanted = f"({words})" if tail else "no dimensions"
    return f"an example's shape is {wanted}, got {shape}"


def _number(label: np.ndarray) -> str | None:
    if np.issubdtype(label.dtype, np.number) and not np.iscomplexobj(label):
        return None
    return f"its values are numbers, got {label.dtype}"


def _first(words: str, label: np.ndarray, bad: np.ndarray, present: np.ndarray) -> str | None:
    """The sentence, with the first value that is bad and its row."""
    found = np.argwhere(bad & np.expand_dims(present, tuple(range(1, bad.ndim))))
    if not len(found):
        return None
    return f"{words}; got {label[tuple(found[0])].tolist()} in row {found[0][0]}"
