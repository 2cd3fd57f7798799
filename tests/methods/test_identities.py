"""What holds between the methods, and under changes of the problem that must not matter."""

from typing import Any

import numpy as np
import pytest

from tests.methods.surgery import COUNT, METHODS, answers, updates
from tests.solvers.families import bar, conflict_of, draw, fresh_seed
from tests.solvers.kept import Check
from tests.solvers.references import shortest

NEVER_CONFLICT = (
    "mgda", "upgrad", "dualproj", "cagrad c=1", "nash", "nash unclipped", "fairgrad",
    "fairgrad alpha=1",
)  # fmt: skip
LINEAR = ("upgrad", "pcgrad", "config")
# Σ w_i g_i as a power of the gradients' scale t: weights go as t^degree.
DEGREE = {
    "nash": -1, "nash unclipped": -1, "fairgrad alpha=1": -1, "fairgrad": -4 / 3
}  # fmt: skip


def normal(k: int, seed: int = 0, spread: float = 1.0) -> np.ndarray:
    """Well-conditioned rows `[COUNT, k, k + 4]` whose norms differ by up to 10^±spread."""
    rng = np.random.default_rng([k, seed])
    rows = rng.normal(size=(COUNT, k, k + 4)) * 10 ** rng.uniform(-spread, spread, (COUNT, k, 1))
    return rows.astype(np.float32).astype(np.float64)


def close(found: np.ndarray, expected: np.ndarray, limit: Any = 1e-5, name: str = "") -> None:
    """Equal within `limit`, `[]` or `[COUNT]`, of the largest entry, problem by problem."""
    error = np.abs(found - expected).max(axis=-1) / np.abs(expected).max(axis=-1)
    worst = int(np.argmax(error / limit))
    assert np.all(error <= limit), f"{name}, problem {worst}: {error[worst]:.2g}"


