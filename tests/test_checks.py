"""Options of the loss methods that are out of their range, each refused in one line."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jmtl
from jmtl.checks import check_number, per_task


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("dwa", {"temperature": 0.0}, "dwa: temperature must be a finite number > 0, got 0.0"),
        ("dwa", {"window": 0}, "dwa: window must be a finite number >= 1, got 0"),
        ("imtl_l", {"s0": np.inf}, "imtl_l: s0 must be a finite number, got inf"),
        ("imtl_l", {"learning_rate": -1}, "learning_rate must be a finite number >= 0, got -1"),
        ("difficulty", {"gamma": -1.0}, "gamma must be a finite number >= 0, or 3 of them, got -1"),
        ("difficulty", {"gamma": [1.0, 2.0]}, r"or 3 of them, got shape \(2,\)"),
        ("difficulty", {"a": 1.0}, "a must be a finite number >= 0 and < 1, got 1.0"),
        ("difficulty", {"kappa0": 0.0}, "kappa0 must be a finite number > 0 and <= 1, got 0.0"),
        ("difficulty", {"epsilon": 0.5}, "epsilon must be a finite number > 0 and < 0.5, got 0.5"),
        ("stch", {"mu": 0.0}, "stch: mu must be a finite number > 0, got 0.0"),
        ("stch", {"form": "log"}, "form must be one of paper, code; got 'log'"),
        ("stch", {"preference": [1.0, -1.0, 1.0]}, "preference must be a finite number >= 0"),
        ("stch", {"ideal": "low"}, "ideal must be a finite number, or 3 of them, got 'low'"),
        ("stch", {"warmup": 0}, "stch: warmup must be a finite number >= 1, got 0"),
        ("stch", {"warmup": 5, "window": 6}, "window must be a finite number >= 1 and <= 5, got 6"),
        ("famo", {"learning_rate": np.nan}, "learning_rate must be a finite number >= 0, got nan"),
        ("famo", {"gamma": "small"}, "famo: gamma must be a finite number >= 0, got 'small'"),
        ("famo", {"bounds": [0.0, np.nan, 0.0]}, "bounds must be a finite number, or 3 of them"),
        ("famo", {"epsilon": [1.0]}, r"epsilon must be a finite number >= 0, got \[1.0\]"),
        ("go4align", {"eta": -1e-4}, "go4align: eta must be a finite number >= 0, got -0.0001"),
    ],
)
def test_refusals(name: str, options: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        jmtl.make(name, num_tasks=3, **options)


def test_traced_values_are_checked_for_their_shape() -> None:
    def build(value: jax.Array) -> jax.Array:
        check_number("method", "rate", value[0], above=0)
        with pytest.raises(ValueError, match=r"> 0, got an array of shape \(2,\)"):
            check_number("method", "rate", value, above=0)
        with pytest.raises(ValueError, match=r"or 3 of them, got shape \(2,\)"):
            per_task("method", "bounds", value, 3)
        return per_task("method", "bounds", value[0], 3, least=0)

    np.testing.assert_array_equal(jax.jit(build)(-jnp.ones(2)), -1.0)


def test_known_values_are_checked_under_a_trace() -> None:
    def build(x: jax.Array) -> jax.Array:
        with pytest.raises(ValueError, match="bounds must be a finite number >= 0"):
            per_task("method", "bounds", [-1.0, 1.0], 2, least=0)
        return x

    jax.eval_shape(build, jnp.ones(2))
