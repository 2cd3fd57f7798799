"""MoCo, DB-MTL and ExcessMTL against their recurrences, and at the edges."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jmtl
from jmtl.method import Seen, respond
from jmtl.methods.rows import row_sums
from jmtl.products import BLOCK
from tests.methods import recurrences
from tests.methods.recurrences import K, problem, runner

MOCO = {"beta": 0.5, "gamma": 2.0, "sigma": 0.5, "rho": 0.3}
DB = {"beta": 0.9, "sigma": 0.5}


def close(found: Any, expected: Any, x64: bool) -> None:
    largest = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=(1e-12 if x64 else 2e-6) * largest)


@pytest.mark.parametrize("x64", [False, True])
def test_moco_is_its_recurrence(x64: bool) -> None:
    grads, losses = problem()
    grads[1, 2] = 0.0  # a task without gradient is tracked towards zero
    updates, weights = zip(*recurrences.moco(grads, losses, **MOCO), strict=True)
    with jax.enable_x64(x64):
        found, states = runner(jmtl.moco(K, **MOCO))(grads, losses)
    close(found, np.stack(updates), x64)
    close(states.method.weights, np.stack(weights), x64)
    assert np.ptp(weights[-1]) > 0.1, "nothing moved"
    assert np.isnan(states.weights).all()


@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize("sigma", [0.0, 0.5])
def test_db_mtl_is_its_recurrence(sigma: float, x64: bool) -> None:
    grads, losses = problem()
    options = DB | {"sigma": sigma}
    expected = np.stack(list(recurrences.db_mtl(grads, losses, **options)))
    with jax.enable_x64(x64):
        found, states = runner(jmtl.db_mtl(K, **options))(grads, losses)
    close(found, expected, x64)
    assert np.isnan(states.weights).all()


@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize("epsilon", [0.0, 1e-7])
def test_excess_is_its_recurrence(epsilon: float, x64: bool) -> None:
    grads, losses = problem(scale=1e-3)
    weights = np.stack(list(recurrences.excess(grads, 0.3, epsilon)))
    with jax.enable_x64(x64):
        found, states = runner(jmtl.excess(K, eta=0.3, epsilon=epsilon))(grads, losses)
    close(states.weights, weights, x64)
    close(found, np.einsum("tk,tkn->tn", weights, grads), x64)
    assert np.ptp(weights[-1]) > 0.01, "nothing moved"
    np.testing.assert_array_equal(states.weights[0], 1.0)


@pytest.mark.parametrize("n", [BLOCK // 3, BLOCK])
def test_row_sums_of_many_elements(n: int) -> None:
    rows = np.random.default_rng(0).normal(size=(3, 2, n // 2)).astype(np.float32)
    summed = jax.jit(lambda a, b: row_sums(lambda a, b: a * jnp.abs(b), a, b))
    expected = np.sum(np.float64(rows) * np.abs(rows), axis=(1, 2))
    np.testing.assert_allclose(summed(rows, rows), expected, rtol=0, atol=1e-6 * n)
    rows[1, 1, -1], rows[2, 0, 0] = np.nan, np.inf
    np.testing.assert_array_equal(np.isfinite(summed(rows, rows)), [True, False, False])


def test_excess_counts_a_task_from_its_first_gradient() -> None:
    grads, losses = problem()
    grads[0, 1] = 0.0
    _, states = runner(jmtl.excess(K, eta=0.3))(grads, losses)
    first = states.method.first
    np.testing.assert_array_equal(first[0, 1], 0.0)
    np.testing.assert_allclose(first[1:, 1], np.abs(grads[1, 1]).sum(), rtol=1e-6)
    np.testing.assert_array_equal(states.weights[0], 1.0)
    assert np.isfinite(states.weights).all()
    np.testing.assert_allclose(np.sum(states.weights, axis=1), K, rtol=1e-6)


@pytest.mark.parametrize(("name", "power"), [("moco", 0), ("db_mtl", 1), ("excess", 1)])
def test_scale_of_the_gradients(name: str, power: int) -> None:
    """MoCo: none. DB-MTL: the update's. ExcessMTL: none in the weights."""
    grads, losses = problem()
    run = runner(jmtl.make(name, K, **({"eta": 0.3} if name == "excess" else {})))
    one, states = run(grads, losses)
    for scale in (1e-25, 1e-12, 1e12, 1e25):
        other, scaled = run(scale * grads, losses)
        close(other / scale**power, one, False)
        np.testing.assert_allclose(scaled.weights, states.weights, rtol=1e-5)


