"""What the dial found: in each cell what a choice on other seeds gives on a seed of its own."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from experiments.config import find_problem
from experiments.dial import config
from experiments.dial.config import Dial
from experiments.errors import UserError
from experiments.problems.digit_attributes import TURNED
from experiments.study.config import EQUAL
from experiments.study.results import ArmResult, load
from experiments.study.statistics import holm, paired

LEVEL = 0.05
"""Of the tests over all cells of one comparison together."""

RULE = (
    "A score is the mean over the four tasks of ±log(metric), the sign making more be better, so a "
    "difference of 0.01 is one percent on every task. For each seed, what is compared (the method "
    "of a family, the fixed weight of parity, the learning rate) is chosen by the mean validation "
    "score of the other seeds, and judged by that seed's test score. Differences are paired over "
    "seeds; their p values are corrected by Holm over all cells of a comparison."
)
"""How the dial compares, for whoever reads its results."""

COMPARISONS = {
    "surgery − equal": ("surgery", "equal"),
    "surgery − fixed": ("surgery", "fixed"),
    "losses − fixed": ("losses", "fixed"),
    "fixed − equal": ("fixed", "equal"),
}
"""What is compared with what. `fixed` is the best of the fixed weights: for parity 10^(s′ − s), s′
any of the dial's scales; for both regressions any of `WEIGHTS`."""

Arms = Mapping[str, ArmResult]


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


def find(folder: Path) -> dict[str, Any]:
    """What dial.json holds: the grid, every cell's comparisons, and what was measured of it.

    Raises:
        UserError: there is no finished dial in the folder.
    """
    try:
        about = json.loads((folder / "config.json").read_text())
        dial = Dial(**about["dial"])
    except (OSError, ValueError, TypeError, KeyError):
        raise UserError(f"no conflict dial in {folder}: run one with dial --out {folder}") from None
    problem = find_problem(config.PROBLEM)
    cells: list[dict[str, Any]] = []
    alone: dict[str, Any] = {}
    failed = trainings = 0
    for width in dial.widths:
        arms = load(folder / f"width-{width}").arms
        failed += sum(int(np.sum(result.failed >= 0)) for result in arms.values())
        trainings += len(arms) * len(dial.seeds)
        alone[str(width)] = _alone(dial, arms)
        cells += [
            {"width": width, **_cell(dial, arms, p, s)} for p in dial.conflicts for s in dial.scales
        ]
    for name in cells[0]["compared"]:
        tested = [cell["compared"][name] for cell in cells]
        p = np.array([np.nan if one["p"] is None else one["p"] for one in tested])
        for one, adjusted in zip(tested, holm(p), strict=True):
            one["p_holm"] = None if np.isnan(adjusted) else float(adjusted)
    return {
        **about,
        "rule": RULE,
        "turned": TURNED,
        "tasks": {task.name: task.main for task in problem.tasks},
        "families": {name: config.family(name) for name in dial.methods},
        "trainings": trainings,
        "failed": failed,
        "level": LEVEL,
        "alone": alone,
        "cells": cells,
    }


def _scores(dial: Dial, arms: Arms, method: str, p: float, s: float, called: str) -> Scores:
    """A method's candidates in a cell: its learning rates."""
    at = {"conflict": p, "scale": s}
    found = [arms[config.arm_name(method, at, rate)] for rate in dial.learning_rates]
    return Scores(
        [called] * len(found),
        np.concatenate([result.scores for result in found]),
        np.stack([np.stack(list(_logs(result).values()), axis=1) for result in found]),
    )


def _logs(result: ArmResult) -> dict[str, Float[np.ndarray, " S"]]:
    """±log of the test metric of each task that the arm is judged by."""
    found = {}
    for task in find_problem(config.PROBLEM).tasks:
        if task.name in result.arm.tasks:
            sign = 1 if task.metric.higher_is_better[task.main] else -1
            found[task.name] = sign * np.log(result.test[task.name][task.main])
    return found


def _cell(dial: Dial, arms: Arms, p: float, s: float) -> dict[str, Any]:
    """A cell's comparisons, and the conflict that equal weights met there."""
    of_method = {name: _scores(dial, arms, name, p, s, name) for name in dial.methods}
    equal = _scores(dial, arms, EQUAL, p, s, EQUAL)
    # Weights at another scale s′ are here the weight 10^(s′ − s) of parity, but for rounding.
    fixed = [
        _scores(dial, arms, config.fixed(weight), p, at, f"10^{at - s:g}, {weight:g}")
        for weight in config.WEIGHTS
        for at in dial.scales
    ]
    chosen = {"equal": picked(equal), "fixed": picked(joined(fixed))}
    for family in ("surgery", "losses"):
        members = [of_method[name] for name in of_method if config.family(name) == family]
        if members:
            chosen[family] = picked(joined(members))
    return {
        "conflict": p,
        "scale": s,
        "chosen": {name: dict(choice.names) for name, choice in chosen.items()},
        "compared": {
            name: difference(chosen[a].test, chosen[b].test)
            for name, (a, b) in COMPARISONS.items()
            if a in chosen and b in chosen
        },
        "methods": {
            name: difference(picked(scores).test, chosen["fixed"].test)
            for name, scores in of_method.items()
        },
        "scores": {
            name: [float(x) for x in np.nanmean(choice.test, axis=0)]
            for name, choice in chosen.items()
        },
        **_measured(dial, arms, p, s),
    }


def _measured(dial: Dial, arms: Arms, p: float, s: float) -> dict[str, float]:
    """Means over training, seeds and learning rates, with equal weights.

    The share of pairs of tasks that conflict; the cosine between parity's gradient and the
    others'; the size of parity's gradient in units of the others' mean.
    """
    at = {"conflict": p, "scale": s}
    curves = [arms[config.arm_name(EQUAL, at, rate)].curves for rate in dial.learning_rates]
    names = [task.name for task in find_problem(config.PROBLEM).tasks]
    turned = names.index(TURNED)
    rest = [i for i in range(len(names)) if i != turned]
    cosine = np.stack([curve.cosine for curve in curves])
    norms = np.stack([curve.norms for curve in curves])
    return {
        "conflict_rate": float(np.nanmean([curve.conflict_rate for curve in curves])),
        "cosine": float(np.nanmean(cosine[..., turned, rest])),
        "norm_ratio": float(
            np.exp(np.nanmean(np.log(norms[..., turned] / norms[..., rest].mean(axis=-1))))
        ),
    }


def _alone(dial: Dial, arms: Arms) -> dict[str, list[float]]:
    """By task, the mean test ±log(metric) of the task alone; of parity for each share p."""
    found: dict[str, list[float]] = {}
    for task in find_problem(config.PROBLEM).tasks:
        for p in dial.conflicts if task.name == TURNED else (0.0,):
            at = {"conflict": p, "scale": 0.0}
            name = f"single:{task.name}"
            results = [arms[config.arm_name(name, at, rate)] for rate in dial.learning_rates]
            scores = Scores(
                [name] * len(results),
                np.concatenate([result.scores for result in results]),
                np.stack([_logs(result)[task.name][:, None] for result in results]),
            )
            found.setdefault(task.name, []).append(float(np.nanmean(picked(scores).test)))
    return found
