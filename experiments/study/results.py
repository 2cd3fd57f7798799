"""What a study found: its files read back, and each arm's trial chosen on the validation split."""

import io
import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int

from experiments.config import find_problem
from experiments.errors import UserError
from experiments.study.config import EQUAL, Arm, StudyConfig, calls, from_json, programs

RULE = (
    "Of each training the step with the best validation score is kept; of each arm the trial whose "
    "mean score over seeds is best, among those that lost fewest seeds. The score is the mean over "
    "the arm's tasks of ±log(metric), the sign making more be better: relative changes of every "
    "task weigh alike. The test split is read once a training, at the kept step, and chooses "
    "nothing."
)
"""How trials and steps are chosen, for whoever reads the results."""

Scores = Mapping[str, Mapping[str, Float[np.ndarray, " S"]]]


BESIDE = "side by side"
"""The entry of timing.json whose dispatches were timed in turns, when all trainings were done."""


class Curves(NamedTuple):
    """What was recorded along the way, T times; NaN where a method or step has none.

    Attributes:
        steps: `[T]` updates done.
        losses: `[S, T, K]` training losses, mean since the record before.
        validation: `[S, T, K]` each task's metric of `config.metrics`.
        weights: `[S, T, K]` the method's, mean since the record before.
        norms: `[S, T, K]` of the task gradients, likewise.
        cosine: `[S, T, K, K]` between them, likewise.
        conflict_rate: `[S, T]` likewise.
        residual: `[S, T]` the largest since the record before.
    """

    steps: Int[np.ndarray, " T"]
    losses: Float[np.ndarray, "S T K"]
    validation: Float[np.ndarray, "S T K"]
    weights: Float[np.ndarray, "S T K"]
    norms: Float[np.ndarray, "S T K"]
    cosine: Float[np.ndarray, "S T K K"]
    conflict_rate: Float[np.ndarray, "S T"]
    residual: Float[np.ndarray, "S T"]


class ArmResult(NamedTuple):
    """One arm: all its trials' scores, and for the chosen trial what every seed gave.

    Attributes:
        arm: the arm.
        scores: `[H, S]` validation scores of trial h and seed s at the kept step; -inf where
            there is none.
        chosen: h of the chosen trial.
        best_step: `[S]` the kept step.
        failed: `[S]` the step at which a training stopped being finite, -1 where it did not.
        validation: metrics `[S]` by task and name at the kept step.
        test: likewise.
        curves: of the chosen trial.
    """

    arm: Arm
    scores: Float[np.ndarray, "H S"]
    chosen: int
    best_step: Int[np.ndarray, " S"]
    failed: Int[np.ndarray, " S"]
    validation: Scores
    test: Scores
    curves: Curves


class Results(NamedTuple):
    """A whole study.

    Attributes:
        config: what was run.
        about: `command`, `versions`, `device`, `not_served` (lines), `data` (rows by split).
        arms: by name, in the study's order; `equal` is the first.
        timing: by program and call ("0", "1", …): `seconds` in all, `dispatch_seconds` (a list,
            each of `steps` updates of `width` trainings), `dispatch_seconds_beside_compiling`
            (likewise, where another program was being compiled), `evaluate_seconds` (a list).
            Under `BESIDE`, by program, the seconds of single dispatches that took turns.
        higher_is_better: by task and metric.
    """

    config: StudyConfig
    about: Mapping[str, Any]
    arms: Mapping[str, ArmResult]
    timing: Mapping[str, Mapping[str, Any]]
    higher_is_better: Mapping[str, Mapping[str, bool]]


def load(folder: Path) -> Results:
    """Read a finished study.

    Raises:
        UserError: there is none, it is not finished, or a file is damaged.
    """
    try:
        saved = json.loads((folder / "study.json").read_text())
        timing = json.loads((folder / "timing.json").read_text())
    except FileNotFoundError as error:
        raise UserError(
            f"no finished study in {folder} (it has no {Path(error.filename).name}): "
            "name the folder of one, or finish it with study --resume"
        ) from None
    except (OSError, ValueError) as error:
        raise UserError(f"the study in {folder} cannot be read: {error}") from None
    if not isinstance(saved, Mapping) or "config" not in saved:
        raise UserError(f"{folder}/study.json is not the configuration of a study of this version")
    config = from_json(saved["config"], folder)
    problem = find_problem(config.problem)
    rows: dict[tuple[int, int, int], dict[str, np.ndarray]] = {}
    for program in programs(config):
        for i, trainings in enumerate(calls(program, config.width)):
            found = read_call(call_path(folder, program.name, i))
            if found is None:
                raise UserError(
                    f"the study in {folder} is not finished: continue it with study --resume"
                )
            for j, training in enumerate(trainings):
                rows[training] = {name: values[j] for name, values in found.items()}
    steps = np.arange(config.evaluate_every, config.steps + 1, config.evaluate_every)
    arms = {}
    for a, arm in enumerate(config.arms):
        trials = [[rows[a, h, s] for s in range(len(config.seeds))] for h in range(len(arm.trials))]
        arms[arm.name] = _chosen(arm, trials, steps)
    return Results(
        config,
        {name: value for name, value in saved.items() if name != "config"},
        arms,
        timing,
        {task.name: dict(task.metric.higher_is_better) for task in problem.tasks},
    )


def _chosen(
    arm: Arm, trials: Sequence[Sequence[Mapping[str, np.ndarray]]], steps: np.ndarray
) -> ArmResult:
    scores = np.array([[row["score"] for row in seeds] for seeds in trials], float)
    there = np.isfinite(scores)
    means = np.where(there, scores, 0.0).sum(axis=1) / np.maximum(there.sum(axis=1), 1)
    # A trial that lost fewer seeds comes before any that lost more.
    chosen = int(np.lexsort((-means, -there.sum(axis=1)))[0])
    stacked = {name: np.stack([row[name] for row in trials[chosen]]) for name in trials[chosen][0]}

    def by_task(split: str) -> Scores:
        found: dict[str, dict[str, np.ndarray]] = {}
        for name, values in stacked.items():
            part, _, rest = name.partition("/")
            if part == split:
                task, _, metric = rest.rpartition("/")
                found.setdefault(task, {})[metric] = values.astype(float)
        return found

    curves = {
        name: stacked[f"curve/{name}"].astype(float) for name in Curves._fields if name != "steps"
    }
    return ArmResult(
        arm=arm,
        scores=scores,
        chosen=chosen,
        best_step=stacked["best_step"],
        failed=stacked["failed"],
        validation=by_task("validation"),
        test=by_task("test"),
        curves=Curves(steps=steps, **curves),
    )


def single_task(results: Results, split: str = "test") -> Scores:
    """The single-task baseline: each task's metrics from the arm that trained it alone."""
    return {
        task: getattr(result, split)[task]
        for result in results.arms.values()
        if result.arm.kind == "single"
        for task in result.arm.tasks
    }


def equal(results: Results) -> ArmResult:
    """The arm of equal weights."""
    return results.arms[EQUAL]


def call_path(folder: Path, program: str, call: int) -> Path:
    """Where the trainings of one compiled call are kept."""
    return folder / "trainings" / f"{program}.{call:03d}.npz"


def read_call(path: Path) -> dict[str, np.ndarray] | None:
    """The arrays of a call's file, leading axis its trainings; None where there is no whole one."""
    try:
        # Read first: numpy leaves a damaged file open.
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            return dict(file)
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile):
        return None