def test_db_mtl_does_not_see_the_scale_of_a_loss() -> None:
    grads, losses = problem()
    factor = np.asarray([1.0, 1e3, 1e-3])
    run = runner(jmtl.db_mtl(K))
    one, _ = run(grads, losses)
    other, _ = run(grads * factor[:, None], losses * factor)
    np.testing.assert_allclose(other, one, rtol=0, atol=2e-5 * np.abs(one).max())


def answer_of(method: jmtl.Method, rows: Any, losses: Any) -> Any:
    def first(rows: Any, losses: Any) -> Any:
        seen = Seen(losses, jmtl.gramian(rows), gradients=rows)
        return respond(method, seen, method.init(rows[0]))[0]

    return jax.jit(first)(jnp.asarray(rows), jnp.asarray(losses))


def test_heads() -> None:
    rows, losses = np.eye(3, 4, dtype=np.float32), [0.5, 2.0, 1e-8]
    found = answer_of(jmtl.db_mtl(K), rows, losses).heads
    np.testing.assert_allclose(found, [2.0, 0.5, 5e7], rtol=1e-6)
    np.testing.assert_array_equal(answer_of(jmtl.moco(K), rows, losses).heads, 1.0)
    excess = answer_of(jmtl.excess(K), rows, losses)
    np.testing.assert_array_equal(excess.heads, excess.weights)
    assert jmtl.excess(K).scales_heads


@pytest.mark.parametrize("name", ["moco", "db_mtl", "excess"])
def test_one_task_keeps_its_direction(name: str) -> None:
    row = np.asarray([[3.0, -4.0]], np.float32)
    answer = answer_of(jmtl.make(name, num_tasks=1), row, [2.0])
    # MoCo: half of the way to L g/‖g‖. DB-MTL: a tenth of the way to g/L.
    factor = {"moco": 0.5 * 2 / 5, "db_mtl": 0.1 / 2, "excess": 1.0}[name]
    found = jmtl.combine(row, answer.weights) if answer.gradient is None else answer.gradient
    np.testing.assert_allclose(found, factor * row[0], rtol=1e-6)


@pytest.mark.parametrize("name", ["moco", "db_mtl", "excess"])
def test_a_nan_shows_and_dtypes_stay(name: str) -> None:
    rows = np.ones((3, 4), np.float32)
    method = jmtl.make(name, num_tasks=3)
    params = {"half": jnp.zeros(4, jnp.bfloat16), "single": jnp.zeros(4)}
    tx = jmtl.aggregator(method)
    update = jax.jit(tx.update)
    state = tx.init(params)
    grads = {"half": jnp.asarray(rows, jnp.bfloat16), "single": jnp.asarray(rows).at[1, 2].set(0)}
    updates, after = update(grads, state, losses=jnp.ones(3))
    assert (updates["half"].dtype, updates["single"].dtype) == (jnp.bfloat16, jnp.float32)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(
        lambda x: (x.shape, x.dtype), state
    )
    broken = grads | {"single": grads["single"].at[1, 2].set(jnp.nan)}
    for _ in range(2):
        updates, state = update(broken, state, losses=jnp.ones(3))
        assert np.isnan(updates["single"]).any()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: jmtl.moco(2, beta=1.5), "moco: beta must be a finite number >= 0 and <= 1"),
        (lambda: jmtl.moco(2, rho=-1), "moco: rho must be a finite number >= 0"),
        (lambda: jmtl.db_mtl(2, sigma=np.nan), "db_mtl: sigma must be a finite number >= 0"),
        (lambda: jmtl.excess(2, eta="fast"), "excess: eta must be a finite number >= 0"),
    ],
)
def test_refusals(build: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        build()


def test_options_may_be_traced() -> None:
    grads, losses = problem(2)
    stack, now = jnp.asarray(grads[0], jnp.float32), jnp.asarray(losses[0], jnp.float32)

    def update(value: Any) -> Any:
        out = []
        for method in (
            jmtl.moco(K, gamma=value),
            jmtl.db_mtl(K, beta=value),
            jmtl.excess(K, value),
        ):
            tx = jmtl.aggregator(method)
            out.append(tx.update(stack, tx.init(stack[0]), losses=now)[0])
        return out

    values = [0.2, 0.7]
    together = jax.jit(jax.vmap(update))(jnp.asarray(values))
    for i, value in enumerate(values):
        alone = jax.jit(lambda value=value: update(value))()
        for found, expected in zip(together, alone, strict=True):
            np.testing.assert_allclose(found[i], expected, rtol=1e-5)
