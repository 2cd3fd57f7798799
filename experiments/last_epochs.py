"""Scores of the test split at the ends of a run's last epochs, and their mean.

Papers on NYUv2 and Cityscapes have no validation split to choose a step by. They evaluate the test
split after every epoch and print the mean of each metric over the last 10, and Δm of these means:

- MTAN's README: "I simply averaged the performance for each task from the last 10 epochs, assuming
  we do not have access to the validation data" (github.com/lorenmt/mtan);
- CAGrad's nyuv2/plot.py and cityscapes/plot.py take `[min_epoch-10:min_epoch]).mean()` of each
  metric, then the mean over seeds, then Δm (github.com/Cranial-XIX/CAGrad);
- Nash-MTL's experiments/nyuv2/README.md: "we report the test performance averaged over the last 10
  epochs. Note that this averaging is not handled in the code" (github.com/AvivNavon/nash-mtl, and
  the same text in github.com/Cranial-XIX/FAMO).

LibMTL's `_record.py` prints another number where it is given no validation split: the epoch whose
test scores are best.

A problem asks for it by `mean_of_last_epochs`. An epoch is n / B updates, of n training rows and a
batch of B, whatever a method reads in an update; it ends with the dispatch that its last row is in.
"""

import json
import math
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from experiments.errors import UserError
from experiments.page.words import count
from experiments.problem import Problem
from jmtl.train import records

FILE = "last_epochs.json"
"""In a run's folder: the scores, and after how many updates."""

Scores = Mapping[str, Mapping[str, float]]


def steps_of(epochs: float, rows: int, batch_size: int) -> int:
    """The updates after which as many rows have been read as epochs have; batches straddle them."""
    return math.ceil(epochs * rows / batch_size)


def ends(epochs: int, rows: int, batch_size: int, every: int, stop: int) -> tuple[int, ...]:
    """The updates after which the last epochs of a run end.

    Args:
        epochs: at most so many; where dispatches are longer than epochs, several end together.
        rows: of the training split.
        batch_size: rows an update.
        every: updates a dispatch, at whose ends alone a run can be looked at.
        stop: the run's last update; an epoch that it cuts short ends there.

    Returns:
        Ascending, multiples of `every` but for the last, which is `stop`.
    """
    last = (stop - 1) * batch_size // rows + 1
    found = {
        min(-(-steps_of(epoch, rows, batch_size) // every) * every, stop)
        for epoch in range(max(last - epochs, 0) + 1, last + 1)
    }
    return tuple(sorted(found))


def read(folder: Path, due: Collection[int]) -> dict[int, Scores]:
    """What a run's folder holds of the scores after so many updates; {} where it has no file.

    Raises:
        UserError: the file cannot be read.
    """
    path = folder / FILE
    if not path.exists():
        return {}
    try:
        return {
            one["step"]: {
                task: {name: math.nan if x is None else x for name, x in metrics.items()}
                for task, metrics in one["test"].items()
            }
            for one in json.loads(path.read_text())
            if one["step"] in due
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} cannot be read: {error}; without it the mean is over the epochs to come"
        ) from error


def write(folder: Path, scored: Mapping[int, Scores], primary: bool = True) -> None:
    """Keep scores by updates in a run's folder.

    Raises:
        OutputError: the file cannot be written; one that was there is untouched.
    """
    content = [{"step": step, "test": scores} for step, scores in scored.items()]
    records.write_json(folder / FILE, content, primary)


def mean(scored: Mapping[int, Scores]) -> dict[str, dict[str, float]]:
    """By task and metric the mean over all updates that were scored, one at least."""
    every = list(scored.values())
    return {
        task: {name: math.fsum(one[task][name] for one in every) / len(every) for name in metrics}
        for task, metrics in every[0].items()
    }


def told(found: Mapping[str, Any]) -> str:
    """What the mean in `summary` is over, in a few words."""
    n = len(found["steps"])
    return f"mean of {count(n, 'evaluation')} at the ends of the last {found['epochs']} epochs"


def summary(problem: Problem, scored: Mapping[int, Scores]) -> dict[str, Any]:
    """What a run's `summary.json` says of its last epochs.

    Args:
        problem: whose tasks and published base they are.
        scored: by updates.

    Returns:
        `epochs` asked for; the `steps` that the mean is over, fewer where there were not so many;
        `test`, the mean; and its `delta_m` by both conventions where the problem has a base.
    """
    test = mean(scored)
    found = {"epochs": problem.mean_of_last_epochs, "steps": list(scored), "test": test}
    if problem.base is None:
        return found
    from experiments import published

    gains = {
        "metrics": published.gain(problem, problem.base, test, "metrics"),
        "tasks": published.gain(problem, problem.base, test, "tasks"),
    }
    return {**found, "delta_m": gains}
