"""Means and intervals over the seeds that gave a number, as plain numbers."""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float

from experiments.study.statistics import Interval, interval


def over_seeds(x: Float[np.ndarray, "... S"], **options: int) -> Interval:
    """The mean `[...]` of each row's finite values and its interval; NaN where there is none.

    Options are those of `interval`.
    """
    x = np.asarray(x, float)
    rows = x.reshape(-1, x.shape[-1])
    finite = np.isfinite(rows)
    found = np.full((3, len(rows)), np.nan)
    for pattern in np.unique(finite, axis=0):
        if pattern.any():
            who = np.all(finite == pattern, axis=1)
            found[:, who] = interval(rows[who][:, pattern], **options)
    return Interval(*found.reshape(3, *x.shape[:-1]))


def plain(x: Any) -> Any:
    """Numbers with six digits, None for what is none; mappings and sequences of them likewise."""
    if isinstance(x, Mapping):
        return {str(name): plain(value) for name, value in x.items()}
    if isinstance(x, np.ndarray):
        return plain(x.tolist())
    if isinstance(x, bool | np.bool_):
        return bool(x)
    if isinstance(x, int | np.integer):
        return int(x)
    if isinstance(x, float | np.floating):
        return float(f"{x:.6g}") if math.isfinite(x) else None
    if isinstance(x, str) or x is None:
        return x
    return [plain(value) for value in x]


def span(mean: Any, low: Any, high: Any) -> dict[str, Any]:
    """A mean and its interval by name."""
    return {"mean": mean, "low": low, "high": high}


def spans(found: Interval, names: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The rows of an interval `[N]` by name."""
    return {name: span(*(part[i] for part in found)) for i, name in enumerate(names)}