def limits(name: str, rows: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """1e-5, let out where a float32 Gramian cannot say more, `[COUNT]`."""
    loss = np.ones(len(rows))
    if name in ("imtl_g", "config"):  # both invert the cosines
        loss = 0.02 * np.linalg.cond(units(rows)) ** 2
    if name == "imtl_g":  # Σ w = 1 amplifies rounding where the weights cancel
        loss = loss * np.abs(weights).sum(axis=1)
    if name == "aligned":  # its scale is the smallest eigenvalue
        loss = 0.04 * np.linalg.cond(rows) ** 2
    return 1e-5 * np.maximum(loss, 1.0)


def units(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def test_one_task_gets_its_own_gradient() -> None:
    rows = normal(1)
    lengths = np.linalg.norm(rows[:, 0], axis=1, keepdims=True)
    scale = {
        "cagrad": 1.5,
        "cagrad c=1": 2.0,
        "nash": 1 / lengths,
        "nash unclipped": 1 / lengths,
        "fairgrad": lengths ** (-4 / 3),
        "fairgrad alpha=1": 1 / lengths,
    }
    for name, update in updates(rows).items():
        close(update, scale.get(name, 1.0) * rows[:, 0], name=name)


def test_two_tasks() -> None:
    rows = normal(2)
    found = updates(rows)
    products = np.einsum("bn,bn->b", rows[:, 0], rows[:, 1])
    assert 5 < np.sum(products < 0) < COUNT - 5, "conflict and harmony are both drawn"
    largest = np.linalg.norm(rows, axis=2).max(axis=1, keepdims=True)
    error = np.abs(found["upgrad"] - found["pcgrad"] / 2) / largest
    assert error.max() <= 1e-5
    bisector = units(units(rows).sum(axis=1))
    for name in ("nash", "imtl_g", "config"):
        close(units(found[name]), bisector)
    clipped = np.linalg.norm(found["nash"], axis=1)
    np.testing.assert_allclose(clipped, 1, rtol=1e-5)


@pytest.mark.parametrize("k", [2, 8])
def test_methods_that_are_one(k: int) -> None:
    rows = normal(k)
    found = updates(rows)
    close(found["fairgrad alpha=1"], found["nash unclipped"])
    np.testing.assert_allclose(
        np.linalg.norm(found["nash unclipped"], axis=1), np.sqrt(k), rtol=1e-5
    )
    close(units(found["nash"]), units(found["nash unclipped"]))
    # Targets start at 0, and a pair meets once a step.
    close(found["gradvac"], found["pcgrad"])
    norms = np.linalg.norm(rows, axis=2)
    gramians = rows @ rows.transpose(0, 2, 1)
    solved = np.linalg.solve(gramians, norms[..., None])[..., 0]
    sign = np.sign(solved.sum(axis=1, keepdims=True))
    # Near 1ᵀG⁺d = 0 the weights cancel, and so do their digits.
    kept = np.abs(solved.sum(axis=1)) > 0.05 * np.abs(solved).sum(axis=1)
    assert kept.sum() > COUNT / 2
    close(units(found["imtl_g"])[kept], (sign * units(found["config"]))[kept], 1e-4)
    if k == 8:
        assert np.any(sign[kept] < 0), "a step against every task is by definition, and drawn"
    cosines = np.einsum("bkn,bn->bk", units(rows), units(found["config"]))
    np.testing.assert_allclose(cosines, cosines[:, :1].repeat(k, 1), atol=1e-5)


@pytest.mark.parametrize("k", [2, 8])
def test_permutation(k: int) -> None:
    rows = normal(k)
    order = np.random.default_rng(k).permutation(k)[::-1]
    plain, permuted = answers(rows), answers(rows[:, order])
    ordered = ("pcgrad", "gradvac")
    for name in METHODS:
        if k == 2 or name not in ordered:
            weights = plain[name][0]
            limit = limits(name, rows, weights)
            close(permuted[name][0], weights[:, order], limit, name)


@pytest.mark.parametrize("k", [2, 8])
def test_rotation(k: int) -> None:
    rows = normal(k)
    rotation, _ = np.linalg.qr(np.random.default_rng(k).normal(size=(k + 4, k + 4)))
    plain, rotated = answers(rows), answers(rows @ rotation)
    for name in METHODS:
        close(rotated[name][0], plain[name][0], limits(name, rows, plain[name][0]), name)


@pytest.mark.parametrize("k", [2, 8])
def test_linear_under_scaling(k: int) -> None:
    """Of rows by c: the update is linear in c > 0, or it is not."""
    rows = normal(k, spread=0.3)
    first, second = np.random.default_rng(k).uniform(0.2, 2, size=(2, COUNT, k, 1))
    parts = [updates(c * rows) for c in (first, second, first + second)]
    for name in METHODS:
        one, two, both = (part[name] for part in parts)
        error = np.linalg.norm(both - one - two, axis=1) / np.linalg.norm(both, axis=1)
        if name in LINEAR:
            assert error.max() <= 1e-4, name
        elif name not in ("gradvac", "gradnorm"):  # which are linear at the first step alone
            assert error.max() > 1e-2, name


@pytest.mark.parametrize("scale", [1e-12, 1e12])
@pytest.mark.parametrize("k", [2, 8])
def test_the_scale_of_all_gradients(k: int, scale: float) -> None:
    rows = normal(k)
    plain, scaled = answers(rows), answers(rows * scale)
    for name in METHODS:
        weights = scaled[name][0] * scale ** -DEGREE.get(name, 0.0)
        close(weights, plain[name][0], limits(name, rows, plain[name][0]), name)


@pytest.mark.parametrize("k", [2, 8])
def test_a_small_task_is_not_conflicted_with(k: int) -> None:
    rows = normal(k, spread=0.3)
    rows[:, 0] *= 1e-6
    rows = rows.astype(np.float32).astype(np.float64)
    found = updates(rows)
    lengths = np.linalg.norm(rows, axis=2)
    for name in ("upgrad", "dualproj"):
        product = np.einsum("bn,bn->b", rows[:, 0], found[name]) / lengths[:, 0]
        assert np.min(product / lengths.max(axis=1)) >= -1e-5 * 0.05, name


def judge(problem: dict[str, np.ndarray], found: Any) -> None:
    """The bars of any problem, of all methods at once."""
    rows = problem["rows"]
    norms = np.linalg.norm(rows, axis=1)
    for name, (weights, residual) in found.items():
        assert np.isfinite(weights).all(), name
        assert np.isfinite(residual), name
    depth = np.linalg.norm(shortest(rows / norms[:, None]))
    for name in NEVER_CONFLICT:
        if depth <= 1e-3 and name.startswith(("nash", "fairgrad")):
            continue  # no solution exists
        conflict, mass = conflict_of(rows, found[name][0])
        assert conflict <= bar(mass), (name, conflict, mass)
    for name in ("mgda", "upgrad", "dualproj", "cagrad", "cagrad c=1", "aligned"):
        assert found[name][1] <= 1e-5, name
    check_fair(rows, {n: found[n][0] for n in ("nash unclipped", "fairgrad")}, depth)
    clipped = found["nash"][0]
    # The norm comes from the cosines, whose rounding counts as the weights' mass squared.
    rounding = 1e-6 * (np.abs(clipped) @ norms) ** 2
    assert np.linalg.norm(clipped @ rows) ** 2 <= 1 + 1e-5 + rounding
    if np.linalg.cond(rows / norms[:, None]) < 100:
        cosines = rows @ (found["config"][0] @ rows) / norms
        assert cosines.min() >= -1e-5 * norms.sum()


CHECK = Check("methods", lambda problems: answers(problems["rows"]), judge)


def check_random(size: int, count: int) -> None:
    seed = fresh_seed()
    for batch in range(-(-count // COUNT)):
        CHECK.over({"rows": draw(size, COUNT, seed + batch).jacobians})


def check_fair(rows: np.ndarray, weights: dict[str, np.ndarray], depth: float) -> None:
    """G α = α^(−1/a) within 1e-4, or within the digits that float32 weights can carry."""
    product = rows @ rows.T
    for (name, alpha), exponent in zip(weights.items(), (1.0, 2.0), strict=True):
        root = alpha ** (1 / exponent)
        cancelled = np.max((np.abs(product) @ alpha) * root)
        if depth > 1e-3:
            error = np.max(np.abs((product @ alpha) * root - 1))
            assert error <= max(1e-4, 1e-6 * cancelled), (name, depth, error, cancelled)
        elif depth < 1e-6 and exponent == 1:
            assert np.linalg.norm(alpha @ rows) <= np.sqrt(len(rows))


@pytest.mark.parametrize("size", [2, 8])
def test_random(size: int) -> None:
    check_random(size, 2 * COUNT)


@pytest.mark.slow
@pytest.mark.parametrize("size", [2, 3, 5, 8, 13, 20, 30, 40])
def test_random_many(size: int) -> None:
    check_random(size, 250)
