"""The commands of `python -m experiments`, their options, and how they are read."""

import contextlib
import dataclasses
import io
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import tyro

from experiments.errors import UserError
from experiments.speed.options import Options as Speed


def _shown(hint: str, metavar: str = "N") -> object:
    return tyro.conf.arg(help_behavior_hint=f"(default: {hint})", metavar=metavar)


_RECIPES = "the problem's"


@dataclasses.dataclass(frozen=True)
class List:
    """Show the problems, methods, encoders and ways of sharing, one line each."""


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
    recipe: Annotated[str | None, _shown("the problem's first", "NAME")] = None
    """What a run does unless it is told otherwise: a recipe of the problem, as list shows them."""
    steps: Annotated[int | None, _shown(_RECIPES)] = None
    """Updates to be done in all; with --resume, more than before continue the run."""
    batch_size: Annotated[int | None, _shown(_RECIPES)] = None
    """Examples a step, over all devices."""
    microbatches: Annotated[int | None, _shown("1")] = None
    """Parts of the batch that a step takes one after the other; batch norm sees them apart."""
    learning_rate: Annotated[float | None, _shown(_RECIPES, "RATE")] = None
    """Of the optimiser."""
    weight_decay: Annotated[float | None, _shown(_RECIPES, "RATE")] = None
    """Of the optimiser: decoupled, but in the gradient of adam_l2."""
    schedule: Annotated[tuple[str, ...], _shown(_RECIPES, "STEP=FACTOR")] = ()
    """From these steps on, the rate times these factors, as 1000=0.5 2000=0.5; or none."""
    optimizer: Annotated[
        Literal["adam", "adam_l2", "sgd"] | None, _shown(_RECIPES, "{adam,adam_l2,sgd}")
    ] = None
    """What turns gradients into updates."""
    encoder: Annotated[str | None, _shown(_RECIPES, "NAME")] = None
    """An encoder that `list` shows and that reads the problem's data."""
    sharing: Annotated[tuple[str, ...], _shown(_RECIPES, "NAME [OPTION=VALUE ...]")] = ()
    """How tasks share it: a way that `list` shows, and its options, as mmoe experts=4."""
    dropout: Annotated[float | None, _shown(_RECIPES, "RATE")] = None
    """Of the encoder, in [0, 1)."""
    dtype: Annotated[
        Literal["float32", "bfloat16"] | None, _shown("float32", "{float32,bfloat16}")
    ] = None
    """What the model computes in; parameters, losses, surgery and the optimiser stay float32."""
    remat: bool = False
    """Compute the encoder's activations again in the backward pass instead of keeping them."""
    encoder_weights: Annotated[Path | None, _shown("drawn by the seed", "FILE")] = None
    """The encoder's first ones: torchvision's, in a .safetensors file."""
    init_from: Annotated[Path | None, _shown("drawn by the seed", "RUN")] = None
    """The folder of a run whose encoder, from its newest checkpoint, this one begins with."""
    freeze: Annotated[tuple[str, ...], _shown("none", "PATH")] = ()
    """Parameters that stay as they are, as encoder, encoder/conv1 or tasks/left."""
    rate_factor: Annotated[tuple[str, ...], _shown("none", "PATH=FACTOR")] = ()
    """Factors of the learning rate, as encoder=0.1; the longest path that fits counts."""
    sampler: Annotated[
        Literal["proportional", "temperature", "round_robin"] | None,
        _shown("proportional", "{proportional,temperature,round_robin}"),
    ] = None
    """How a batch is dealt out to several data sets: by their sizes n, by n^(1/T), or in turn."""
    temperature: Annotated[float | None, _shown("2", "T")] = None
    """T of the sampler temperature."""
    augment: Annotated[str | None, _shown(_RECIPES, "NAME")] = None
    """What training makes of a batch: an augmentation that the problem has, or none."""
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
    model_parallel: Annotated[int | None, _shown("1")] = None
    """Devices that split large parameters between them; the batch is split over --devices / N."""
    parallel: Annotated[Literal["jit", "pmap"] | None, _shown("jit", "{jit,pmap}")] = None
    """How they do: a mesh under jit, or pmap with a named axis."""
    coordinator: Annotated[str | None, _shown("one process", "HOST:PORT")] = None
    """Of process 0 of several that train together, one on each host; the same in all."""
    processes: Annotated[int | None, _shown("one process")] = None
    """How many train together."""
    process_id: Annotated[int | None, _shown("one process")] = None
    """Which of them this is, from 0."""
    distributed: bool = False
    """Several processes, as TPU pods, Slurm, Open MPI or Kubernetes say in their environment."""
    out: Annotated[Path | None, _shown("runs/PROBLEM-METHOD-SEED", "DIR")] = None
    """The folder of the run."""
    data_dir: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("data")
    """The folder of all data sets."""
    log: Annotated[
        tuple[Literal["tensorboard", "wandb"], ...], _shown("none", "{tensorboard,wandb}")
    ] = ()
    """Where metrics go beside metrics.jsonl; each needs the extra of its name."""
    resume: bool = False
    """Continue the run in --out from its newest whole checkpoint."""
    summary: bool = False
    """Print the model: parameters by encoder and head, and shapes."""
    profile: bool = False
    """Trace the third to fifth dispatch, for Perfetto and XProf, into profile/ of the run."""


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
class Features:
    """Write what the encoder of a run makes of a split, and the labels: an .npz file."""

    folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DIR")]
    """The folder of the run."""
    split: Annotated[str, tyro.conf.arg(metavar="NAME")] = "test"
    """train, validation or test."""
    out: Annotated[Path | None, _shown("features-SPLIT.npz in DIR", "FILE")] = None
    """The file: arrays features, labels/NAME and present/NAME, a row an example."""
    data_dir: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("data")
    """The folder of all data sets."""


