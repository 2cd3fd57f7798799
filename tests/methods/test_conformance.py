"""Every method through the same cases.

A new method needs a line in `tests/methods/cases.py` where its constructor has an option without
a default, and none otherwise.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jmtl
from jmtl.gramian import cross_products
from jmtl.method import Seen, respond
from tests.methods.cases import SMALLEST, build

WIDTH = 6
STEPS = 10

Outcome = tuple[jax.Array, jax.Array, jax.Array]


def jacobians(k: int) -> dict[str, np.ndarray]:
    """Rows `[k, WIDTH]` that a training can meet."""
    rows = np.random.default_rng(k).normal(size=(k, WIDTH))
    zero, equal, anti = rows.copy(), rows[:1].repeat(k, 0), rows.copy()
    zero[0] = 0.0
    anti[-1] = -rows[0]
    others = {
        f"random {i}": np.random.default_rng([k, i]).normal(size=rows.shape) for i in range(7)
    }
    return others | {
        "random": rows,
        "small": 1e-12 * rows,
        "zero row": zero,
        "equal rows": equal,
        "antiparallel rows": anti,
        "nothing": np.zeros((k, WIDTH)),
    }


def train(method: jmtl.Method, rows: jax.Array, losses: jax.Array) -> Outcome:
    """STEPS updates in a scan: updates `[STEPS, WIDTH]`, weights `[STEPS, K]`, residuals."""
    tree = {"a": rows[:, :-1], "b": rows[:, -1]}
    params = jax.tree.map(lambda leaf: leaf[0], tree)
    transform = None if method.batches > 1 else jmtl.aggregator(method)

    def update(state: Any, losses: jax.Array) -> tuple[Any, Any, jax.Array, jax.Array]:
        if transform is not None:
            updates, after = transform.update(tree, state, losses=losses)
            return updates, after, after.weights, after.residual
        given = Seen(losses, jmtl.gramian(tree), cross_products(tree, tree))
        answer, state = respond(method, given, state)
        return jmtl.combine(tree, answer.weights), state, answer.weights, answer.residual

    def step(state: Any, t: jax.Array) -> tuple[Any, Outcome]:
        now = losses * (1 + 0.1 * t)
        updates, state, weights, residual = update(state, now)
        if method.observe is not None:
            observed = method.observe(now, 0.9 * now, getattr(state, "method", state))
            state = observed if transform is None else state._replace(method=observed)
        flat = jnp.concatenate([updates["a"], updates["b"][None]])
        return state, (flat, weights, residual)

    start = method.init(params) if transform is None else transform.init(params)
    return jax.lax.scan(step, start, jnp.arange(STEPS, dtype=losses.dtype))[1]


def with_key(name: str, k: int) -> Any:
    """`(key, rows [K, WIDTH]) -> Outcome`, the key given to methods that take one."""
    keyed = "key" in jmtl.methods.options(name)
    losses = jnp.linspace(0.5, 2.0, k, dtype=jnp.float32)

    def one(key: jax.Array, rows: jax.Array) -> Outcome:
        return train(build(name, k, **({"key": key} if keyed else {})), rows, losses)

    return one


@pytest.mark.parametrize("k", [1, 2, 40])
@pytest.mark.parametrize("name", jmtl.METHODS)
def test_every_input_gives_a_finite_answer(name: str, k: int) -> None:
    """Under jit, vmap over inputs and keys, and scan; for K = 2, equal to one at a time."""
    one_by_one, k = k == 2, max(k, SMALLEST.get(name, 1))
    cases = jacobians(k)
    stack = jnp.asarray(np.stack(list(cases.values())), jnp.float32)
    keys = jax.random.split(jax.random.key(1), len(stack))
    run = with_key(name, k)
    outcome = jax.jit(jax.vmap(run))(keys, stack)
    updates, weights, residuals = map(np.asarray, outcome)
    assert updates.shape == (len(cases), STEPS, WIDTH)
    assert weights.shape == (len(cases), STEPS, k)
    assert residuals.shape == (len(cases), STEPS)
    assert updates.dtype == weights.dtype == residuals.dtype == np.float32
    for index, case in enumerate(cases):
        assert np.isfinite(updates[index]).all(), case
        assert np.isfinite(residuals[index]).all(), case
        row_weights = weights[index].astype(np.float64)
        assert np.isfinite(row_weights).all() or np.isnan(row_weights).all(), case
        if np.isfinite(row_weights).all():
            total = row_weights @ np.asarray(stack[index], np.float64)
            largest = np.abs(row_weights).max() * np.abs(cases[case]).max() * k
            np.testing.assert_allclose(updates[index], total, atol=1e-6 * largest + 1e-30)
        if case == "nothing":
            np.testing.assert_array_equal(updates[index], 0.0)
    if one_by_one:
        alone = jax.jit(run)
        for index in [i for i, case in enumerate(cases) if case.startswith("random")]:
            for part, whole in zip(alone(keys[index], stack[index]), outcome, strict=True):
                largest = float(np.max(np.abs(part), initial=0.0))
                np.testing.assert_allclose(whole[index], part, atol=1e-5 * largest + 1e-6)


@pytest.mark.parametrize("name", jmtl.METHODS)
def test_x64_leaves_a_float32_training_float32(name: str) -> None:
    """A state whose dtype changed could not be carried through the scan."""
    with jax.enable_x64(True):
        rows = jax.ShapeDtypeStruct((3, WIDTH), jnp.float32)
        updates, _, _ = jax.eval_shape(with_key(name, 3), jax.random.key(0), rows)
    assert updates.dtype == jnp.float32
