"""The options that each method needs to be built, for the tests that run every method."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np

import jmtl

# One line for a method whose constructor has an option without default or worth varying.
OPTIONS: dict[str, Callable[[int], dict[str, Any]]] = {
    "static": lambda k: {"weights": np.linspace(0.5, 1.5, k) if k > 1 else [1.0]},
    "pcgrad": lambda k: {"key": jax.random.key(7)},
    "gradvac": lambda k: {"key": jax.random.key(7)},
    "random": lambda k: {"key": jax.random.key(7)},
    "dwa": lambda k: {"window": 3},
    "graddrop": lambda k: {"key": jax.random.key(7)},
    "trimmed_mean": lambda k: {"trim": 1 if k > 2 else 0},
}

# The smallest number of tasks of methods that refuse one or two.
SMALLEST: dict[str, int] = {"krum": 3}


def build(name: str, k: int, **options: Any) -> jmtl.Method:
    """The method with what it needs; `options` win."""
    needed = OPTIONS.get(name, lambda k: {})(k)
    return jmtl.make(name, num_tasks=k, **(needed | options))
