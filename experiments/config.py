"""What defines a run, how it is checked, and the method that it names."""

import ast
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax

import jmtl
from experiments.errors import UserError
from experiments.problem import Problem, Recipe
from experiments.problems import PROBLEMS
from jmtl.data.augment import Augment
from jmtl.method import Method, named_key
from jmtl.methods import nearest, options

DEFAULT = "default"
"""The name of a recipe that is its problem's only one."""

FLOAT32 = "float32"
"""What a model computes in unless it is told otherwise."""


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """A run. Two runs of equal configurations are equal bit for bit on one kind of machine.

    `steps`, `devices`, `parallel`, `model_parallel` and `remat` may change when a run is continued:
    more steps continue the same run, and the others give the same numbers to rounding. Fields with
    a default are newer than some saved configurations.

    `origin` is where the encoder's first parameters come from: {} for the seed, or a "file", or a
    "run" and its "step", with the "sha256" of what was taken. `rate_factors` are factors of the
    learning rate by parameter path, 0 for what is frozen, as `jmtl.train.rates` takes them.

    `sampler` is None where the problem has one data set, and `temperature` where the sampler has
    none. `recipe` is the name of the problem's recipe that filled in what was not given. `schedule`
    is [step, factor]: from that step on the learning rate is multiplied by the factor.
    `microbatches` is how many a step accumulates, `dtype` what the model computes in, and `remat`
    whether the encoder's activations are computed again in the backward pass. `model_parallel` of
    the `devices` split the parameters.
    """

    problem: str
    method: str
    method_options: dict[str, dict[str, Any]]
    seed: int
    steps: int
    batch_size: int
    optimizer: str
    learning_rate: float
    weight_decay: float
    encoder: str
    encoder_options: dict[str, Any]
    head_options: dict[str, Any]
    strategy: str
    at: str
    input: str
    steps_per_dispatch: int
    checkpoint_every: int
    measure_every: int
    devices: int
    parallel: str
    origin: dict[str, Any] = dataclasses.field(default_factory=dict)
    rate_factors: dict[str, float] = dataclasses.field(default_factory=dict)
    sampler: str | None = None
    temperature: float | None = None
    augment: str = "none"
    sharing: str = "hard"
    sharing_options: dict[str, Any] = dataclasses.field(default_factory=dict)
    recipe: str = DEFAULT
    schedule: list[list[float]] = dataclasses.field(default_factory=list)
    microbatches: int = 1
    dtype: str = FLOAT32
    remat: bool = False
    model_parallel: int = 1


MAY_CHANGE = ("steps", "devices", "parallel", "model_parallel", "remat")
"""The fields that a continued run may have otherwise."""


def find_problem(name: str) -> Problem:
    """The problem of that name; an unknown one is refused with the nearest."""
    if name not in PROBLEMS:
        raise UserError(f"unknown problem {name!r}: {nearest(name, PROBLEMS)}")
    return PROBLEMS[name]


def recipes_of(problem: Problem) -> Mapping[str, Recipe]:
    """A problem's recipes by name, first the one that is used where none is named."""
    return problem.recipes or {DEFAULT: problem.recipe}


def find_recipe(problem: Problem, name: str | None) -> tuple[str, Recipe]:
    """The problem's recipe of that name, None for the first; an unknown one is refused."""
    known = recipes_of(problem)
    name = next(iter(known)) if name is None else name
    if name not in known:
        raise UserError(f"{problem.name} has no recipe {name!r}: {nearest(name, known)}")
    return name, known[name]


def find_augmentation(problem: Problem, name: str) -> Augment | None:
    """The problem's augmentation of that name, None for "none"; an unknown one is refused."""
    if name == "none":
        return None
    if name not in problem.augmentations:
        known = nearest(name, ["none", *problem.augmentations])
        raise UserError(f"{problem.name} has no augmentation {name!r}: {known}")
    return problem.augmentations[name]


