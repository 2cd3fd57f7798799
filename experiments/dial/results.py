"""What the dial found: in each cell what a choice on other seeds gives on a seed of its own."""

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float

from experiments.config import find_problem
from experiments.dial import config
from experiments.dial.choice import Picked, Scores, difference, joined, picked
from experiments.dial.config import Dial
from experiments.errors import UserError
from experiments.problems.digit_attributes import TURNED
from experiments.study.config import EQUAL
from experiments.study.results import ArmResult, load
from experiments.study.statistics import holm

LEVEL = 0.05
"""Of the tests over all cells of one comparison together."""

RULE = (
    "A score is the mean over the four tasks of ±log(metric), the sign making more be better, so a "
    "difference of 0.01 is one percent on every task. For each seed, what is compared (the method "
    "of a family, the fixed weight of parity, the learning rate) is chosen by the mean validation "
    "score of the other seeds, and judged by that seed's test score. Differences are paired over "
    "seeds; their p values are corrected by Holm over all cells of a comparison. A mean of "
    "logarithms lets a large gain on one task pay for a loss on another, and accuracies that are "
    "high move it little, so everything is compared again by error, 1 − accuracy, in place of "
    "accuracy."
)
"""How the dial compares, for whoever reads its results."""

HALF_AN_EXAMPLE = 0.5 / 360
"""Of the validation and the test split: an error of none still has a logarithm."""

COMPARISONS = {
    "surgery − equal": ("surgery", "equal"),
    "surgery − fixed": ("surgery", "fixed"),
    "losses − fixed": ("losses", "fixed"),
    "fixed − equal": ("fixed", "equal"),
}
"""What is compared with what. `fixed` is the best of the fixed weights: for parity 10^(s′ − s), s′
any of the dial's scales; for both regressions any of `WEIGHTS`."""

Arms = Mapping[str, ArmResult]

Measure = Literal["metric", "error"]
"""What a score takes the logarithm of: the metric itself, or 1 − accuracy where it is one."""


def find(folder: Path) -> dict[str, Any]:
    """What summary.json holds: the grid, every cell's comparisons, and what was measured of it.

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
    for name, measure in itertools.product(cells[0]["compared"], ("compared", "compared by error")):
        tested = [cell[measure][name] for cell in cells]
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
        "methods": {name: _over_cells(cells, name) for name in dial.methods},
        "cells": cells,
    }


def _over_cells(cells: Sequence[Mapping[str, Any]], method: str) -> dict[str, Any]:
    """A method's mean difference to the best fixed weight, and how often it was chosen."""
    means = [cell["methods"][method]["mean"] for cell in cells]
    family = config.family(method)
    return {
        "mean": float(np.mean([mean for mean in means if mean is not None])),
        "chosen": sum(cell["chosen"][family].get(method, 0) for cell in cells),
    }


def _scores(
    dial: Dial, arms: Arms, measure: Measure, method: str, p: float, s: float, called: str
) -> Scores:
    """A method's candidates in a cell: its learning rates."""
    at = {"conflict": p, "scale": s}
    found = [arms[config.arm_name(method, at, rate)] for rate in dial.learning_rates]
    return _candidates(found, measure, called)


def _candidates(results: Sequence[ArmResult], measure: Measure, called: str) -> Scores:
    validation = np.stack([_logs(result, "validation", measure) for result in results])
    scores = validation.mean(axis=-1)
    return Scores(
        [called] * len(results),
        np.where(np.isfinite(scores), scores, -np.inf),
        np.stack([_logs(result, "test", measure) for result in results]),
    )


def _logs(result: ArmResult, split: str, measure: Measure) -> Float[np.ndarray, "S K"]:
    """±log of the metric of each task that the arm is judged by, the sign making more be better."""
    found = []
    for task in find_problem(config.PROBLEM).tasks:
        if task.name in result.arm.tasks:
            values = getattr(result, split)[task.name][task.main]
            higher = task.metric.higher_is_better[task.main]
            if higher and measure == "error":
                values, higher = 1 - values + HALF_AN_EXAMPLE, False
            found.append(np.log(values) if higher else -np.log(values))
    return np.stack(found, axis=1)


def _cell(dial: Dial, arms: Arms, p: float, s: float) -> dict[str, Any]:
    """A cell's comparisons by both measures, and the conflict that equal weights met there."""
    chosen, methods = _chosen(dial, arms, "metric", p, s)
    by_error, _ = _chosen(dial, arms, "error", p, s)
    return {
        "conflict": p,
        "scale": s,
        "chosen": {name: dict(choice.names) for name, choice in chosen.items()},
        "compared": _compared(chosen),
        "compared by error": _compared(by_error),
        "methods": {
            name: difference(choice.test, chosen["fixed"].test) for name, choice in methods.items()
        },
        "scores": {
            name: [float(x) for x in np.nanmean(choice.test, axis=0)]
            for name, choice in chosen.items()
        },
        **_measured(dial, arms, p, s),
    }


def _chosen(
    dial: Dial, arms: Arms, measure: Measure, p: float, s: float
) -> tuple[dict[str, Picked], dict[str, Picked]]:
    """What is chosen in a cell of each side of `COMPARISONS`, and of each method alone."""
    of_method = {name: _scores(dial, arms, measure, name, p, s, name) for name in dial.methods}
    # Weights at another scale s′ are here the weight 10^(s′ − s) of parity, but for rounding.
    fixed = [
        _scores(dial, arms, measure, config.fixed(weight), p, at, f"10^{at - s:g}, {weight:g}")
        for weight in config.WEIGHTS
        for at in dial.scales
    ]
    sides = {"equal": _scores(dial, arms, measure, EQUAL, p, s, EQUAL), "fixed": joined(fixed)}
    for family in ("surgery", "losses"):
        members = [of_method[name] for name in of_method if config.family(name) == family]
        if members:
            sides[family] = joined(members)
    return (
        {name: picked(scores) for name, scores in sides.items()},
        {name: picked(scores) for name, scores in of_method.items()},
    )


def _compared(chosen: Mapping[str, Picked]) -> dict[str, dict[str, Any]]:
    return {
        name: difference(chosen[a].test, chosen[b].test)
        for name, (a, b) in COMPARISONS.items()
        if a in chosen and b in chosen
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
    one, others = norms[..., turned], norms[..., rest].mean(axis=-1)
    live = (one > 0) & (others > 0)  # a layer of dead units has no gradient
    return {
        "conflict_rate": float(np.nanmean([curve.conflict_rate for curve in curves])),
        "cosine": float(np.nanmean(cosine[..., turned, rest])),
        "norm_ratio": float(np.exp(np.mean(np.log(one[live] / others[live])))),
    }


def _alone(dial: Dial, arms: Arms) -> dict[str, list[float]]:
    """By task, the mean test ±log(metric) of the task alone; of parity for each share p."""
    found: dict[str, list[float]] = {}
    for task in find_problem(config.PROBLEM).tasks:
        for p in dial.conflicts if task.name == TURNED else (0.0,):
            at = {"conflict": p, "scale": 0.0}
            name = f"single:{task.name}"
            results = [arms[config.arm_name(name, at, rate)] for rate in dial.learning_rates]
            test = picked(_candidates(results, "metric", name)).test
            found.setdefault(task.name, []).append(float(np.nanmean(test)))
    return found
