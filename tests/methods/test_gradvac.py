"""GradVac on the Gramian against the paper's loop on explicit vectors, and the reference."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jmtl
from jmtl.method import Seen, named_key
from jmtl.methods.gradvac import vaccinate
from tests.solvers.references import CASES, rows_of

WIDTH = 200


def paper(
    rows: np.ndarray, goals: np.ndarray, orders: Any, beta: float
) -> tuple[np.ndarray, np.ndarray]:
    """Algorithm 1 on explicit float64 vectors: the update `[n]`, and the new goals."""
    goals, norms = goals.copy(), np.linalg.norm(rows, axis=1)
    total = np.zeros(rows.shape[1])
    for i, order in enumerate(orders):
        h = rows[i].copy()
        for j in order:
            length = np.linalg.norm(h)
            if j == i or length == 0 or norms[j] == 0:
                continue
            rho, goal = h @ rows[j] / (length * norms[j]), goals[i, j]
            if rho < goal:
                edit = goal * np.sqrt(1 - rho**2) - rho * np.sqrt(1 - goal**2)
                h += rows[j] * length * edit / (norms[j] * np.sqrt(1 - goal**2))
            goals[i, j] = (1 - beta) * goal + beta * rho
        total += h
    return total, goals


@jax.jit
def three_calls(leaf: jax.Array, orders: jax.Array, beta: jax.Array) -> Any:
    """Updates `[3, n]` and goals `[3, K, K]` of one J seen three times, with beta given."""
    gram = jmtl.gramian(leaf)

    def call(goals: jax.Array, _: None) -> Any:
        held, goals = vaccinate(gram, goals, orders, beta)
        ratios = gram.norms[:, None] / jnp.where(gram.norms == 0, 1, gram.norms)[None, :]
        return goals, (jmtl.combine(leaf, jnp.sum(ratios * held, axis=0)), goals)

    return jax.lax.scan(call, jnp.zeros_like(gram.cosine), length=3)[1]


@pytest.mark.parametrize("case", CASES)
def test_reference_and_paper(case: str) -> None:
    """The reference adds 1e-8 to denominators, so float64 is held to the paper's own loop."""
    rows, block = rows_of(case), CASES[case]["stochastic"]["GradVac"]
    k, largest = len(rows), np.linalg.norm(rows, axis=1).max()
    padded = np.zeros((k, WIDTH))
    padded[:, : rows.shape[1]] = rows
    for dtype, limit in ((np.float32, 1e-5), (np.float64, 1e-9)):
        for name in ("ascending", "descending"):
            orders = [[i, *order] for i, order in enumerate(block[name]["orders"])]
            with jax.enable_x64(dtype is np.float64):
                given = jnp.asarray(padded, dtype), jnp.asarray(orders, jnp.int32)
                found, goals = map(np.asarray, three_calls(*given, jnp.asarray(0.5, dtype)))
            assert found.dtype == goals.dtype == dtype
            learnt = np.zeros((k, k))
            for call, expected in enumerate(block[name]["three_calls_same_J"]):
                update, learnt = paper(rows, learnt, orders, 0.5)
                error = np.linalg.norm(found[call, : rows.shape[1]] - update)
                assert error <= limit * largest, (dtype, name, call)
                # Ten times: the cosine of an edited gradient that is nearly zero.
                np.testing.assert_allclose(goals[call], learnt, atol=10 * limit)
                assert np.linalg.norm(update - expected) <= 1e-5 * largest
            np.testing.assert_allclose(
                np.reshape(block[name]["phi_after_3"], (k, k)), learnt, atol=1e-5
            )


def test_the_method_draws_an_order_for_each_task_and_step() -> None:
    k, beta = 4, 0.3
    rows = np.random.default_rng(0).normal(size=(5, k, 3)) - 0.2
    key = jax.random.key(5)
    method = jmtl.gradvac(k, key=key, beta=beta)
    update = jax.jit(lambda rows, state: method.update(Seen(None, jmtl.gramian(rows)), state))
    state = method.init(jnp.zeros(3))
    goals = np.zeros((k, k))
    drawn = []
    for step, now in enumerate(rows):
        step_key = jax.random.fold_in(named_key(key, "gradvac"), step)
        start = jnp.tile(jnp.arange(k), (k, 1))
        orders = np.asarray(jax.random.permutation(step_key, start, axis=1, independent=True))
        drawn.append(orders)
        expected, goals = paper(now, goals, orders, beta)
        answer, state = update(jnp.asarray(now, jnp.float32), state)
        found = np.asarray(answer.weights, np.float64) @ now
        np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(now).max())
        np.testing.assert_allclose(state.goals, goals, atol=1e-5)
    assert np.any(drawn[0][0] != drawn[0][1:]), "one order for all tasks"
    assert np.any(drawn[0] != drawn[1]), "one order for all steps"


def test_without_conflict_the_first_step_is_the_sum() -> None:
    gram = jmtl.gramian(jnp.eye(3) + 0.1)
    method = jmtl.gradvac(3, order="fixed")
    answer, state = method.update(Seen(None, gram), method.init(jnp.zeros(3)))
    np.testing.assert_array_equal(answer.weights, np.ones(3))
    assert np.all(np.asarray(state.goals)[~np.eye(3, dtype=bool)] > 0)


@pytest.mark.parametrize("beta", [0.01, 1.0])
def test_goals_of_one_and_absent_tasks_stay_finite(beta: float) -> None:
    """Equal rows teach a goal of 1, which no other rows can reach; a zero row teaches nothing."""
    method = jmtl.gradvac(3, order="fixed", beta=beta)
    equal = jnp.ones((3, 4))
    update = jax.jit(lambda rows, state: method.update(Seen(None, jmtl.gramian(rows)), state))
    _, state = update(equal, method.init(equal[0]))
    absent = equal.at[1].set(0)
    answer, after = update(absent, state)
    np.testing.assert_array_equal(after.goals[1], state.goals[1])
    np.testing.assert_array_equal(after.goals[:, 1], state.goals[:, 1])
    np.testing.assert_allclose(answer.weights, 1, atol=1e-6)
    for rows in (-equal.at[0].multiply(-1), jnp.eye(3, 4)):
        answer, after = update(rows, state)
        assert np.isfinite(answer.weights).all()
        assert np.isfinite(after.goals).all()


def test_non_finite_gradients_show() -> None:
    method = jmtl.gradvac(3, order="fixed")
    rows = jnp.eye(3).at[1, 1].set(jnp.nan)
    answer, _ = method.update(Seen(None, jmtl.gramian(rows)), method.init(rows[0]))
    assert np.isnan(answer.weights).any()


def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match="gradvac: order='random' needs a key"):
        jmtl.gradvac(3)
    jmtl.gradvac(2)
    with pytest.raises(ValueError, match="gradvac: key must be one of"):
        jmtl.gradvac(3, key=0)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="beta must be a finite number >= 0 and <= 1"):
        jmtl.gradvac(2, beta=1.5)
    with pytest.raises(ValueError, match="order must be one of random, fixed"):
        jmtl.gradvac(2, order="sorted")  # type: ignore[arg-type]
