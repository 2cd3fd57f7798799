"""Kept problems are solved; a planted bug leaves a simple one behind."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.methods import test_identities
from tests.solvers import (
    test_cagrad,
    test_dual_cone,
    test_equal_angles,
    test_min_norm,
    test_power_root,
    test_spectral,
)
from tests.solvers.families import draw
from tests.solvers.kept import DIRECTORY, Check, Problem, load

MODULES = (
    test_cagrad,
    test_dual_cone,
    test_equal_angles,
    test_identities,
    test_min_norm,
    test_power_root,
    test_spectral,
)
CHECKS: dict[str, Check] = {module.CHECK.name: module.CHECK for module in MODULES}


@pytest.mark.parametrize("path", sorted(DIRECTORY.glob("*.json")), ids=lambda path: path.stem)
def test_kept(path: Path) -> None:
    case = load(path)
    CHECKS[case.name].replay(case.problem, case.lanes)


def mean_of(problems: Problem) -> Any:
    """The mean, for all tasks: wrong where two conflict strongly."""
    return np.full(problems["rows"].shape[:2], 1 / problems["rows"].shape[1])


def no_conflict(problem: Problem, weights: np.ndarray) -> None:
    products = problem["rows"] @ (weights @ problem["rows"])
    assert products.min() >= 0, f"task {products.argmin()}"


def test_a_planted_bug_leaves_a_simple_problem(tmp_path: Path) -> None:
    check = Check("planted", mean_of, no_conflict)
    rows = draw(8, 12, 3).jacobians
    with pytest.raises(AssertionError, match=r"problem \d+ of 12, kept as .*: task \d") as raised:
        check.over({"rows": rows}, tmp_path)
    (path,) = tmp_path.iterdir()
    assert str(path) in str(raised.value)
    case = load(path)
    assert re.fullmatch(r"planted-[0-9a-f]{8}\.json", path.name)
    assert (case.name, case.lanes) == ("planted", 1)
    assert case.problem["rows"].shape == (2, 1), "two opposed tasks suffice"
    assert np.all(10 * case.problem["rows"] == np.round(10 * case.problem["rows"]))
    with pytest.raises(AssertionError, match="task"):
        check.replay(case.problem, case.lanes)
    mended = Check("planted", lambda p: 0 * mean_of(p), no_conflict)
    mended.replay(case.problem, case.lanes)


def test_cosines_and_norms_are_shrunk_too(tmp_path: Path) -> None:
    def judge(problem: Problem, answer: np.ndarray) -> None:
        assert np.array_equal(problem["cosine"], problem["cosine"].T)
        assert answer >= -0.5 or problem["norms"].max() < 100

    check = Check("planted", lambda p: p["cosine"].min(axis=(1, 2)), judge)
    draws = np.random.default_rng(0)
    cosine = draws.uniform(-0.9, 0.9, (4, 6, 6))
    cosine = np.float32((cosine + np.swapaxes(cosine, 1, 2)) / 2).astype(float)
    norms = np.float32(10 ** draws.uniform(2.5, 4, (4, 6))).astype(float)
    with pytest.raises(AssertionError, match="kept as"):
        check.over({"cosine": cosine, "norms": norms}, tmp_path)
    (path,) = tmp_path.iterdir()
    problem = load(path).problem
    assert len(problem["norms"]) <= 2
    tenths = np.float32(np.abs(problem["cosine"])) * 10
    assert np.array_equal(tenths, np.round(tenths))


def test_what_fails_only_among_others_is_kept_as_it_is(tmp_path: Path) -> None:
    rows = draw(2, 6, 3).jacobians
    check = Check(
        "planted", lambda p: np.abs(p["rows"] - p["rows"][:1]).max((1, 2)), lambda p, a: fine(a)
    )
    with pytest.raises(AssertionError, match="problem 1 of 6"):
        check.over({"rows": rows}, tmp_path)
    (path,) = tmp_path.iterdir()
    np.testing.assert_array_equal(load(path).problem["rows"], rows[1])


def fine(answer: np.ndarray) -> None:
    assert answer == 0
