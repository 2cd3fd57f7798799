"""What defines a study: arms, their hyperparameters, and the trainings that follow from them."""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from experiments.config import DEFAULT, find_problem, make_method, odd_fields
from experiments.errors import UserError
from experiments.problem import Problem
from jmtl.methods import METHODS, nearest

EQUAL = "equal"
"""The arm that every other arm is compared with."""


@dataclasses.dataclass(frozen=True)
class Arm:
    """One row of a study: what is trained for every seed and every trial.

    Attributes:
        name: unique in the study.
        kind: "equal", "single" (one task alone), "front" (a point of the front of static weights),
            "null" (equal weights again, with other seeds) or "method".
        method: method names joined by "+", as `train` takes them.
        options: by method name, what does not vary within the arm.
        trials: the hyperparameters tried: `learning_rate`, `weight_decay`, and numeric options of
            the method as "cagrad.c".
        tasks: the names of the tasks whose validation metrics choose the trial and the step.
        shift: what is added to the study's seeds: 0, but for "null".
        knobs: of the problem; all at rest where there are none.
    """

    name: str
    kind: Literal["equal", "single", "front", "null", "method"]
    method: str
    options: Mapping[str, Mapping[str, Any]]
    trials: Sequence[Mapping[str, float]]
    tasks: Sequence[str]
    shift: int = 0
    knobs: Mapping[str, float] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class StudyConfig:
    """A study. Equal configurations give equal files on one kind of machine, times apart.

    Attributes:
        problem: its name.
        arms: the rows.
        seeds: each trains every arm: parameters, order of examples, dropout and the method's draws.
        steps: updates of a training.
        evaluate_every: updates between looks at the validation split; divides `steps`.
        batch_size: rows of a batch.
        optimizer: "adam", "adam_l2" or "sgd".
        encoder: a name in `jmtl.nn.ENCODERS`.
        encoder_options: its options.
        head_options: those of every head.
        metrics: by task, the metric that chooses and is compared.
        norm_matched: whether methods' updates have the norm of the equal-weights gradient.
        width: trainings of one compiled call; the last call of a program is filled up to it.
            `AUTO` before the data is there.
        devices: that share a call.
        sharing: a name in `jmtl.nn.SHARINGS`.
        sharing_options: its options.
        recipe: the name of the problem's recipe that filled in what was not given.
        schedule: of the learning rates, (step, factor).
    """

    problem: str
    arms: Sequence[Arm]
    seeds: Sequence[int]
    steps: int
    evaluate_every: int
    batch_size: int
    optimizer: str
    encoder: str
    encoder_options: Mapping[str, Any]
    head_options: Mapping[str, Any]
    metrics: Mapping[str, str]
    norm_matched: bool
    width: int
    devices: int
    sharing: str = "hard"  # this and what follows are newer than some saved studies
    sharing_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    recipe: str = DEFAULT
    schedule: Sequence[Sequence[float]] = ()


class Training(NamedTuple):
    """One training of a study: positions in `config.arms`, in the arm's trials, in the seeds."""

    arm: int
    trial: int
    seed: int


class Program(NamedTuple):
    """What one compiled program trains: arms that differ in numbers alone.

    Attributes:
        name: of its files.
        method: method names joined by "+".
        options: by method name, what is compiled in.
        traced: the options that are arguments of the program, as "static.weights".
        matched: whether updates are scaled to the equal-weights gradient's norm.
        trainings: in the order in which they fill calls.
    """

    name: str
    method: str
    options: Mapping[str, Mapping[str, Any]]
    traced: tuple[str, ...]
    matched: bool
    trainings: tuple[Training, ...]


def simplex_grid(num_tasks: int, most: int) -> list[tuple[float, ...]]:
    """Positive weights `[K]` of sum K on the finest even lattice with at most `most` points.

    The centre, which equal weights are, is left out. For K = 2 and `most` = 9: 0.2, 0.4, … 1.8 for
    the first task, without 1.0.
    """
    k = num_tasks
    if k == 1 or most < 1:
        return []
    m = k + 1
    while math.comb(m, k - 1) <= most:
        m += 1
    cuts = itertools.combinations(range(1, m), k - 1)
    parts = (tuple(b - a for a, b in itertools.pairwise((0, *cut, m))) for cut in cuts)
    found = [part for part in parts if len(set(part)) > 1]
    return [tuple(k * x / m for x in part) for part in found][::-1] if len(found) <= most else []


AUTO = 0
"""The width that becomes what fits the memory."""

SHIFT = 2**20
"""Between the seeds of equal weights and those of its first null, and from null to null."""


