"""The command line: `python -m experiments {list,train,evaluate,demo}`."""

import contextlib
import dataclasses
import io
import re
import sys
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

import jax
import tyro
from rich.console import Console

from experiments import run, show
from experiments.config import RunConfig, find_problem, method_options
from experiments.errors import UserError
from experiments.problems import PROBLEMS
from jmtl.data import source
from jmtl.methods import METHODS
from jmtl.nn import summary as model_summary

RESIDENT_BYTES = 2**30
"""The largest training split that is put on the devices by itself."""


def _shown(hint: str, metavar: str = "N") -> object:
    return tyro.conf.arg(help_behavior_hint=f"(default: {hint})", metavar=metavar)


_RECIPES = "the problem's"


@dataclasses.dataclass(frozen=True)
class List:
    """Show the problems and the methods, one line each."""


@dataclasses.dataclass(frozen=True)
class Train:
    """Train one problem with one method and one seed."""

    problem: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="PROBLEM")]
    """A name that `list` shows."""
    method: Annotated[str | None, _shown("pcgrad", "NAME")] = None
    """A method, or loss methods before one of any kind, joined by +: uncertainty+pcgrad."""
    weights: Annotated[str | None, _shown("none", "TASK=W,...")] = None
    """The weights of the method static, as left=2,right=1."""
    options: Annotated[tuple[str, ...], _shown("none", "OPTION=VALUE")] = ()
    """Options of the methods, as order=fixed or pcgrad.order=fixed."""
    seed: Annotated[int | None, _shown("0")] = None
    """Of parameters, order of examples, dropout and the method."""
    steps: Annotated[int | None, _shown(_RECIPES)] = None
    """Updates to be done in all; with --resume, more than before continue the run."""
    batch_size: Annotated[int | None, _shown(_RECIPES)] = None
    """Examples a step, over all devices."""
    learning_rate: Annotated[float | None, _shown(_RECIPES, "RATE")] = None
    """Of the optimiser."""
    weight_decay: Annotated[float | None, _shown(_RECIPES, "RATE")] = None
    """Decoupled, of the optimiser."""
    optimizer: Annotated[Literal["adam", "sgd"] | None, _shown(_RECIPES, "{adam,sgd}")] = None
    """What turns gradients into updates."""
    encoder: Annotated[str | None, _shown(_RECIPES, "NAME")] = None
    """mlp, lenet or resnet."""
    dropout: Annotated[float | None, _shown(_RECIPES, "RATE")] = None
    """Of the encoder, in [0, 1)."""
    strategy: Annotated[
        Literal["auto", "vmap", "unroll", "recompute"] | None,
        _shown("auto", "{auto,vmap,unroll,recompute}"),
    ] = None
    """How task gradients are computed."""
    at: Annotated[
        Literal["parameters", "representation"] | None,
        _shown("parameters", "{parameters,representation}"),
    ] = None
    """Where Gramian methods take gradients."""
    input: Annotated[
        Literal["resident", "stream"] | None, _shown("by size", "{resident,stream}")
    ] = None
    """The training split on the devices, or streamed from disk: the same batches."""
    checkpoint_every: Annotated[int | None, _shown(_RECIPES)] = None
    """Steps between checkpoints."""
    devices: Annotated[int | None, _shown("all")] = None
    """Devices that share a batch."""
    parallel: Annotated[Literal["jit", "pmap"] | None, _shown("jit", "{jit,pmap}")] = None
    """How they do: a mesh under jit, or pmap with a named axis."""
    out: Annotated[Path | None, _shown("runs/PROBLEM-METHOD-SEED", "DIR")] = None
    """The folder of the run."""
    data_dir: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("data")
    """The folder of all data sets."""
    resume: bool = False
    """Continue the run in --out from its newest whole checkpoint."""
    summary: bool = False
    """Print the model: parameters by encoder and head, and shapes."""


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Evaluate the newest checkpoint of a run."""

    folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DIR")]
    """The folder of the run."""
    split: Annotated[str, tyro.conf.arg(metavar="NAME")] = "test"
    """train, validation or test."""
    data_dir: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("data")
    """The folder of all data sets."""


@dataclasses.dataclass(frozen=True)
class Demo:
    """Train MultiDigits with PCGrad and with equal weights, and compare them on the test split."""

    out: Annotated[Path | None, _shown("runs/demo-TIME", "DIR")] = None
    """The folder of both runs."""
    steps: Annotated[int | None, _shown(_RECIPES)] = None
    """Updates of each run."""
    data_dir: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("data")
    """The folder of all data sets."""


Command = (
    Annotated[List, tyro.conf.subcommand("list")]
    | Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
    | Annotated[Demo, tyro.conf.subcommand("demo")]
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit code: 0, 2 for a `UserError`, 130 interrupted."""
    console = Console()
    try:
        command = parse(sys.argv[1:] if arguments is None else arguments)
        if isinstance(command, List):
            list_(console)
        elif isinstance(command, Train):
            train(command, console)
        elif isinstance(command, Evaluate):
            evaluate(command, console)
        else:
            demo(command, console)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: continue from the last checkpoint with --resume", file=sys.stderr)
        return 130
    return 0