def check(config: RunConfig) -> None:
    """Refuse what cannot be run, before anything is written."""
    counts = ("steps", "batch_size", "steps_per_dispatch", "checkpoint_every", "devices")
    for field in (*counts, "microbatches", "model_parallel"):
        if getattr(config, field) < 1:
            flag = "--" + field.replace("_", "-")
            raise UserError(f"{flag} must be at least 1, got {getattr(config, field)}")
    if not 0 <= config.seed < 2**32:
        raise UserError(f"--seed must be in [0, 2**32), got {config.seed}")
    if not 0 < config.learning_rate < float("inf"):
        raise UserError(f"--learning-rate must be positive, got {config.learning_rate}")
    if not 0 <= config.weight_decay < float("inf"):
        raise UserError(f"--weight-decay must be at least 0, got {config.weight_decay}")
    if config.checkpoint_every % config.steps_per_dispatch:
        raise UserError(
            f"--checkpoint-every {config.checkpoint_every} must be a multiple of the "
            f"{config.steps_per_dispatch} steps of a dispatch"
        )


def check_sampler(config: RunConfig, problem: Problem) -> None:
    """Refuse a sampler or a temperature where there is nothing to sample with it."""
    if isinstance(problem.data, str):
        for field in ("sampler", "temperature"):
            if getattr(config, field) is not None:
                raise UserError(
                    f"--{field} is for problems of several data sets, and {problem.name} has one"
                )
    elif config.sampler == "temperature":
        temperature = config.temperature
        if temperature is None or not 0 < temperature < float("inf"):
            raise UserError(
                "--sampler temperature needs a --temperature above 0, "
                f"got {'none' if temperature is None else temperature}"
            )
    elif config.temperature is not None:
        raise UserError(f"--temperature is of --sampler temperature, not {config.sampler}")


def method_options(
    method: str, given: Sequence[str], weights: str | None, problem: Problem
) -> dict[str, dict[str, Any]]:
    """The options of each method in a chain.

    Args:
        method: names joined by "+", as "uncertainty+pcgrad".
        given: "option=value" or "name.option=value".
        weights: "task=number,...": those of `static`.
        problem: whose tasks `weights` names.

    Returns:
        By method name, options as Python values.

    Raises:
        UserError: an unknown method, option or task, or a value that is missing.
    """
    names = method.split("+")
    try:
        # The key is drawn from the seed.
        known = {name: set(options(name)) - {"key"} for name in names}
    except ValueError as error:
        raise UserError(str(error)) from None
    chosen: dict[str, dict[str, Any]] = {name: {} for name in names}
    for item in given:
        path, equals, text = item.partition("=")
        name, _, option = path.rpartition(".")
        if not equals or not option:
            raise UserError(f"--options takes option=value or method.option=value, got {item!r}")
        owners = [n for n in names if option in known[n]] if not name else [name]
        if name and name not in names:
            raise UserError(f"--options {item}: {name!r} is not in --method {method}")
        if not owners or option not in known[owners[0]]:
            every = {o for n in owners or names for o in known[n]}
            raise UserError(f"{name or method} has no option {option!r}: {nearest(option, every)}")
        if len(owners) > 1:
            raise UserError(
                f"--options {item}: {' and '.join(owners)} both have it; say {owners[0]}.{item}"
            )
        chosen[owners[0]][option] = value_of(text)
    if weights is not None:
        if "static" not in names:
            raise UserError(
                f"--weights belong to the method static: use --method static+{method}, "
                f"not --method {method}"
            )
        chosen["static"]["weights"] = _weights(weights, problem)
    elif "static" in names and "weights" not in chosen["static"]:
        example = ",".join(f"{task.name}=1" for task in problem.tasks)
        raise UserError(f"the method static needs --weights, as --weights {example}")
    return chosen


