"""Methods by name: what is known, and messages about what is not."""

from typing import Any

import jax
import numpy as np
import pytest

import jmtl
from jmtl.methods import nearest, options
from tests.methods.cases import build


def test_every_name_builds_a_method_of_that_name() -> None:
    for name, constructor in jmtl.METHODS.items():
        assert getattr(jmtl, name) is constructor
        assert build(name, 3).name == name
        assert build(name, 3).num_tasks == 3
        assert "num_tasks" not in options(name)
        assert constructor.__doc__
        assert "Args:" in constructor.__doc__


def test_options_reach_the_constructor() -> None:
    method = jmtl.make("mgda", num_tasks=2, normalize="loss", scales_heads=False)
    assert method.uses_losses
    assert not method.scales_heads


@pytest.mark.parametrize(
    ("name", "given", "words"),
    [
        ("pcgradd", {}, "unknown method 'pcgradd': did you mean 'pcgrad'?"),
        ("zzz", {}, "unknown method 'zzz': known: " + ", ".join(sorted(jmtl.METHODS))),
        ("pcgrad", {"reduct": "sum"}, "pcgrad has no option 'reduct': did you mean 'reduce'?"),
        ("equal", {"weights": [1]}, "equal has no option 'weights': known: reduce"),
        ("static", {}, "static needs the option 'weights'"),
        ("mgda", {"num_tasks": 0}, "mgda: num_tasks must be a whole number >= 1, got 0"),
        ("equal", {"num_tasks": -1}, "equal: num_tasks must be a whole number >= 1, got -1"),
        ("pcgrad", {"num_tasks": 2.0}, "pcgrad: num_tasks must be a whole number >= 1, got 2.0"),
        ("equal", {"num_tasks": True}, "equal: num_tasks must be a whole number >= 1, got True"),
        ("uncertainty", {"num_tasks": 0}, "uncertainty: num_tasks must be"),
        ("static", {"num_tasks": 0, "weights": []}, "static: num_tasks must be"),
    ],
)
def test_what_cannot_be_built_is_refused(name: str, given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011 - the whole message is compared below
        jmtl.make(name, **({"num_tasks": 3} | given))
    assert str(raised.value).startswith(words)
    assert "\n" not in str(raised.value)


def test_numpy_integers_are_whole_numbers() -> None:
    assert jmtl.equal(np.int64(3)).num_tasks == 3  # type: ignore[arg-type]


def test_nearest() -> None:
    assert nearest("mgd", ["pcgrad", "mgda"]) == "did you mean 'mgda'?"
    assert nearest("x", ["b", "a"]) == "known: a, b"


def test_the_table_cannot_be_changed() -> None:
    with pytest.raises(TypeError):
        jmtl.METHODS["mine"] = jmtl.equal  # type: ignore[index]


def test_a_key_is_an_option_like_others() -> None:
    assert "key" in options("pcgrad")
    assert jmtl.make("pcgrad", num_tasks=3, key=jax.random.key(0)).name == "pcgrad"
