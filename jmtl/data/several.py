"""Several data sets in one batch: each has its own order and its own number of rows.

Whatever takes a split takes several by name too, `{"wine": split, "diabetes": split}`, and then
gives and takes sizes, arrays and batches by the same names. Their orders are independent: data set
s of a run with a seed is read by the seed `seed_of(seed, s)`. The rows that each has in a batch are
fixed, so that one compiled step serves: `batch_sizes` deals them out.
"""

import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np


def several(split: Any) -> bool:
    """Whether a split is several data sets by name, rather than one source, array or number."""
    return isinstance(split, Mapping) and not any(hasattr(x, "dtype") for x in split.values())


def by_source(fun: Callable[..., Any], split: Any, *more: Any) -> Any:
    """`fun(name, part, ...)` for each data set of a split, by name; `fun(None, split, ...)` of one.

    Args:
        fun: called with a name, a part of `split`, and the parts of that name of `more`.
        split: one data set, or several by name.
        *more: likewise by name where `split` is.

    Raises:
        ValueError: if an argument has other names than `split`.
    """
    if not several(split):
        return fun(None, split, *more)
    for other in more:
        if not isinstance(other, Mapping) or set(other) != set(split):
            names = sorted(other) if isinstance(other, Mapping) else other
            raise ValueError(f"the data sets are {', '.join(sorted(split))}; got {names}")
    return {name: fun(name, part, *(x[name] for x in more)) for name, part in split.items()}


def seed_of(seed: Any, name: str | None) -> Any:
    """The seed of one data set among several; that of the run where it is the only one.

    Args:
        seed: of the run, in [0, 2**32); may be traced.
        name: of the data set, None for the only one.
    """
    if name is None:
        return seed
    own = zlib.crc32(name.encode())
    return seed ^ own if isinstance(seed, int) else seed ^ np.uint32(own)


def batch_sizes(
    lengths: Mapping[str, int], batch_size: int, temperature: float = 1.0, unit: int = 1
) -> dict[str, int]:
    """Deals the rows of a batch out to data sets of n examples, n^(1/temperature) to each.

    A temperature of 1 is proportional to their sizes; the higher it is, the more alike are the
    shares. An infinite one deals the rows out in turn (round robin). Shares are rounded to units so
    that they add up, the largest remainders up, and every data set has one.

    Args:
        lengths: n of each data set.
        batch_size: rows, at least a unit for each.
        temperature: above 0.
        unit: rows that stay together, a divisor of `batch_size`. Batches lie evenly on any number
            of devices that divides it, and are the same on each.

    Returns:
        Rows by name.

    Raises:
        ValueError: a number out of range.

    References:
        Sanh et al., *A Hierarchical Multi-task Approach*, AAAI 2019 (proportional); Wang et al.,
        *Balancing Training for Multilingual Neural Machine Translation*, ACL 2020 (temperature).
    """
    if not temperature > 0:
        raise ValueError(f"the temperature of a sampler is above 0, got {temperature}")
    if batch_size < len(lengths):
        raise ValueError(f"{len(lengths)} data sets take at least a row each, got {batch_size}")
    units, left = divmod(batch_size, unit)
    if left or units < len(lengths):
        raise ValueError(
            f"{batch_size} rows cannot be dealt to {len(lengths)} data sets in units of {unit}"
        )
    n = np.array(list(lengths.values()), float)
    weights = (n / n.max()) ** (1 / temperature)
    shares = units * weights / weights.sum()
    rows = np.maximum(np.floor(shares).astype(int), 1)
    while rows.sum() != units:
        more = rows.sum() < units
        remainder = shares - rows
        # A share of one unit is not taken away.
        chosen = remainder.argmax() if more else np.where(rows > 1, remainder, np.inf).argmin()
        rows[chosen] += 1 if more else -1
    return dict(zip(lengths, map(int, rows * unit), strict=True))
