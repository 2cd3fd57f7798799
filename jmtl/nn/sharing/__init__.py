"""Ways of sharing: which parts of a model the tasks train together, and how these are joined.

Each file has one, with its paper and which parameters count as shared: those that more than one
task's loss reaches. They lie under "shared" in the model's parameters, and surgery acts on them;
what one task alone trains lies under "tasks". To add one, write a function from an encoder and
heads to a `Sharing` (flax modules: what all tasks read, and each task's own part), and give it a
line in `SHARINGS`.
"""

import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import flax.linen as nn

from jmtl.methods import nearest
from jmtl.nn.model import Model, model, on_axis
from jmtl.nn.sharing.branching import branching
from jmtl.nn.sharing.cgc import cgc
from jmtl.nn.sharing.cross_stitch import cross_stitch
from jmtl.nn.sharing.dselect_k import dselect_k
from jmtl.nn.sharing.hard import hard
from jmtl.nn.sharing.mmoe import mmoe
from jmtl.nn.sharing.mtan import mtan
from jmtl.nn.sharing.none import none
from jmtl.nn.sharing.parts import Sharing
from jmtl.nn.sharing.ple import ple

__all__ = ["SHARINGS", "Sharing", "make_sharing"]

SHARINGS: Mapping[str, Callable[..., Sharing]] = MappingProxyType(
    {
        "branching": branching,
        "cgc": cgc,
        "cross_stitch": cross_stitch,
        "dselect_k": dselect_k,
        "hard": hard,
        "mmoe": mmoe,
        "mtan": mtan,
        "none": none,
        "ple": ple,
    }
)


def make_sharing(
    name: str,
    encoder: nn.Module,
    heads: Mapping[str, nn.Module],
    axis_name: str | None = None,
    **options: Any,
) -> Model:
    """The model of an encoder and heads under a way of sharing.

    Args:
        name: in `SHARINGS`; "hard" gives `jmtl.nn.model(encoder, heads, axis_name)`.
        encoder: from `make_encoder`, or one of your own; `branching`, `cross_stitch`, `mtan` and
            `ple` want a `jmtl.nn.Staged`.
        heads: by task, from `make_heads`.
        axis_name: pmap's axis, as for `jmtl.nn.model`.
        **options: of the way of sharing.

    Returns:
        The model; its parameters are {"shared": ..., "tasks": {name: ...}}.

    Raises:
        ValueError: an unknown name or option (the nearest is suggested), an encoder without stages
            where they are needed, or no heads.
    """
    arranged = arrange(name, encoder, heads, axis_name, **options)
    return model(arranged.encoder, arranged.heads)._replace(common=arranged.common)


def arrange(
    name: str,
    encoder: nn.Module,
    heads: Mapping[str, nn.Module],
    axis_name: str | None = None,
    **options: Any,
) -> Sharing:
    """The modules of `make_sharing`'s model; arguments and errors are the same."""
    if name not in SHARINGS:
        raise ValueError(f"unknown sharing {name!r}; {nearest(name, SHARINGS)}")
    known = list(inspect.signature(SHARINGS[name]).parameters)[2:]
    for option in options:
        if option not in known:
            raise ValueError(
                f"{name} has no option {option!r}; {nearest(option, known)}"
                if known
                else f"{name} has no options, got {option!r}"
            )

    def placed(module: nn.Module) -> nn.Module:
        return module if axis_name is None else on_axis(module, axis_name)

    made = SHARINGS[name](
        placed(encoder), {k: placed(head) for k, head in heads.items()}, **options
    )
    return made._replace(
        encoder=placed(made.encoder), heads={k: placed(head) for k, head in made.heads.items()}
    )
