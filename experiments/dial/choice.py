"""A choice made for each seed on the others, and the difference of two such choices."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from experiments.study.statistics import paired


class Scores(NamedTuple):
    """What C candidates scored in each of S trainings.

    Attributes:
        names: C names.
        validation: `[C, S]` scores, -inf where there is none.
        test: `[C, S, K]` ±log of each task's test metric, NaN where there is none.
    """

    names: Sequence[str]
    validation: Float[np.ndarray, "C S"]
    test: Float[np.ndarray, "C S K"]


class Picked(NamedTuple):
    """What is chosen for each seed on the others.

    Attributes:
        names: for how many seeds a candidate was chosen, the most often chosen first.
        test: `[S, K]` of what was chosen for the seed, on the seed.
    """

    names: Mapping[str, int]
    test: Float[np.ndarray, "S K"]


def picked(scores: Scores) -> Picked:
    """For each seed, the candidate with the best mean validation score on the other seeds.

    Raises:
        ValueError: there are fewer than two seeds.
    """
    size = scores.validation.shape[1]
    if size < 2:
        raise ValueError(f"a choice on other seeds needs two or more, got {size}")
    others = [np.delete(scores.validation, seed, axis=1).mean(axis=1) for seed in range(size)]
    best = [int(np.argmax(means)) for means in others]
    names = [scores.names[i] for i in best]
    ranked = sorted(set(names), key=lambda name: (-names.count(name), name))
    return Picked({name: names.count(name) for name in ranked}, scores.test[best, range(size)])


def joined(parts: Sequence[Scores]) -> Scores:
    """The candidates of several scores together."""
    return Scores(
        [name for part in parts for name in part.names],
        np.concatenate([part.validation for part in parts]),
        np.concatenate([part.test for part in parts]),
    )


def difference(a: Float[np.ndarray, "S K"], b: Float[np.ndarray, "S K"]) -> dict[str, Any]:
    """The paired difference of mean scores, its interval and p value, and each task's difference.

    Seeds that lack either are left out; without two that have both there is no difference.
    """
    there = np.isfinite(a).all(axis=1) & np.isfinite(b).all(axis=1)
    if there.sum() < 2:
        return {"mean": None, "low": None, "high": None, "p": None, "seeds": int(there.sum())}
    found = paired(a[there].mean(axis=1), b[there].mean(axis=1))
    return {
        "mean": float(found.difference),
        "low": float(found.low),
        "high": float(found.high),
        "p": float(found.p),
        "seeds": int(there.sum()),
        "tasks": [float(x) for x in (a - b)[there].mean(axis=0)],
    }