@dataclasses.dataclass(frozen=True)
class Study:
    """Train many methods over seeds and hyperparameters, compare them, and write a report."""

    problem: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="PROBLEM")]
    """A name that `list` shows."""
    recipe: Annotated[str | None, _shown("the problem's first", "NAME")] = None
    """What a training does unless it is told otherwise, as of train."""
    methods: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME")] = ("all",)
    """Methods or chains of them; all is every one. The baselines are always there."""
    seeds: Annotated[tuple[str, ...], tyro.conf.arg(metavar="N")] = ("0-9",)
    """Seeds, as 0-9 or 0 1 2; each trains every method."""
    learning_rates: Annotated[
        tuple[float, ...] | None,
        _shown("a third of the problem's, that, and three times it", "RATE"),
    ] = None
    """Tried for every method and every baseline."""
    weight_decays: Annotated[tuple[float, ...] | None, _shown(_RECIPES, "RATE")] = None
    """Likewise; the trials are all pairs."""
    grid: Annotated[tuple[str, ...], _shown("none", "METHOD.OPTION=V,...")] = ()
    """Numbers of a method that are tried too, as cagrad.c=0.2,0.5: a larger budget for it."""
    norm_matched: bool = False
    """Scale every method's update to the norm of the equal-weights gradient."""
    front_points: Annotated[int, tyro.conf.arg(metavar="N")] = 9
    """Points of the front of static weights, at most."""
    nulls: Annotated[int, tyro.conf.arg(metavar="N")] = 1
    """Times that equal weights are trained again with other keys: what noise alone does."""
    metric: Annotated[str | None, _shown("each task's main one", "NAME")] = None
    """The metric that chooses hyperparameters and steps and is compared."""
    steps: Annotated[int | None, _shown(_RECIPES)] = None
    """Updates of a training."""
    evaluate_every: Annotated[int | None, _shown("the problem's steps a dispatch")] = None
    """Updates between looks at the validation split."""
    batch_size: Annotated[int | None, _shown(_RECIPES)] = None
    """Examples a step."""
    optimizer: Annotated[
        Literal["adam", "adam_l2", "sgd"] | None, _shown(_RECIPES, "{adam,adam_l2,sgd}")
    ] = None
    """What turns gradients into updates."""
    encoder: Annotated[str | None, _shown(_RECIPES, "NAME")] = None
    """An encoder that `list` shows and that reads the problem's data."""
    sharing: Annotated[tuple[str, ...], _shown(_RECIPES, "NAME [OPTION=VALUE ...]")] = ()
    """How tasks share it: a way that `list` shows, and its options, as mmoe experts=4."""
    hidden: Annotated[tuple[int, ...] | None, _shown(_RECIPES)] = None
    """Widths of the layers of an mlp."""
    dropout: Annotated[float | None, _shown(_RECIPES, "RATE")] = None
    """Of the encoder, in [0, 1)."""
    width: Annotated[int | None, _shown("one method's trainings")] = None
    """Trainings of one compiled call; fewer need less memory."""
    devices: Annotated[int | None, _shown("all; of a CPU one a core")] = None
    """Devices that share a call."""
    out: Annotated[Path | None, _shown("runs/study-PROBLEM", "DIR")] = None
    """The folder of the study."""
    data_dir: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("data")
    """The folder of all data sets."""
    resume: bool = False
    """Continue the study in --out; what is finished is not run again."""


@dataclasses.dataclass(frozen=True)
class Report:
    """Write a finished study's tables, figures and page again."""

    folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DIR")]
    """The folder of the study."""
    out: Annotated[Path | None, _shown("the study's", "DIR")] = None
    """The folder of the report."""


@dataclasses.dataclass(frozen=True)
class Demo:
    """A study of MultiDigits in small: a dozen methods over five seeds, compared in a report."""

    out: Annotated[Path | None, _shown("runs/demo-TIME", "DIR")] = None
    """The folder of the study."""
    steps: Annotated[int, tyro.conf.arg(metavar="N")] = 1_000
    """Updates of each training."""
    data_dir: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("data")
    """The folder of all data sets."""