def parse(arguments: Sequence[str]) -> List | Train | Evaluate | Demo:
    """Parse a command; tyro's box of an error becomes a `UserError` of one line."""
    box = io.StringIO()
    try:
        with contextlib.redirect_stderr(box):
            return tyro.cli(
                tyro.conf.OmitSubcommandPrefixes[Command],  # type: ignore[misc]
                prog="python -m experiments",
                description="Experiments in multi-task learning with jmtl.",
                args=list(arguments),
            )
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise UserError(_one_line(box.getvalue())) from None


def _one_line(box: str) -> str:
    """The sense of a boxed message: all but its title, rules and pointers to the help."""
    parts = re.split(r"─{8,}", re.sub(r"[╭╮╰╯│]", " ", box))
    said = [" ".join(part.split()) for part in parts[1:] if part.strip()]
    kept = [
        part for part in said if not part.startswith(("For full helptext", "Argument helptext"))
    ]
    return "; ".join(kept) or "the command line could not be read: see --help"


def list_(console: Console) -> None:
    """Print problems and methods."""
    rows = [
        (
            problem.name,
            f"{problem.summary}; tasks {', '.join(task.name for task in problem.tasks)}; "
            + ("no download" if problem.offline else "downloads once"),
        )
        for problem in PROBLEMS.values()
    ]
    console.print("problems", style="bold")
    console.print(show.problems_table(rows))
    console.print("methods", style="bold")
    console.print(
        show.problems_table(
            [
                (name, (constructor.__doc__ or "").strip().splitlines()[0])
                for name, constructor in METHODS.items()
            ]
        )
    )


def resolve(command: Train, saved: RunConfig | None) -> RunConfig:
    """The configuration of a run: what was given, then what was saved, then the recipe."""
    problem = find_problem(command.problem)
    recipe = problem.recipe
    if saved is None:
        encoder_options = dict(recipe.encoder_options)
        if command.encoder not in (None, recipe.encoder):
            encoder_options = {}  # another encoder has other options
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
            encoder_options=encoder_options,
            head_options=dict(recipe.head_options),
            strategy="auto",
            at="parameters",
            input="",
            steps_per_dispatch=recipe.steps_per_dispatch,
            checkpoint_every=recipe.checkpoint_every,
            measure_every=recipe.measure_every,
            devices=jax.device_count(),
            parallel="jit",
        )
    else:
        base = saved
    same = {field.name for field in dataclasses.fields(RunConfig)} - {"method_options"}
    given = {
        name: value
        for name, value in vars(command).items()
        if name in same and value is not None and name != "problem"
    }
    config = dataclasses.replace(base, problem=problem.name, **given)
    if command.dropout is not None:
        options = {**config.encoder_options, "dropout": command.dropout}
        config = dataclasses.replace(config, encoder_options=options)
    unsaid = command.weights is None and not command.options and command.method is None
    if saved is None or not (
        unsaid
        or (command.method == saved.method and not command.options and command.weights is None)
    ):
        chosen = method_options(config.method, command.options, command.weights, problem)
        config = dataclasses.replace(config, method_options=chosen)
    if not config.input:
        splits = run.open_splits(problem, command.data_dir)
        small = source.nbytes(splits("train")) <= RESIDENT_BYTES
        config = dataclasses.replace(config, input="resident" if small else "stream")
    return config


