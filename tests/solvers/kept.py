"""Failing problems are shrunk and kept: a random test that fails leaves a small file behind.

`Check.over` solves a batch of problems and judges each. The first that fails is made simpler while
it still fails at the same line (fewer tasks, fewer columns, norms near one, fewer digits) and
written to `tests/solvers/kept/NAME-HASH.json`; commit that file with the mend, and
`tests/solvers/test_kept.py` replays it from then on.
"""

import hashlib
import json
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

DIRECTORY = Path(__file__).with_name("kept")
SECONDS = 120  # spent on making a failure simpler

Problem = dict[str, np.ndarray]
"""One problem, "rows" `[K, n]` or "cosine" `[K, K]` and "norms" `[K]`; or, with an axis more, many.

Float64 values that float32 holds exactly.
"""


class Check(NamedTuple):
    """What is asked of a solver or of methods, of any problem.

    Attributes:
        name: of the files.
        solve: problems with leading axes `[B, ...]` -> answers, a pytree with leaves `[B, ...]`.
        judge: `(problem, answer)`, both without that axis; raises AssertionError.
    """

    name: str
    solve: Callable[[Problem], Any]
    judge: Callable[[Problem, Any], None]

    def over(self, problems: Problem, directory: Path = DIRECTORY) -> Any:
        """The answers to `problems`; a failure is shrunk, kept and raised."""
        answers = jax.tree.map(np.asarray, self.solve(problems))
        lanes = _lanes(problems)
        for i in range(lanes):
            problem = {name: values[i] for name, values in problems.items()}
            try:
                self.judge(problem, jax.tree.map(lambda x, i=i: x[i], answers))
            except AssertionError as error:
                path = _keep(self, problem, lanes, error, directory)
                raise AssertionError(f"problem {i} of {lanes}, kept as {path}: {error}") from error
        return answers

    def replay(self, problem: Problem, lanes: int) -> None:
        """Judges one problem, solved `lanes` at once: programs of other widths round otherwise."""
        many = {name: np.repeat(values[None], lanes, 0) for name, values in problem.items()}
        answers = jax.tree.map(lambda x: np.asarray(x)[0], self.solve(many))
        self.judge(problem, answers)


class Case(NamedTuple):
    """A kept problem: the name of its check, the problem, and how many were solved at once."""

    name: str
    problem: Problem
    lanes: int


def load(path: Path) -> Case:
    """The case in a file."""
    content = json.loads(path.read_text(encoding="utf-8"))
    problem = {name: _exact(np.asarray(x)) for name, x in content["problem"].items()}
    return Case(content["check"], problem, content["lanes"])


def _exact(values: np.ndarray) -> np.ndarray:
    return values.astype(np.float32).astype(np.float64)


def _lanes(problems: Problem) -> int:
    return len(next(iter(problems.values())))


def _place(check: Check, error: AssertionError) -> int:
    """The line of the judge that failed."""
    file = check.judge.__code__.co_filename
    lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
    return lines[-1] if lines and lines[-1] is not None else -1


def _failure(check: Check, problem: Problem, lanes: int) -> int | None:
    """The line at which the problem fails, or None."""
    try:
        check.replay(problem, lanes)
    except AssertionError as error:
        return _place(check, error)
    except Exception:  # simplified out of what the judge is for: a zero row, a reference that stops
        return None
    return None


def _keep(
    check: Check, problem: Problem, lanes: int, error: AssertionError, directory: Path
) -> Path:
    line = _place(check, error)
    for width in dict.fromkeys((1, lanes)):
        if _failure(check, problem, width) == line:
            problem = shrink(problem, lambda p, width=width: _failure(check, p, width) == line)
            lanes = width
            break
    numbers = {name: [_row(row) for row in values] for name, values in problem.items()}
    content = {"check": check.name, "lanes": lanes, "why": str(error).split("\n")[0]}
    text = json.dumps(numbers).replace("], [", "],\n  [")
    path = directory / f"{check.name}-{hashlib.sha256(text.encode()).hexdigest()[:8]}.json"
    directory.mkdir(exist_ok=True)
    path.write_text(json.dumps(content)[:-1] + f',\n  "problem": {text}}}\n', encoding="utf-8")
    return path