@dataclasses.dataclass(frozen=True)
class Dial:
    """Turn one task of DigitAttributes against the others: where does surgery pay?"""

    methods: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME")] = (
        "uncertainty",
        "geometric",
        "famo",
        "pcgrad",
        "cagrad",
        "mgda",
        "nash",
        "imtl_g",
        "aligned",
        "upgrad",
    )
    """Compared with equal weights and with other fixed weights."""
    conflicts: Annotated[tuple[float, ...], tyro.conf.arg(metavar="P")] = (0, 0.25, 0.5, 0.75, 1)
    """Shares of the training images whose parity is another image's."""
    scales: Annotated[tuple[float, ...], tyro.conf.arg(metavar="S")] = (-2, -1, 0, 1, 2)
    """Powers of ten that parity's loss is multiplied by."""
    widths: Annotated[tuple[int, ...], tyro.conf.arg(metavar="N")] = (4, 16, 64)
    """Of the encoder's one hidden layer."""
    learning_rates: Annotated[tuple[float, ...], tyro.conf.arg(metavar="RATE")] = (3e-3, 1e-2, 3e-2)
    """Tried in every cell for every method."""
    seeds: Annotated[tuple[str, ...], tyro.conf.arg(metavar="N")] = ("0-9",)
    """Seeds, as 0-9 or 0 1 2; each trains every cell."""
    steps: Annotated[int, tyro.conf.arg(metavar="N")] = 500
    """Updates of a training."""
    evaluate_every: Annotated[int, tyro.conf.arg(metavar="N")] = 100
    """Updates between looks at the validation split."""
    batch_size: Annotated[int, tyro.conf.arg(metavar="N")] = 64
    """Examples a step."""
    devices: Annotated[int | None, _shown("all; of a CPU one a core")] = None
    """Devices that share a call."""
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("runs/dial")
    """The folder of the trainings and the report."""
    data_dir: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("data")
    """The folder of all data sets."""
    resume: bool = False
    """Continue the dial in --out; what is finished is not run again."""


@dataclasses.dataclass(frozen=True)
class Toy:
    """Draw where methods go on the toy problem of CAGrad, Nash-MTL and FAMO, from five starts."""

    methods: Annotated[tuple[str, ...], _shown("all that serve two tasks", "NAME")] = ()
    """Methods, as list shows them."""
    steps: Annotated[int, tyro.conf.arg(metavar="N")] = 50_000
    """Of Adam, with learning rate 0.001."""
    scale: Annotated[float, tyro.conf.arg(metavar="X")] = 0.1
    """Of the first loss: 0.1 in Nash-MTL and FAMO, 1 in CAGrad."""
    seeds: Annotated[int, tyro.conf.arg(metavar="N")] = 3
    """Of methods that draw."""
    out: Annotated[Path, tyro.conf.arg(metavar="DIR")] = Path("runs/toy")
    """The folder of the report."""


Command = (
    Annotated[List, tyro.conf.subcommand("list")]
    | Annotated[Train, tyro.conf.subcommand("train")]
    | Annotated[Evaluate, tyro.conf.subcommand("evaluate")]
    | Annotated[Features, tyro.conf.subcommand("features")]
    | Annotated[Study, tyro.conf.subcommand("study")]
    | Annotated[Report, tyro.conf.subcommand("report")]
    | Annotated[Demo, tyro.conf.subcommand("demo")]
    | Annotated[Speed, tyro.conf.subcommand("speed")]
    | Annotated[Toy, tyro.conf.subcommand("toy")]
    | Annotated[Dial, tyro.conf.subcommand("dial")]
)


_APART = ("out", "data_dir", "resume")


def command_line(command: Study | Dial | Toy) -> str:
    """The command that repeats this one, where it lies and what it reads apart."""
    words = ["python", "-m", "experiments", type(command).__name__.lower()]
    for field in dataclasses.fields(command):
        value = getattr(command, field.name)
        if field.default is dataclasses.MISSING:  # it has no flag
            words.append(str(value))
        elif field.name not in _APART and value != field.default:
            given = value if isinstance(value, tuple) else (value,)
            words.append("--" + field.name.replace("_", "-"))
            words += [] if isinstance(value, bool) else map(str, given)
    return shlex.join(words)


def parse(
    arguments: Sequence[str],
) -> List | Train | Evaluate | Features | Study | Report | Demo | Speed | Toy | Dial:
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
    # The rules and sides are ASCII where the output's encoding is not UTF-8.
    parts = re.split(r"[─-]{8,}", re.sub(r"[╭╮╰╯│]", " ", box))
    said = []
    for part in (" ".join(part.split()) for part in parts[1:]):
        if part.startswith("Perhaps you meant"):
            said.append("did you mean " + re.findall("--[a-z][a-z-]*", part)[0] + "?")
        elif unread := re.match(r"Error parsing (--\S+):.*from \['(.*?)'\]", part):
            said.append(f"{unread[1]} cannot be read from {unread[2]!r}: see --help")
        elif part and not part.startswith(("For full helptext", "Argument helptext")):
            said.append(part)
    return "; ".join(said) or "the command line could not be read: see --help"
