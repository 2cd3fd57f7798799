"""Scores of a test split against published single-task networks: Δm."""

import math
from collections.abc import Mapping
from typing import Literal

import numpy as np

from experiments.problem import Base, Problem
from experiments.study.statistics import delta_m

Scores = Mapping[str, Mapping[str, float]]


def gain(
    problem: Problem, base: Base, scores: Scores, convention: Literal["metrics", "tasks"]
) -> float | None:
    """Δm against published numbers, in percent and higher better.

    Args:
        problem: whose tasks they are of.
        base: some metrics of some tasks.
        scores: by task and metric, of the test split.
        convention: as `delta_m` takes it.

    Returns:
        The number; None where a score is not finite.
    """
    values, single = {}, {}
    for task, metrics in base.scores.items():
        values[task] = {name: np.array([scores[task][name]]) for name in metrics}
        single[task] = {name: np.array([x]) for name, x in metrics.items()}
    if not all(math.isfinite(x[0]) for named in values.values() for x in named.values()):
        return None
    higher = {task.name: task.metric.higher_is_better for task in problem.tasks}
    return float(delta_m(values, single, higher, convention)[0])


def sentence(problem: Problem, base: Base, scores: Scores) -> str:
    """One line of Δm by both conventions, "" where a score is not finite; see `gain`."""
    by_metrics = gain(problem, base, scores, "metrics")
    by_tasks = gain(problem, base, scores, "tasks")
    if by_metrics is None or by_tasks is None:
        return ""
    return (
        f"Δm against the published single-task base: {by_metrics:+.2f} % as the mean over metrics, "
        f"{by_tasks:+.2f} % over tasks; higher is better (Nash-MTL and FAMO print the first's "
        f"negative). The base is {base.source}"
    )
