"""GradDrop against the reference for given draws, and what its draws are."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jmtl
from jmtl.method import Seen, named_key
from jmtl.methods.graddrop import pick_signs
from tests.solvers.references import CASES, cases_with, rows_of

KEY = jax.random.key(5)


@pytest.mark.parametrize("x64", [False, True])
@pytest.mark.parametrize("case", cases_with("GradDrop", "stochastic"))
def test_given_draws_give_the_reference(case: str, x64: bool) -> None:
    block, rows = CASES[case]["stochastic"]["GradDrop"], rows_of(case)
    bound = (1e-14 if x64 else 1e-6) * np.abs(rows).sum(axis=0).max()
    with jax.enable_x64(x64):
        given = [jnp.asarray(x, float) for x in (rows, block["U"], block["leak"])]
        picked = pick_signs(given[0], given[1], jnp.zeros(len(rows)))
        np.testing.assert_allclose(picked, block["vector"], rtol=0, atol=bound)
        np.testing.assert_allclose(pick_signs(*given), block["vector_leak"], rtol=0, atol=bound)


def update_of(method: jmtl.Method, grads: Any, steps: int = 1) -> Any:
    """The updates of `steps` steps on the same task gradients, leaves `[steps, ...]`."""

    def step(state: Any, _: None) -> Any:
        answer, state = method.update(Seen(jnp.ones(method.num_tasks), gradients=grads), state)
        return state, (answer.gradient, answer.weights)

    state = method.init(jax.tree.map(lambda leaf: leaf[0], grads))
    found, weights = jax.jit(lambda s: jax.lax.scan(step, s, None, steps)[1])(state)
    assert np.isnan(weights).all()
    return found


def test_draws_are_of_the_step_and_the_leaf() -> None:
    rows = np.random.default_rng(0).normal(size=(3, 50)).astype(np.float32)
    grads = {"a": jnp.asarray(rows), "b": jnp.asarray(rows).reshape(3, 5, 10)}
    found = update_of(jmtl.graddrop(3, KEY, leak=[0.0, 0.5, 1.0]), grads, steps=2)
    for step in range(2):
        key = jax.random.fold_in(named_key(KEY, "graddrop"), step)
        for i, name in enumerate(("a", "b")):
            uniform = jax.random.uniform(jax.random.fold_in(key, i), grads[name].shape[1:])
            expected = pick_signs(grads[name], uniform, jnp.asarray([0.0, 0.5, 1.0]))
            np.testing.assert_allclose(found[name][step], expected, rtol=1e-6, atol=1e-6)
    assert (found["a"][0] != found["a"][1]).any(), "steps share their draws"
    assert (found["a"][0] != found["b"][0].reshape(-1)).any(), "leaves share their draws"


def test_the_share_of_each_sign_is_the_purity() -> None:
    column = np.asarray([3.0, -1.0], np.float32)  # P = 3/4
    found = np.asarray(update_of(jmtl.graddrop(2, KEY), jnp.tile(column[:, None], 20_000))[0])
    assert set(found.tolist()) == {3.0, -1.0}
    # Five standard deviations of a binomial share.
    assert abs((found == 3.0).mean() - 0.75) < 5 * np.sqrt(0.75 * 0.25 / 20_000)


def test_no_conflict_is_the_sum() -> None:
    rows = np.abs(np.random.default_rng(1).normal(size=(40, 200))).astype(np.float32)
    rows[:, ::2] *= -1
    found = update_of(jmtl.graddrop(40, KEY), jnp.asarray(rows))[0]
    np.testing.assert_allclose(found, rows.sum(axis=0), rtol=1e-5)
    # At the ends of the draws' range too.
    for uniform in (0.0, np.nextafter(np.float32(1), np.float32(0))):
        picked = pick_signs(jnp.asarray(rows), jnp.full(200, uniform), jnp.zeros(40))
        np.testing.assert_allclose(picked, rows.sum(axis=0), rtol=1e-5)


def test_one_task_is_its_own_and_needs_no_key() -> None:
    row = np.random.default_rng(2).normal(size=(1, 30)).astype(np.float32)
    for method in (jmtl.graddrop(1), jmtl.graddrop(1, KEY)):
        np.testing.assert_array_equal(update_of(method, jnp.asarray(row))[0], row[0])


def test_leak_one_is_the_sum_and_scale_changes_nothing() -> None:
    rows = np.random.default_rng(3).normal(size=(3, 40)).astype(np.float32)
    found = update_of(jmtl.graddrop(3, KEY, leak=1.0), jnp.asarray(rows))[0]
    np.testing.assert_allclose(found, rows.sum(axis=0), rtol=1e-4, atol=1e-6)
    plain = np.asarray(update_of(jmtl.graddrop(3, KEY), jnp.asarray(rows))[0])
    for scale in (2.0**-83, 2.0**83):
        scaled = update_of(jmtl.graddrop(3, KEY), jnp.asarray(scale * rows, jnp.float32))[0]
        np.testing.assert_array_equal(scaled / scale, plain)


def test_dtypes_and_nan() -> None:
    half = jnp.asarray([[1.0, 1.0, 0.0, 1.0], [2.0, np.nan, 0.0, np.inf]], jnp.bfloat16)
    found = update_of(jmtl.graddrop(2, KEY), {"half": half, "single": half.astype(jnp.float32)})
    assert (found["half"].dtype, found["single"].dtype) == (jnp.bfloat16, jnp.float32)
    for leaf in found.values():
        np.testing.assert_array_equal(leaf[0].astype(jnp.float32), [3.0, np.nan, 0.0, np.inf])


def test_refusals() -> None:
    with pytest.raises(ValueError, match="graddrop: the signs are drawn and need a key"):
        jmtl.graddrop(2)
    with pytest.raises(ValueError, match="graddrop: key must be one of"):
        jmtl.graddrop(2, key=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"graddrop: leak must lie in \[0, 1\], got \[1.5, 1.5\]"):
        jmtl.graddrop(2, KEY, leak=1.5)
    with pytest.raises(ValueError, match="graddrop: leak must be"):
        jmtl.graddrop(2, KEY, leak=[0.1, 0.2, 0.3])


def test_leak_and_key_may_be_traced() -> None:
    rows = jnp.asarray(np.random.default_rng(4).normal(size=(2, 9)), jnp.float32)
    keys, leaks = jax.random.split(KEY, 2), jnp.asarray([0.0, 0.5])
    together = jax.vmap(lambda key, leak: update_of(jmtl.graddrop(2, key, leak), rows))(keys, leaks)
    for i in range(2):
        alone = update_of(jmtl.graddrop(2, keys[i], float(leaks[i])), rows)
        np.testing.assert_allclose(together[i], alone, rtol=1e-6)
