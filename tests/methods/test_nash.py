"""Nash-MTL: the clip, solutions kept between solves, what the heads get."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jmtl
from jmtl.method import Answer, Seen, respond
from tests.methods.recurrences import problem
from tests.solvers.references import CASES, rows_of

CASE = "normal_3x7"
ROWS = rows_of(CASE)
ALPHA = np.asarray(CASES[CASE]["deterministic"]["FairGrad_a1"]["weights"])


def answer(method: jmtl.Method, rows: Any) -> Answer:
    leaf = jnp.asarray(rows, jnp.float32)
    return respond(method, Seen(None, jmtl.gramian(leaf)), method.init(leaf[0]))[0]


@jax.jit
def clipped(max_norm: Any, rows: jax.Array) -> Answer:
    return answer(jmtl.nash(3, max_norm=max_norm), rows)


@pytest.mark.parametrize("scale", [1e-12, 1.0, 1e12])
def test_the_clip_and_the_heads(scale: float) -> None:
    """α is that of the equation before clipping; the update's norm is √3 before it."""
    rows = ROWS * scale
    heads = ALPHA * np.sqrt(np.linalg.norm(ROWS @ ROWS.T))
    for max_norm, factor in ((0.0, 1.0), (2.0, 1.0), (1.0, 3**-0.5), (0.5, 0.5 * 3**-0.5)):
        found = clipped(max_norm, rows)
        np.testing.assert_allclose(found.weights, factor * ALPHA / scale, rtol=1e-5)
        # As the authors: the solution for G/‖G‖_F, which the clip of shared parameters leaves.
        np.testing.assert_allclose(found.heads, heads, rtol=1e-5)


def test_heads_may_be_left_alone() -> None:
    np.testing.assert_array_equal(answer(jmtl.nash(3, scales_heads=False), ROWS).heads, 1)


def test_a_solution_is_kept_between_solves() -> None:
    """α of step 0 serves steps 0 to 2, that of step 3 the rest; the clip is of the step's own."""
    grads, _ = problem(steps=5)
    kept = jmtl.nash(3, update_every=3)
    alphas = [np.asarray(clipped(0.0, g).weights) for g in grads]
    update = jax.jit(lambda g, state: kept.update(Seen(None, jmtl.gramian(g)), state))
    state = kept.init(jnp.zeros(7))
    for step, g in enumerate(grads):
        found, state = update(jnp.asarray(g, jnp.float32), state)
        alpha = alphas[0 if step < 3 else 3]
        expected = alpha / max(1.0, float(np.linalg.norm(alpha @ g)))
        np.testing.assert_allclose(found.weights, expected, rtol=1e-4)
    assert int(state.step) == 5
    assert not np.allclose(alphas[0], alphas[3], rtol=0.1), "the test shows nothing"


def test_no_solution_shows_and_stays_finite() -> None:
    zero = ROWS.copy()
    zero[1] = 0
    found = answer(jmtl.nash(3), zero)
    assert found.weights[1] == 0
    assert np.all(np.asarray(found.weights)[[0, 2]] > 0)
    assert found.residual >= 1
    against = ROWS.copy()
    against[2] = -2 * against[1]
    found = answer(jmtl.nash(3), against)
    assert np.isfinite(found.weights).all()
    assert np.isfinite(found.heads).all()
    assert found.residual > 0.1
    assert np.isnan(answer(jmtl.nash(3), ROWS * np.nan).weights).all()


def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match="nash: max_norm must be a finite number >= 0"):
        jmtl.nash(3, max_norm=-1)
    with pytest.raises(ValueError, match="nash: update_every must be a whole number >= 1"):
        jmtl.nash(3, update_every=0)
