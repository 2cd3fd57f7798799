"""Methods: one file each. `METHODS` maps every name to its constructor, `make` builds by name."""

import difflib
import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from jmtl.method import Method
from jmtl.methods.aligned import aligned
from jmtl.methods.cagrad import cagrad
from jmtl.methods.config import config
from jmtl.methods.db_mtl import db_mtl
from jmtl.methods.difficulty import difficulty
from jmtl.methods.dualproj import dualproj
from jmtl.methods.dwa import dwa
from jmtl.methods.equal import equal
from jmtl.methods.excess import excess
from jmtl.methods.fairgrad import fairgrad
from jmtl.methods.famo import famo
from jmtl.methods.geometric import geometric
from jmtl.methods.go4align import go4align
from jmtl.methods.graddrop import graddrop
from jmtl.methods.gradnorm import gradnorm
from jmtl.methods.gradvac import gradvac
from jmtl.methods.imtl_g import imtl_g
from jmtl.methods.imtl_l import imtl_l
from jmtl.methods.krum import krum
from jmtl.methods.mgda import mgda
from jmtl.methods.moco import moco
from jmtl.methods.modo import modo
from jmtl.methods.nash import nash
from jmtl.methods.pcgrad import pcgrad
from jmtl.methods.random import random
from jmtl.methods.round_robin import round_robin
from jmtl.methods.scale_invariant import scale_invariant
from jmtl.methods.sdmgrad import sdmgrad
from jmtl.methods.static import static
from jmtl.methods.stch import stch
from jmtl.methods.trimmed_mean import trimmed_mean
from jmtl.methods.uncertainty import uncertainty
from jmtl.methods.upgrad import upgrad

METHODS: Mapping[str, Callable[..., Method]] = MappingProxyType(
    {
        constructor.__name__: constructor
        for constructor in (
            equal,
            static,
            uncertainty,
            round_robin,
            random,
            dwa,
            geometric,
            scale_invariant,
            imtl_l,
            difficulty,
            stch,
            famo,
            go4align,
            pcgrad,
            mgda,
            gradvac,
            imtl_g,
            cagrad,
            nash,
            fairgrad,
            aligned,
            upgrad,
            dualproj,
            config,
            gradnorm,
            graddrop,
            moco,
            db_mtl,
            excess,
            sdmgrad,
            modo,
            trimmed_mean,
            krum,
        )
    }
)


def nearest(name: str, known: Any) -> str:
    """A clause that suggests the nearest known name, or lists them all."""
    known = sorted(known)
    close = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(known)}"


def options(name: str) -> tuple[str, ...]:
    """The options that the method's constructor takes beside `num_tasks`.

    Raises:
        ValueError: an unknown name; the nearest is suggested.
    """
    if name not in METHODS:
        raise ValueError(f"unknown method {name!r}: {nearest(name, METHODS)}")
    return tuple(inspect.signature(METHODS[name]).parameters)[1:]


def make(name: str, num_tasks: int, **given: Any) -> Method:
    """Build a method by its name in `METHODS`.

    Args:
        name: of a method.
        num_tasks: K.
        **given: the constructor's options.

    Returns:
        The method.

    Raises:
        ValueError: an unknown name or option (the nearest is suggested), a missing option, or an
            option's value that the constructor refuses.
    """
    known = options(name)
    for option in given:
        if option not in known:
            raise ValueError(f"{name} has no option {option!r}: {nearest(option, known)}")
    for option, parameter in inspect.signature(METHODS[name]).parameters.items():
        if option in known and parameter.default is parameter.empty and option not in given:
            raise ValueError(
                f"{name} needs the option {option!r}, as make({name!r}, …, {option}=…)"
            )
    return METHODS[name](num_tasks, **given)