def _row(row: np.ndarray) -> Any:
    short = [float(_text(x)) for x in np.ravel(row)]
    return short if np.ndim(row) else short[0]


def _text(x: float) -> str:
    """The shortest decimal that float32 reads as x."""
    return np.format_float_scientific(np.float32(x), trim="-")


def _size(problem: Problem) -> tuple[int, int, float, int]:
    """What shrinking lowers: tasks, numbers, how far norms are from one, digits."""
    numbers = [x for values in problem.values() for x in np.ravel(values)]
    scale = problem.get("norms")
    if scale is None:
        scale = np.abs(problem["rows"]).max(axis=1, initial=0)
    spread = np.sum(np.abs(np.floor(np.log2(scale, where=scale > 0, out=np.zeros(len(scale))))))
    digits = sum(len(_text(x).split("e")[0].strip("-").replace(".", "")) for x in numbers if x)
    return len(scale), len(numbers), float(spread), digits


def shrink(problem: Problem, fails: Callable[[Problem], bool]) -> Problem:
    """The simplest problem found that still fails, by one greedy pass after another.

    Args:
        problem: fails.
        fails: whether a problem does.
    """
    index, moved, end = 0, False, time.monotonic() + SECONDS
    while time.monotonic() < end:
        moves = list(_moves(problem))
        if index >= len(moves):
            if not moved:
                break
            index, moved = 0, False
            continue
        simpler = {name: _exact(values) for name, values in moves[index]().items()}
        if _size(simpler) < _size(problem) and fails(simpler):
            problem, moved = simpler, True
        else:
            index += 1
    return problem


def _moves(problem: Problem) -> Iterator[Callable[[], Problem]]:
    """Ways to simplify, the largest steps first."""
    tasks = len(next(iter(problem.values())))
    for part in _parts(tasks):
        if len(part) < tasks:
            yield lambda part=part: {
                name: np.delete(np.delete(values, part, 0), part, 1)
                if name == "cosine"
                else np.delete(values, part, 0)
                for name, values in problem.items()
            }
    if "rows" in problem:
        columns = problem["rows"].shape[1]
        for part in _parts(columns):
            if len(part) < columns:
                yield lambda part=part: {"rows": np.delete(problem["rows"], part, 1)}
    for part in _parts(tasks):
        yield lambda part=part: _near_one(problem, part)
    for name, values in problem.items():
        every = np.ndindex(values.shape)
        regions = [..., *range(tasks), *every] if name == "rows" else [..., *every]
        for region in regions:
            for digits in (0, 1, 2, 3, 5):
                yield (
                    lambda name=name, region=region, digits=digits: (
                        problem | {name: _rounded(problem[name], region, digits, name == "cosine")}
                    )
                )


def _parts(count: int) -> Iterator[list[int]]:
    """Runs of indices: halves, quarters, …, each alone."""
    length = count
    while length > 1:
        length = -(-length // 2)
        for start in range(0, count, length):
            yield list(range(start, min(start + length, count)))


def _near_one(problem: Problem, part: list[int]) -> Problem:
    """Tasks whose largest entry, or norm, comes to [1, 2) by a power of two."""
    name = "norms" if "norms" in problem else "rows"
    values = problem[name].copy()
    for i in part:
        largest = np.abs(values[i]).max(initial=0)
        if largest > 0:
            values[i] = values[i] * 2.0 ** -np.floor(np.log2(largest))
    return problem | {name: values}


def _rounded(values: np.ndarray, region: Any, digits: int, symmetric: bool) -> np.ndarray:
    """`digits` significant decimals in a region; none is zero."""
    values = values.copy()
    for place in {region, region[::-1]} if symmetric and isinstance(region, tuple) else {region}:
        short = [float(f"{x:.{digits - 1}e}") if digits else 0.0 for x in np.ravel(values[place])]
        values[place] = np.reshape(short, np.shape(values[place]))
    return values
