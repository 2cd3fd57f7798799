from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jmtl
from tests.methods.scalarizers import VALUES, run, weights_of


def focal(kappa: Any, gamma: Any) -> np.ndarray:
    return -((1 - kappa) ** gamma) * np.log(kappa)


def test_the_recurrence() -> None:
    weights, state = run(jmtl.difficulty(4, gamma=1.5, a=0.6, kappa0=0.3), VALUES)
    kappa = np.full(4, 0.3)
    for row, losses in zip(weights, VALUES, strict=True):
        kappa = 0.6 * kappa + 0.4 * np.exp(-losses / VALUES[0])
        np.testing.assert_allclose(row, focal(kappa, 1.5), rtol=1e-5)
    np.testing.assert_allclose(state.kappa, kappa, rtol=1e-5)


def test_at_the_start_all_tasks_score_alike_whatever_their_scale() -> None:
    expected = focal(np.asarray(0.9 * 0.5 + 0.1 * np.exp(-1)), 2)
    weights = weights_of(jmtl.difficulty(3), [1e-9, 1.0, 1e9])
    np.testing.assert_allclose(weights, np.full(3, expected), rtol=1e-6)


def test_the_harder_task_gets_more() -> None:
    weights, _ = run(jmtl.difficulty(2), [[1.0, 1.0]] + [[0.9, 0.1]] * 5)
    assert (weights[1:, 0] > weights[1:, 1]).all()
    assert (np.diff(weights[:, 1]) < 0).all()


def test_another_score() -> None:
    method = jmtl.difficulty(2, a=0.0, score=lambda losses, first: jnp.exp(-losses))
    weights = weights_of(method, [0.1, 3.0])
    np.testing.assert_allclose(weights, focal(np.exp([-0.1, -3.0]), 2), rtol=1e-5)
    bad = jmtl.difficulty(2, score=lambda losses, first: jnp.mean(losses))
    with pytest.raises(ValueError, match=r"score returned shape \(\), expected \(2,\)"):
        weights_of(bad, [0.1, 3.0])


def test_losses_of_zero_and_below() -> None:
    method = jmtl.difficulty(4, a=0.0)
    weights, state = run(method, [[0.0, 1.0, -1.0, np.nan], [0.0, 0.0, -1.0, 1.0]])
    # A loss that was never there scores 1; a first loss below 0 has no score.
    np.testing.assert_allclose(weights[0, 1], focal(np.exp(-1), 2), rtol=1e-5)
    assert 0 < weights[0, 0] < 1e-17
    np.testing.assert_allclose(state.kappa[:2], 1 - 1e-6)
    assert np.isnan(weights[:, 2:]).all()
    # The first loss that is not 0 is the reference.
    _, state = run(jmtl.difficulty(1, a=0.0), [[0.0], [4.0], [2.0]])
    np.testing.assert_allclose(state.kappa, np.exp(-0.5), rtol=1e-6)
    assert state.first == 4.0
    # A loss that turns negative is better than 1, and kept at 1 − ε.
    _, state = run(jmtl.difficulty(1, a=0.0, epsilon=0.01), [[1.0], [-5.0]])
    np.testing.assert_allclose(state.kappa, 0.99, rtol=1e-6)


def test_gamma_may_be_one_for_each_task_and_traced() -> None:
    losses = jnp.asarray([1.0, 1.0])
    one = lambda gamma: jmtl.difficulty(2, gamma, a=0.0).update(
        jmtl.Seen(losses), jmtl.difficulty(2).init(jnp.ones(2))
    )
    grid = jnp.asarray([[0.0, 1.0], [2.0, 2.0]])
    weights = jax.jit(jax.vmap(lambda gamma: one(gamma)[0].weights))(grid)
    np.testing.assert_allclose(weights, focal(np.exp(-1.0), np.asarray(grid)), rtol=1e-5)