def make_method(
    names: str, given: Mapping[str, Mapping[str, Any]], seed: Any, problem: Problem
) -> Method:
    """The method of a run, its key drawn from the run's seed.

    Args:
        names: method names joined by "+".
        given: the options of each, by name; numbers may be traced.
        seed: of the run; may be traced.
        problem: whose tasks it serves.

    Raises:
        UserError: a value that a constructor refuses, or a chain in another order.
    """
    k = len(problem.tasks)
    methods = []
    try:
        for name in names.split("+"):
            chosen = dict(given.get(name, {}))
            if "key" in options(name):
                chosen["key"] = named_key(jax.random.key(seed), "method")
            methods.append(jmtl.make(name, k, **chosen))
        return methods[0] if len(methods) == 1 else jmtl.chain(*methods)
    except (ValueError, TypeError) as error:
        raise UserError(str(error)) from error


def rate_factors(frozen: Sequence[str], given: Sequence[str]) -> dict[str, float]:
    """Factors of the learning rate by parameter path.

    Args:
        frozen: paths whose factor is 0.
        given: "path=factor".

    Raises:
        UserError: no factor, or two for one path.
    """
    factors: dict[str, float] = {}
    for item in (*(f"{path}=0" for path in frozen), *given):
        path, _, number = item.rpartition("=")
        path = path.strip("/")
        try:
            factor = float(number)
        except ValueError:
            factor = -1.0
        if not path or not 0 <= factor < float("inf"):
            raise UserError(f"--rate-factor takes path=factor, as encoder=0.1, got {item!r}")
        if path in factors:
            raise UserError(f"--freeze and --rate-factor name {path} twice")
        factors[path] = factor
    return factors


def schedule_of(given: Sequence[str]) -> list[list[float]]:
    """A schedule of the learning rate from items "step=factor", by step; "none" has none.

    Raises:
        UserError: an item is no such thing, or a step is there twice.
    """
    if list(given) == ["none"]:
        return []
    found: dict[int, float] = {}
    for item in given:
        step, equals, factor = (value_of(part) for part in item.partition("="))
        number = isinstance(factor, int | float) and 0 <= factor < float("inf")
        if not equals or not isinstance(step, int) or step < 1 or not number:
            raise UserError(f"--schedule takes step=factor, as 1000=0.5, or none, got {item!r}")
        if step in found:
            raise UserError(f"--schedule names step {step} twice")
        found[step] = float(factor)
    return [[step, found[step]] for step in sorted(found)]


def value_of(text: str) -> Any:
    """A number, list or string as Python spells it; what is none of them is a string."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _weights(text: str, problem: Problem) -> list[float]:
    names = [task.name for task in problem.tasks]
    found: dict[str, float] = {}
    for item in text.split(","):
        name, _, number = item.partition("=")
        if name not in names:
            raise UserError(
                f"--weights: {problem.name} has no task {name!r}: {nearest(name, names)}"
            )
        if name in found:
            raise UserError(f"--weights: {name} is given twice")
        try:
            found[name] = float(number)
        except ValueError:
            raise UserError(f"--weights takes task=number,..., got {item!r}") from None
    if missing := [name for name in names if name not in found]:
        raise UserError(f"--weights: no weight for {', '.join(missing)}")
    return [found[name] for name in names]


def odd_fields(config: Any, saved: Mapping[str, Any]) -> set[str]:
    """What saved fields lack or have beside those of a dataclass; one with a default may lack.

    Fields with a default are newer than some that were saved.
    """
    fields = dataclasses.fields(config)
    none = dataclasses.MISSING
    newer = {f.name for f in fields if f.default is not none or f.default_factory is not none}
    return {field.name for field in fields} - newer ^ saved.keys() - newer


def from_json(saved: Mapping[str, Any], folder: Any) -> RunConfig:
    """The configuration that a run's folder holds.

    Raises:
        UserError: it is none, or its fields are not those of this version.
    """
    if not isinstance(saved, Mapping):
        raise UserError(f"{folder}/config.json is not the configuration of a run")
    if differing := odd_fields(RunConfig, saved):
        odd = ", ".join(sorted(differing))
        raise UserError(f"{folder}/config.json is of another version: fields {odd} do not fit")
    return RunConfig(**saved)
