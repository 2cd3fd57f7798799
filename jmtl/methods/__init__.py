"""Methods: one file each, and a line in `jmtl.methods.known`.

`METHODS` maps every name to its constructor, `make` builds by name.
"""

import difflib
import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from jmtl.method import Method
from jmtl.methods import known
from jmtl.methods.known import *  # noqa: F403

METHODS: Mapping[str, Callable[..., Method]] = MappingProxyType(
    {name: constructor for name, constructor in vars(known).items() if not name.startswith("_")}
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
