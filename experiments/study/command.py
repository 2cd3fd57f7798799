"""`python -m experiments study`: a configuration from the command line, its run and its report."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from experiments.commands import Study, command_line
from experiments.config import find_problem, find_recipe, value_of
from experiments.errors import UserError
from experiments.parts import encoder_options_of, sharing_of
from experiments.problem import Problem
from experiments.study import run as runs
from experiments.study.config import (
    AUTO,
    Arm,
    StudyConfig,
    baselines,
    find_methods,
    find_metrics,
    served,
)
from experiments.study.devices import choose, saved_devices
from experiments.study.progress import progress
from experiments.study.report import terminal
from experiments.study.results import load
from jmtl.methods import nearest, options


def run(command: Study, console: Console) -> None:
    """Run a study, or continue one; print its table and write its report."""
    config, not_served = resolve(command)
    folder = _folder(command)
    for line in not_served:
        console.print(f"not served: {line}", highlight=False, markup=False, soft_wrap=True)
    with progress(console) as watcher:
        runs.study(
            config,
            folder,
            data_dir=command.data_dir,
            resume=command.resume,
            watcher=watcher,
            about={
                "command": command_line(command),
                "not_served": not_served,
                "protocol": find_problem(config.problem).protocol,
            },
        )
    terminal.report(load(folder), folder, console)


def _folder(command: Study) -> Path:
    return command.out or Path("runs") / f"study-{command.problem}"


def demo(steps: int, out: Path, data_dir: Path) -> Study:
    """The study of `make demo`: small enough for two minutes on two cores."""
    return Study(
        problem="multi_digits",
        methods=(
            "uncertainty",
            "dwa",
            "geometric",
            "famo",
            "pcgrad",
            "gradvac",
            "mgda",
            "cagrad",
            "nash",
            "imtl_g",
            "aligned",
            "upgrad",
        ),
        seeds=("0-4",),
        learning_rates=(1e-3,),
        front_points=4,
        steps=steps,
        evaluate_every=min(steps, 100),
        batch_size=64,
        hidden=(128, 64),
        devices=1,  # programs for more compile longer, and compiling is most of it
        out=out,
        data_dir=data_dir,
    )


def resolve(command: Study) -> tuple[StudyConfig, list[str]]:
    """The configuration of a study, and a line for each of "all" methods that it cannot have.

    Raises:
        UserError: an unknown name, a number out of its range, or a named method that does not
            serve the problem.
    """
    problem = find_problem(command.problem)
    if not isinstance(problem.data, str):
        raise UserError(
            f"{problem.name} trains from several data sets, and a study takes problems of one: "
            "use train"
        )
    if not problem.validation:
        raise UserError(
            "a study chooses steps and hyperparameters on a validation split, and "
            f"{problem.name} has none: use train, or a problem that has one"
        )
    saved = saved_devices(_folder(command) / "study.json", "config", "devices")
    devices = choose(command.devices, command.width, saved if command.resume else None)
    name, recipe = find_recipe(problem, command.recipe)
    rate = recipe.learning_rate
    rates = command.learning_rates
    rates = (rate / 3, rate, rate * 3) if rates is None else rates
    decays = command.weight_decays
    decays = (recipe.weight_decay,) if decays is None else decays
    for flag, given in (("--learning-rates", rates), ("--weight-decays", decays)):
        if not given:
            raise UserError(f"{flag}: give at least one number")
    trials = [
        {"learning_rate": float(f"{r:.6g}"), "weight_decay": float(d)}
        for r in rates
        for d in decays
    ]
    arms, not_served = arms_of(command, problem, trials)
    seeds = parse_seeds(command.seeds)
    encoder_options = encoder_options_of(recipe, command.encoder)
    for option in ("hidden", "dropout"):
        if (given := getattr(command, option)) is not None:
            encoder_options[option] = list(given) if option == "hidden" else given

    sharing, sharing_options = recipe.sharing, dict(recipe.sharing_options)
    if command.sharing:
        sharing, sharing_options = sharing_of(command.sharing)

    def chosen(field: str, default: Any) -> Any:
        value = getattr(command, field)
        return default if value is None else value

    config = StudyConfig(
        problem=problem.name,
        arms=tuple(arms),
        seeds=tuple(seeds),
        steps=chosen("steps", recipe.steps),
        evaluate_every=chosen("evaluate_every", recipe.steps_per_dispatch),
        batch_size=chosen("batch_size", recipe.batch_size),
        optimizer=chosen("optimizer", recipe.optimizer),
        encoder=chosen("encoder", recipe.encoder),
        encoder_options=encoder_options,
        head_options=dict(recipe.head_options),
        metrics=find_metrics(problem, command.metric),
        norm_matched=command.norm_matched,
        width=chosen("width", AUTO),
        devices=devices,
        sharing=sharing,
        sharing_options=sharing_options,
        recipe=name,
        schedule=tuple(recipe.schedule),
    )
    runs.check(config)
    return config, not_served


def arms_of(
    command: Study, problem: Problem, trials: Sequence[Mapping[str, float]]
) -> tuple[list[Arm], list[str]]:
    """The baselines and the methods of a study; a line for each of "all" that does not serve."""
    names = find_methods(command.methods)
    grids = parse_grids(command.grid, names)
    tasks = tuple(task.name for task in problem.tasks)
    arms, not_served = baselines(problem, trials, command.front_points, command.nulls), []
    for name in names:
        tried: list[dict[str, float]] = [dict(trial) for trial in trials]
        for key, values in grids.items():
            if key.partition(".")[0] in name.split("+"):
                tried = [{**trial, key: value} for trial in tried for value in values]
        arm = Arm(name, "method", name, {part: {} for part in name.split("+")}, tried, tasks)
        try:
            served(problem, arm)
        except UserError as error:
            if name in command.methods:
                raise UserError(f"{problem.name} cannot be trained with {name}: {error}") from None
            not_served.append(f"{name}: {error}")
        else:
            arms.append(arm)
    return arms, not_served


def parse_seeds(given: Sequence[str]) -> list[int]:
    """Seeds from items as "3" or "0-9"."""
    seeds: list[int] = []
    for item in given:
        first, dash, last = item.partition("-")
        try:
            low = int(first)
            high = int(last) if dash else low
        except ValueError:
            raise UserError(f"--seeds takes numbers and ranges as 0-9, got {item!r}") from None
        if high < low:
            raise UserError(f"--seeds: the range {item} is empty")
        seeds += range(low, high + 1)
    return seeds


def parse_grids(given: Sequence[str], names: Sequence[str]) -> dict[str, list[float]]:
    """Numbers to try by "method.option"."""
    methods = list(dict.fromkeys(part for name in names for part in name.split("+")))
    found: dict[str, list[float]] = {}
    for item in given:
        key, equals, text = item.partition("=")
        owner, dot, option = key.partition(".")
        if not equals or not dot:
            raise UserError(f"--grid takes method.option=value,..., got {item!r}")
        if owner not in methods:
            raise UserError(f"--grid {item}: {owner!r} is not studied: {nearest(owner, methods)}")
        known = set(options(owner)) - {"key"}
        if option not in known:
            raise UserError(f"{owner} has no option {option!r}: {nearest(option, known)}")
        values = [value_of(part) for part in text.split(",")]
        if not all(isinstance(v, int | float) and not isinstance(v, bool) for v in values):
            raise UserError(f"--grid {item}: the values must be numbers")
        found[key] = [float(value) for value in values]
    return found
