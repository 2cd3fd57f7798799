"""What the conflict dial trains: a study for each width of the encoder, an arm for each cell."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from experiments.config import find_problem, make_method
from experiments.errors import UserError
from experiments.problems.digit_attributes import TURNED
from experiments.study.config import EQUAL, Arm, StudyConfig, find_methods, find_metrics

PROBLEM = "digit_attributes"


class Dial(NamedTuple):
    """The dial's grid, and how its cells are trained.

    Attributes:
        conflicts: shares p in [0, 1] of the training images whose parity is another image's.
        scales: powers of ten s that parity's loss is multiplied by.
        widths: of the encoder's one hidden layer.
        methods: that are compared with equal and with other fixed weights.
        learning_rates: tried in every cell for every method.
        seeds: each trains every cell.
        steps: updates of a training.
        evaluate_every: updates between looks at the validation split; divides `steps`.
        batch_size: rows of a batch.
        devices: that share a call.
    """

    conflicts: Sequence[float]
    scales: Sequence[float]
    widths: Sequence[int]
    methods: Sequence[str]
    learning_rates: Sequence[float]
    seeds: Sequence[int]
    steps: int
    evaluate_every: int
    batch_size: int
    devices: int = 1


def check(dial: Dial) -> None:
    """Refuse a grid that means nothing.

    Raises:
        UserError: with what to give instead.
    """
    for flag, given in (
        ("--conflicts", dial.conflicts),
        ("--scales", dial.scales),
        ("--widths", dial.widths),
        ("--learning-rates", dial.learning_rates),
    ):
        if not given:
            raise UserError(f"{flag}: give at least one number")
        if len(set(given)) != len(given):
            raise UserError(f"{flag} has a number twice: {' '.join(f'{x:g}' for x in given)}")
    for p in dial.conflicts:
        if not 0 <= p <= 1:
            raise UserError(f"--conflicts are shares of the labels, in [0, 1]; got {p:g}")
    for s in dial.scales:
        if not -6 <= s <= 6:
            raise UserError(f"--scales are powers of ten from -6 to 6; got {s:g}")
    for width in dial.widths:
        if width < 1:
            raise UserError(f"--widths must be at least 1, got {width}")
    if len(dial.seeds) < 2:
        raise UserError(
            "--seeds: give at least two, since each is judged by what is chosen on the others"
        )


WEIGHTS = (1.0, 10.0, 100.0)
"""Of the two regressions among the fixed weights: their squared errors end far below the other
losses, and weights of parity alone would leave that to the methods to put right."""

MOST = 50
"""Trainings of one compiled call."""


def methods(given: Sequence[str]) -> tuple[str, ...]:
    """The methods of the dial.

    Raises:
        UserError: an unknown name, or one that needs other data than a batch a step.
    """
    names = find_methods(given)
    for name in names:
        if "+" in name:
            raise UserError(f"--methods {name}: the dial takes single methods, not chains")
    return names


def family(method: str) -> str:
    """The family of a method: "losses" that weighs losses, or "surgery" on task gradients."""
    needs = make_method(method, {method: {}}, 0, find_problem(PROBLEM)).needs
    return "losses" if needs == "losses" else "surgery"


def fixed(weight: float) -> str:
    """The name of static weights that are 1 but for the regressions'."""
    return EQUAL if weight == 1 else f"static:{weight:g}"


def arm_name(method: str, knobs: Mapping[str, float], rate: float) -> str:
    """The name of an arm, by which its result is found."""
    turned = " ".join(f"{name}={value:g}" for name, value in knobs.items())
    return f"{method} {turned} rate={rate:g}"


def study(dial: Dial, width: int) -> StudyConfig:
    """The study of one width: an arm for each method, cell and learning rate.

    A learning rate is an arm rather than a trial, so that it is chosen for a seed on the others as
    the method is. Each task alone is trained where the knobs reach it: parity with every share of
    its labels permuted, the other tasks once. A task alone has no scale, as Adam's updates have
    none.
    """
    problem = find_problem(PROBLEM)
    names = [task.name for task in problem.tasks]
    k = len(names)

    def arm(
        method: str, kind: Any, weights: Sequence[float] | None, rate: float, tasks: Sequence[str],
        knobs: Mapping[str, float], called: str,
    ) -> Arm:  # fmt: skip
        given: dict[str, Any] = {method: {} if weights is None else {"weights": list(weights)}}
        trial = {"learning_rate": rate, "weight_decay": 0.0}
        return Arm(arm_name(called, knobs, rate), kind, method, given, [trial], tasks, knobs=knobs)

    cells = [{"conflict": p, "scale": s} for p in dial.conflicts for s in dial.scales]
    regressions = [task.main == "mae" for task in problem.tasks]
    arms = [
        arm(
            "static",
            "equal" if weight == 1 else "front",
            [weight if regression else 1.0 for regression in regressions],
            rate,
            names,
            cell,
            fixed(weight),
        )
        for weight in WEIGHTS
        for cell in cells
        for rate in dial.learning_rates
    ]
    for i, task in enumerate(names):
        for p in dial.conflicts if task == TURNED else (0.0,):
            at = {"conflict": p, "scale": 0.0}
            weights = [float(i == j) for j in range(k)]
            arms += [
                arm("static", "single", weights, rate, [task], at, f"single:{task}")
                for rate in dial.learning_rates
            ]
    arms += [
        arm(method, "method", None, rate, names, cell, method)
        for method in dial.methods
        for cell in cells
        for rate in dial.learning_rates
    ]
    trainings = len(cells) * len(dial.learning_rates) * len(dial.seeds)
    recipe = problem.recipe
    return StudyConfig(
        problem=PROBLEM,
        arms=tuple(arms),
        seeds=tuple(dial.seeds),
        steps=dial.steps,
        evaluate_every=dial.evaluate_every,
        batch_size=dial.batch_size,
        optimizer="adam",
        encoder="mlp",
        encoder_options={"hidden": [width]},
        head_options=dict(recipe.head_options),
        metrics=find_metrics(problem, None),
        norm_matched=False,
        width=-(-min(MOST, trainings) // dial.devices) * dial.devices,
        devices=dial.devices,
    )


def plain(dial: Dial) -> dict[str, Any]:
    """The grid as JSON holds it."""
    return {name: list(x) if isinstance(x, Sequence) else x for name, x in dial._asdict().items()}
