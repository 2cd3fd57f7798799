"""The command line: `python -m experiments COMMAND`; the commands are in `experiments.commands`."""

import dataclasses
import math
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import jax
from rich.console import Console

from experiments import hosts, last_epochs, origin, parts, resume, run, show
from experiments.commands import (
    Demo,
    Dial,
    Evaluate,
    Features,
    List,
    Report,
    Speed,
    Study,
    Toy,
    Train,
    parse,
)
from experiments.config import (
    RunConfig,
    find_problem,
    find_recipe,
    method_options,
    rate_factors,
    schedule_of,
)
from experiments.errors import UserError
from experiments.initial import model_of
from experiments.labels import check_split
from experiments.problem import Problem
from experiments.problems import PROBLEMS
from jmtl.data.errors import DataDamaged
from jmtl.methods import METHODS
from jmtl.nn import ENCODERS, SHARINGS
from jmtl.nn import summary as model_summary
from jmtl.train import checkpoint

MOST_NAMES = 8
"""Of tasks that a line of `list` has."""

TEMPERATURE = 2.0
"""Of the sampler of that name, unless the command says another."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, 2 for an error's line, 130 interrupted."""
    console = Console()
    try:
        command = parse(sys.argv[1:] if arguments is None else arguments)
        if isinstance(command, List):
            list_(console)
        elif isinstance(command, Train):
            train(command, console)
        elif isinstance(command, Evaluate):
            evaluate(command, console)
        elif isinstance(command, Features):
            features(command, console)
        elif isinstance(command, Study):
            study(command, console)
        elif isinstance(command, Report):
            report(command, console)
        elif isinstance(command, Demo):
            demo(command, console)
        elif isinstance(command, Speed):
            from experiments.speed import command as speed

            speed.run(command)
        elif isinstance(command, Dial):
            from experiments.dial import command as dials

            dials.run(command, console)
        else:
            toy(command, console)
    except (UserError, DataDamaged) as error:
        print("error:", " ".join(str(error).split()), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: continue from the last checkpoint with --resume", file=sys.stderr)
        return 130
    return 0


def list_(console: Console) -> None:
    """Print problems, methods, encoders and ways of sharing, one line each."""
    problems = [
        (
            problem.name,
            f"{problem.summary}; {_tasks(problem)}; "
            + (f"recipes {', '.join(problem.recipes)}; " if problem.recipes else "")
            + f"{_source(problem)}; {_way(problem)}",
        )
        for problem in PROBLEMS.values()
    ]
    problems.append(("toy", "two functions of x in the plane; its own command: toy; no download"))
    listed = (
        ("problems", problems),
        ("methods", _described(METHODS)),
        ("encoders", _described(ENCODERS)),
        ("sharing", _described(SHARINGS)),
    )
    for title, rows in listed:
        console.print(title, style="bold")
        wide = max(len(name) for name, _ in rows)
        for name, text in rows:
            line = f"  {name:<{wide}}  {text}"
            console.print(line, highlight=False, markup=False, soft_wrap=True)


def _tasks(problem: Problem) -> str:
    """The names of a problem's tasks; of many, their number and the first few."""
    names = [task.name for task in problem.tasks]
    if len(names) <= MOST_NAMES:
        return f"tasks {', '.join(names)}"
    return f"{len(names)} tasks: {', '.join(names[:3])}, …"


def _source(problem: Problem) -> str:
    """Where a problem's data comes from: what it says, or the names of its data sets."""
    named = [problem.data] if isinstance(problem.data, str) else problem.data.values()
    return problem.source or "data " + ", ".join(named)


def _way(problem: Problem) -> str:
    """How a problem's data gets there."""
    if problem.by_hand:
        return "files by hand"
    return "no download" if problem.offline else "downloads once"


def _described(known: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Names, and the first lines of what their constructors say of themselves."""
    return [(name, (made.__doc__ or "").strip().splitlines()[0]) for name, made in known.items()]


def resolve(command: Train, saved: RunConfig | None) -> RunConfig:
    """The configuration of a run: what was given, then what was saved, then the recipe."""
    problem = find_problem(command.problem)
    name, recipe = find_recipe(problem, command.recipe)
    if saved is None:
        one = isinstance(problem.data, str)
        base = RunConfig(
            problem=problem.name,
            method="pcgrad",
            method_options={},
            seed=0,
            steps=recipe.steps,
            batch_size=recipe.batch_size,
            optimizer=recipe.optimizer,
            learning_rate=recipe.learning_rate,
            weight_decay=recipe.weight_decay,
            encoder=recipe.encoder,
            encoder_options=parts.encoder_options_of(recipe, command.encoder),
            head_options=dict(recipe.head_options),
            strategy="auto",
            at="parameters",
            input="auto",
            steps_per_dispatch=recipe.steps_per_dispatch,
            checkpoint_every=recipe.checkpoint_every,
            measure_every=recipe.measure_every,
            devices=jax.device_count(),
            parallel="jit",
            sampler=None if one else "proportional",
            augment=recipe.augment,
            sharing=recipe.sharing,
            sharing_options=dict(recipe.sharing_options),
            recipe=name,
            schedule=[list(change) for change in recipe.schedule],
        )
    else:
        base = saved
    same = {field.name for field in dataclasses.fields(RunConfig)}
    same -= {"method_options", "sharing", "schedule"}
    given = {
        name: value
        for name, value in vars(command).items()
        if name in same and value is not None and value is not False and name != "problem"
    }
    config = dataclasses.replace(base, problem=problem.name, **given)
    if config.sampler != base.sampler and command.temperature is None:
        default = TEMPERATURE if config.sampler == "temperature" else None
        config = dataclasses.replace(config, temperature=default)
    if command.dropout is not None:
        options = {**config.encoder_options, "dropout": command.dropout}
        config = dataclasses.replace(config, encoder_options=options)
    if command.sharing:
        sharing, chosen = parts.sharing_of(command.sharing)
        config = dataclasses.replace(config, sharing=sharing, sharing_options=chosen)
    if command.schedule:
        config = dataclasses.replace(config, schedule=schedule_of(command.schedule))
    begun = origin.named(command.encoder_weights, command.init_from, base.origin)
    factors = rate_factors(command.freeze, command.rate_factor) or base.rate_factors
    config = dataclasses.replace(config, origin=begun, rate_factors=factors)
    if saved is None or _names_method(command, saved):
        chosen = method_options(config.method, command.options, command.weights, problem)
        config = dataclasses.replace(config, method_options=chosen)
    return config


def _names_method(command: Train, saved: RunConfig) -> bool:
    """Whether the command says anything of the method that the saved run does not."""
    said = command.options or command.weights is not None
    return bool(said) or command.method not in (None, saved.method)


def train(command: Train, console: Console) -> None:
    """Train one run and print its summary, from one process of several."""
    with hosts.joined(
        command.coordinator, command.processes, command.process_id, command.distributed
    ):
        _train(command, console if hosts.primary() else Console(quiet=True))


def _train(command: Train, console: Console) -> None:
    folder = command.out
    problem = find_problem(command.problem)
    saved = None
    if command.resume:
        if folder is None:
            folder = _default_folder(command)
        saved = resume.saved_config(folder)
    config = resolve(command, saved)
    folder = folder or _default_folder(command)
    if command.summary:
        print_model(config, command.data_dir, console)
    with show.progress(console) as bar:
        summary = run.train(
            config,
            folder,
            data_dir=command.data_dir,
            resume=command.resume,
            watcher=bar(config.method),
            log=command.log,
            profile=command.profile,
        )
    title = f"{problem.name}, test split, after {summary['steps']:,} steps, seed {config.seed}"
    columns, found = {config.method: summary["test"]}, {"last step": summary["test"]}
    if "last_epochs" in summary:
        told = last_epochs.told(summary["last_epochs"])
        columns[told] = found[told] = summary["last_epochs"]["test"]
    console.print(show.scores_table(title, columns))
    _say_what_is_missing(summary["test"], "test", console)
    _say_what_test_scores_are(problem, found, console)
    console.print(f"{summary['seconds']:.1f} s on {summary['devices']}", highlight=False)
    _where(folder, config, command.data_dir, console)


def print_model(config: RunConfig, data_dir: Path, console: Console) -> None:
    """Print the parameters by encoder and head, and every layer's shapes."""
    problem = find_problem(config.problem)
    splits = parts.open_splits(problem, data_dir)
    raw = parts.example_of(splits("train"))
    inputs = problem.to_batch(raw).inputs
    try:
        text = model_summary(model_of(config, problem), inputs)
    except ValueError as error:  # the encoder and the data do not fit
        raise UserError(str(error)) from error
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def features(command: Features, console: Console) -> None:
    """Write the representation of a split by the newest checkpoint of a run."""
    from experiments import features as representations

    config, split, found = _newest(command, console)
    problem = find_problem(config.problem)
    arrays = representations.features(config, problem, found.state, split)
    path = command.out or command.folder / f"features-{command.split}.npz"
    representations.write(path, arrays)
    console.print(f"{path}: {command.split} split, after {found.step:,} steps", soft_wrap=True)
    for name, array in arrays.items():
        console.print(f"  {name}  {array.dtype} {list(array.shape)}", highlight=False, markup=False)


def _newest(
    command: Evaluate | Features, console: Console
) -> tuple[RunConfig, Any, checkpoint.Restored]:
    """The configuration of a run, the split that a command names, and its newest checkpoint."""
    config = resume.saved_config(command.folder)
    splits = parts.open_splits(find_problem(config.problem), command.data_dir)
    split = splits(command.split)
    return (
        config,
        split,
        resume.restored(config, command.folder, parts.example_of(split), console.print),
    )


def evaluate(command: Evaluate, console: Console) -> None:
    """Evaluate the newest checkpoint of a run on a split."""
    config, split, found = _newest(command, console)
    problem = find_problem(config.problem)
    check_split(problem, split, command.split, all_tasks=False)
    scores = run.scorer(config, problem)(found.state, split)
    title = f"{problem.name}, {command.split} split, after {found.step:,} steps"
    console.print(show.scores_table(title, {config.method: scores}))
    _say_what_is_missing(scores, command.split, console)
    if command.split == "test":
        _say_what_test_scores_are(problem, {f"step {found.step:,}": scores}, console)


def _say_what_is_missing(
    scores: Mapping[str, Mapping[str, float]], split: str, console: Console
) -> None:
    """Name the tasks whose scores are means of nothing."""
    for task, metrics in scores.items():
        if all(map(math.isnan, metrics.values())):
            console.print(f"no score for {task}: the {split} split has no label for it")


def _say_what_test_scores_are(
    problem: Problem, found: Mapping[str, Mapping[str, Mapping[str, float]]], console: Console
) -> None:
    """The problem's protocol, and scores, by what they are of, against its published base."""
    lines = [problem.protocol]
    if problem.base is not None:
        from experiments import published

        for what, scores in found.items():
            if said := published.sentence(problem, problem.base, scores):
                lines.append(f"{what}: {said}")
    for line in filter(None, lines):
        console.print(line, highlight=False, markup=False, soft_wrap=True)


def study(command: Study, console: Console) -> None:
    """Run a study, or continue one; print its table and write its report."""
    from experiments.study import command as studies

    studies.run(command, console)


def report(command: Report, console: Console) -> None:
    """Write a finished study's tables, figures and page, and print its main table."""
    from experiments.study.report import terminal
    from experiments.study.results import load

    terminal.report(load(command.folder), command.out or command.folder, console)


def demo(command: Demo, console: Console) -> None:
    """A study in small: a dozen methods, the baselines, five seeds; its table and its report."""
    from experiments.study import command as studies

    out = command.out or Path("runs") / f"demo-{datetime.now():%Y%m%d-%H%M%S}"
    studies.run(studies.demo(command.steps, out, command.data_dir), console)


def toy(command: Toy, console: Console) -> None:
    """Run methods on the toy problem; print where they end, and write a report of it."""
    from experiments.toy import command as toys

    toys.run(command, console)


def _default_folder(command: Train) -> Path:
    return Path("runs") / f"{command.problem}-{command.method or 'pcgrad'}-{command.seed or 0}"


def _python() -> str:
    """How a person in this folder calls the Python that runs this."""
    here, python = Path.cwd(), Path(sys.executable)
    return str(python.relative_to(here)) if python.is_relative_to(here) else "python"


def _where(folder: Path, config: RunConfig, data_dir: Path, console: Console) -> None:
    """Say where the run lies and how to go on."""
    more = (
        f"{_python()} -m experiments train {config.problem} --out {folder} --resume "
        f"--steps {2 * config.steps}"
    )
    if data_dir != Path("data"):
        more += f" --data-dir {data_dir}"
    console.print(f"config, metrics, summary and checkpoints: {folder}", soft_wrap=True)
    console.print(f"to continue: {more}", soft_wrap=True, highlight=False)
