"""The options of `speed`, and their reading by argparse where tyro is not installed."""

import argparse
import ast
import dataclasses
import inspect
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn, get_args, get_origin, get_type_hints

from experiments.errors import UserError


@dataclasses.dataclass(frozen=True)
class Options:
    """Time training steps beside equal weights, PyTorch and the machine's floor, interleaved."""

    models: tuple[str, ...] = ("mlp", "lenet")
    """mlp, lenet, deep (an MLP of 12 × 512), resnet18, resnet18-64, transformer, study."""
    tasks: tuple[int, ...] = (2, 8)
    """Numbers of tasks K."""
    methods: tuple[str, ...] = ("pcgrad", "upgrad", "cagrad", "nash", "graddrop", "famo")
    """Methods; equal weights are always there."""
    strategies: tuple[str, ...] = ()
    """How task gradients are computed, as auto, unroll, vmap; default: all but auto."""
    dtype: Literal["float32", "bfloat16"] = "float32"
    """What the models compute in; parameters and inner products are float32."""
    batch: int | None = None
    """Examples a step; default: the model's own number."""
    dispatch: int = 10
    """Steps that one call of a compiled program does; `train` has a hundred, and PyTorch one."""
    peers: bool = False
    """Time PyTorch too, and TorchJD where it is installed."""
    seeds: tuple[int, ...] = ()
    """Measure trainings × steps a second for so many seeds at once, as 1 8 32 128."""
    aggregation: tuple[int, ...] = ()
    """Time aggregation alone on a stack of so many parameters, for the largest of --tasks."""
    trace: bool = False
    """Count copies between host and device in a step with the profiler."""
    preset: Literal["grid", "gpu"] = "grid"
    """gpu: what is asked of a GPU, in order of weight, in place of the options above."""
    repeats: int = 9
    """Interleaved rounds; medians are shown."""
    seconds: float = 0.05
    """The least that one timing lasts."""
    minutes: float | None = None
    """Begin nothing more after so many; default: no limit, 8 for --preset gpu."""
    out: Path | None = None
    """A folder for speed.json, written as it goes, and speed.png; default: neither."""


def helps() -> dict[str, str]:
    """The lines below the fields of `Options`, which tyro reads by itself."""
    (tree,) = ast.parse(inspect.getsource(Options)).body
    found = {}
    for field, text in itertools.pairwise(getattr(tree, "body", [])):
        if isinstance(field, ast.AnnAssign) and isinstance(text, ast.Expr):
            found[ast.unparse(field.target)] = ast.literal_eval(text.value)
    return found


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(message)


def parse(arguments: Sequence[str]) -> Options:
    """Read a command line.

    Raises:
        UserError: in one line, what cannot be read.
    """
    parser = _Parser("python -m experiments.speed", description=Options.__doc__, allow_abbrev=False)
    kinds, texts = get_type_hints(Options), helps()
    for field in dataclasses.fields(Options):
        flag = "--" + field.name.replace("_", "-")
        parser.add_argument(
            flag, default=field.default, help=texts[field.name], **_argument(kinds[field.name])
        )
    given = vars(parser.parse_args(arguments))
    lists = {name: tuple(value) for name, value in given.items() if isinstance(value, list)}
    return Options(**{**given, **lists})


def _argument(kind: Any) -> dict[str, Any]:
    if kind is bool:
        return {"action": "store_true"}
    if get_origin(kind) is tuple:
        inner = get_args(kind)[0]
        return {"nargs": "+", "type": inner, "metavar": "N" if inner is int else "NAME"}
    if get_origin(kind) is Literal:
        return {"choices": get_args(kind)}
    plain = next((part for part in get_args(kind) if part is not type(None)), kind)
    return {"type": plain, "metavar": {int: "N", float: "X"}.get(plain, "DIR")}
