"""What the loss methods' tests share: the reference's block, runs over losses, Adam in NumPy."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jmtl
from jmtl.method import Seen

_FILE = Path(__file__).parents[1] / "reference" / "aggregations.json"
REFERENCE = json.loads(_FILE.read_text())
VALUES = np.asarray(REFERENCE["scalarizers"]["values"])  # [calls, K] the losses of each call
PRECISIONS = [(np.float32, 1e-5), (np.float64, 1e-9)]


def calls(name: str, field: str) -> np.ndarray:
    """A field of the reference's successive calls of one scalarizer."""
    return np.asarray([c[field] for c in REFERENCE["scalarizers"]["runs"][name]["calls"]])


def run(
    method: jmtl.Method, losses: Iterable[Any], dtype: Any = np.float32
) -> tuple[np.ndarray, Any]:
    """The weights of each step `[steps, K]`, and the last state."""
    state = method.init(jnp.ones(2, dtype))
    update = jax.jit(method.update)
    weights = []
    for row in losses:
        answer, state = update(Seen(jnp.asarray(row, dtype)), state)
        weights.append(np.asarray(answer.weights))
    return np.stack(weights), state


def weights_of(method: jmtl.Method, losses: Any, dtype: Any = np.float32) -> np.ndarray:
    """The weights of a first step."""
    return run(method, [losses], dtype)[0][0]


class Adam(NamedTuple):
    """Adam's two moments and its count, in float64; the optimiser's own defaults."""

    first: Any = 0.0
    second: Any = 0.0
    count: int = 0

    def step(self, slope: np.ndarray, rate: float) -> tuple[np.ndarray, "Adam"]:
        """What is added to the parameters, and the next moments."""
        new = Adam(
            0.9 * self.first + 0.1 * slope,
            0.999 * self.second + 0.001 * slope**2,
            self.count + 1,
        )
        first = new.first / (1 - 0.9**new.count)
        second = new.second / (1 - 0.999**new.count)
        return -rate * first / (np.sqrt(second) + 1e-8), new