def train(command: Train, console: Console) -> None:
    """Train one run and print its summary."""
    folder = command.out
    problem = find_problem(command.problem)
    saved = None
    if command.resume:
        if folder is None:
            folder = _default_folder(command)
        saved = run.saved_config(folder)
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
        )
    title = f"{problem.name}, test split, after {summary['steps']:,} steps, seed {config.seed}"
    console.print(show.scores_table(title, {config.method: summary["test"]}))
    console.print(f"{summary['seconds']:.1f} s on {summary['devices']}", highlight=False)
    _where(folder, config, command.data_dir, console)


def print_model(config: RunConfig, data_dir: Path, console: Console) -> None:
    """Print the parameters by encoder and head, and every layer's shapes."""
    problem = find_problem(config.problem)
    splits = run.open_splits(problem, data_dir)
    raw = run.example_of(splits("train"))
    inputs = problem.to_batch(raw).inputs
    text = model_summary(run.model_of(config, problem), inputs)
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def evaluate(command: Evaluate, console: Console) -> None:
    """Evaluate the newest checkpoint of a run on a split."""
    config = run.saved_config(command.folder)
    problem = find_problem(config.problem)
    splits = run.open_splits(problem, command.data_dir)
    split = splits(command.split)
    found = run.restored(config, command.folder, run.example_of(split), console.print)
    scores = run.scores(config, problem, found.state, split)
    title = f"{problem.name}, {command.split} split, after {found.step:,} steps"
    console.print(show.scores_table(title, {config.method: scores}))


def demo(command: Demo, console: Console) -> None:
    """Train PCGrad and equal weights beside each other, and print what came of it."""
    out = command.out or Path("runs") / f"demo-{datetime.now():%Y%m%d-%H%M%S}"
    scores, configs = {}, {}
    with show.progress(console) as bar:
        watchers = {method: bar(method) for method in ("pcgrad", "equal")}
        for method, watcher in watchers.items():
            given = Train(
                problem="multi_digits",
                method=method,
                steps=command.steps,
                devices=1,
                data_dir=command.data_dir,
            )
            configs[method] = resolve(given, None)
            summary = run.train(
                configs[method],
                out / method,
                data_dir=command.data_dir,
                resume=False,
                watcher=watcher,
            )
            scores[method] = summary["test"]
    steps = configs["pcgrad"].steps
    console.print(show.scores_table(f"multi_digits, test split, after {steps:,} steps", scores))
    _where(out / "pcgrad", configs["pcgrad"], command.data_dir, console)


def _default_folder(command: Train) -> Path:
    return Path("runs") / f"{command.problem}-{command.method or 'pcgrad'}-{command.seed or 0}"


def _where(folder: Path, config: RunConfig, data_dir: Path, console: Console) -> None:
    """Say where the run lies and how to go on."""
    more = (
        f"python -m experiments train {config.problem} --out {folder} --resume "
        f"--steps {2 * config.steps}"
    )
    if data_dir != Path("data"):
        more += f" --data-dir {data_dir}"
    console.print(f"config, metrics, summary and checkpoints: {folder}", soft_wrap=True)
    console.print(f"to continue: {more}", soft_wrap=True, highlight=False)