def baselines(
    problem: Problem, trials: Sequence[Mapping[str, float]], front: int, nulls: int = 0
) -> list[Arm]:
    """Equal weights, each task alone, the front of static weights, and nulls.

    All are `static`, so that one program trains them: a task alone is the weight 1 for it and 0
    for the others, which leaves the shared parameters to it. A null is trained as equal weights
    are, but for its keys: what is found between the two is noise.
    """
    names = [task.name for task in problem.tasks]
    k = len(names)

    def arm(name: str, kind: Any, weights: Sequence[float], tasks: Sequence[str]) -> Arm:
        return Arm(name, kind, "static", {"static": {"weights": list(weights)}}, trials, tasks)

    alone = [
        arm(f"single:{name}", "single", [float(i == j) for j in range(k)], [name])
        for i, name in enumerate(names)
    ]
    grid = [
        arm("static:" + ",".join(f"{w:.3g}" for w in weights), "front", weights, names)
        for weights in simplex_grid(k, front)
    ]
    same = arm(EQUAL, "equal", [1.0] * k, names)
    others = [
        dataclasses.replace(same, name=f"null:{i}", kind="null", shift=i * SHIFT)
        for i in range(1, nulls + 1)
    ]
    return [same, *alone, *grid, *others]


def programs(config: StudyConfig) -> list[Program]:
    """The compiled programs of a study and what each trains, in the order of the arms."""
    groups: dict[str, list[int]] = {}
    for i, arm in enumerate(config.arms):
        name = arm.method if arm.method == "static" or arm.knobs else arm.name
        groups.setdefault(name, []).append(i)
    found = []
    for name, members in groups.items():
        first = config.arms[members[0]]
        numbers = {key for key in first.trials[0] if "." in key}
        given = {n: dict(options) for n, options in first.options.items()}
        if "static" in given and "+" not in first.method:
            given["static"].pop("weights")
            numbers.add("static.weights")
        found.append(
            Program(
                name,
                first.method,
                given,
                tuple(sorted(numbers)),
                config.norm_matched and first.kind == "method",
                tuple(
                    Training(i, trial, seed)
                    for i in members
                    for trial in range(len(config.arms[i].trials))
                    for seed in range(len(config.seeds))
                ),
            )
        )
    return found


def calls(program: Program, width: int) -> list[tuple[Training, ...]]:
    """A program's trainings, `width` of them a call; the last may be shorter and is filled up."""
    rows = program.trainings
    return [rows[i : i + width] for i in range(0, len(rows), width)]


def served(problem: Problem, arm: Arm) -> None:
    """Refuse an arm whose method does not serve the problem or an option's value.

    Raises:
        UserError: with the method's own reason.
    """
    for trial in arm.trials:
        options = {name: dict(given) for name, given in arm.options.items()}
        for key, value in trial.items():
            owner, _, option = key.rpartition(".")
            if owner:
                options[owner][option] = value
        make_method(arm.method, options, 0, problem)


def find_metrics(problem: Problem, metric: str | None) -> dict[str, str]:
    """By task, the metric that chooses: the one named, or each task's main one."""
    found = {}
    for task in problem.tasks:
        known = task.metric.higher_is_better
        name = metric or task.main
        if name not in known:
            raise UserError(f"task {task.name!r} has no metric {name!r}: {nearest(name, known)}")
        found[task.name] = name
    return found


def find_methods(names: Sequence[str]) -> tuple[str, ...]:
    """The method names of `--methods`: "all" stands for every one that needs no option."""
    if not names:
        raise UserError("--methods: name at least one method, or all")
    for name in names:
        for part in () if name == "all" else name.split("+"):
            if part not in METHODS:
                raise UserError(f"unknown method {part!r}: {nearest(part, METHODS)}")
            if part in ("static", EQUAL) and "+" not in name:
                raise UserError(f"--methods: {part} is always among the baselines; leave it out")
    if "all" in names:
        every = [name for name in METHODS if name not in ("static", EQUAL)]
        names = [*every, *(name for name in names if name != "all")]
    return tuple(dict.fromkeys(names))


def from_json(saved: Mapping[str, Any], folder: Any) -> StudyConfig:
    """The configuration that a study's folder holds.

    Raises:
        UserError: it is none, or its fields are not those of this version.
    """
    if not isinstance(saved, Mapping) or odd_fields(StudyConfig, saved):
        raise UserError(f"{folder}/study.json is not the configuration of a study of this version")
    find_problem(saved["problem"])
    try:
        return StudyConfig(**{**saved, "arms": tuple(Arm(**arm) for arm in saved["arms"])})
    except TypeError as error:
        raise UserError(f"{folder}/study.json cannot be read: {error}") from None
