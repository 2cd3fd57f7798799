"""The loss methods in closed form: equal, static, uncertainty."""

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jmtl
from jmtl.method import Seen

_FILE = Path(__file__).parents[1] / "reference" / "aggregations.json"
SCALARIZERS = json.loads(_FILE.read_text())["scalarizers"]


def weights_of(method: jmtl.Method, losses: Any = None) -> np.ndarray:
    answer, _ = method.update(Seen(losses), method.init(jnp.ones(2)))
    return np.asarray(answer.weights)


def test_equal() -> None:
    np.testing.assert_array_equal(weights_of(jmtl.equal(4)), 1.0)
    np.testing.assert_array_equal(weights_of(jmtl.equal(4, reduce="mean")), 0.25)
    with pytest.raises(ValueError, match="reduce must be one of sum, mean; got 'max'"):
        jmtl.equal(4, reduce="max")  # type: ignore[arg-type]


def test_static() -> None:
    several: tuple[Any, ...] = (
        [2, 0.0, 1],
        (2.0, 0.0, 1.0),
        np.asarray([2.0, 0.0, 1.0]),
        jnp.asarray([2, 0, 1]),
    )
    for given in several:
        np.testing.assert_array_equal(weights_of(jmtl.static(3, given)), [2.0, 0.0, 1.0])


def test_static_weights_may_be_traced() -> None:
    grid = jnp.asarray([[1.0, 2.0], [3.0, 4.0]])
    rows = jnp.eye(2)

    @jax.jit
    def update(weights: jax.Array) -> jax.Array:
        transform = jmtl.aggregator(jmtl.static(2, weights))
        return transform.update(rows, transform.init(rows[0]))[0]

    np.testing.assert_array_equal(jax.vmap(update)(grid), grid)
    # Weights that are known are checked, inside a traced function too.
    with pytest.raises(ValueError, match="finite and >= 0"):
        jax.jit(lambda x: jmtl.static(2, [1.0, -1.0]).update(Seen(x), ())[0].weights)(jnp.ones(2))


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ([1.0, 2.0], r"weights have shape \(2,\), expected \(3,\)"),
        (1.0, r"weights have shape \(\), expected \(3,\)"),
        ([1.0, -1.0, 1.0], r"finite and >= 0, got \[1.0, -1.0, 1.0\]"),
        ([1.0, np.nan, 1.0], "finite and >= 0"),
        ([1.0, np.inf, 1.0], "finite and >= 0"),
        ("abc", r"static: weights must be 3 numbers, got 'abc'"),
        ({"a": 1}, r"static: weights must be 3 numbers, got \{'a': 1\}"),
    ],
)
def test_static_weights_that_do_not_fit_are_refused(weights: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        jmtl.static(3, weights)


def test_uncertainty_equals_adam_on_the_written_objective() -> None:
    """Five steps: s moves as optax.adam moves it on Σ ½(e^{−s} L + s) with L held."""
    rng = np.random.default_rng(0)
    values = jnp.asarray(rng.uniform(0.1, 3.0, size=(5, 3)), jnp.float32)
    method = jmtl.uncertainty(3, s0=-0.5, learning_rate=0.1)
    adam = optax.adam(0.1)
    s = jnp.full(3, -0.5)
    moments = adam.init(s)
    state = method.init(jnp.ones(2))
    for losses in values:
        answer, state = method.update(Seen(losses), state)
        # Weights of a step come from s before its update, and are the objective's own.
        objective = lambda s, losses: jnp.sum(0.5 * (jnp.exp(-s) * losses + s))
        slopes = jax.grad(objective, argnums=(0, 1))(s, losses)
        np.testing.assert_allclose(answer.weights, slopes[1], rtol=1e-6)
        change, moments = adam.update(slopes[0], moments)
        s = s + change
        np.testing.assert_allclose(state.s, s, atol=1e-6)
    assert np.ptp(np.asarray(s)) > 0.05


def test_uncertainty_equals_the_reference() -> None:
    """The reference holds s at 0: the value of the objective and its slopes in the losses."""
    for losses, call in zip(
        SCALARIZERS["values"], SCALARIZERS["runs"]["UW"]["calls"], strict=False
    ):
        weights = weights_of(jmtl.uncertainty(4), jnp.asarray(losses))
        np.testing.assert_allclose(weights, call["grad"], rtol=1e-6)
        np.testing.assert_allclose(weights @ np.asarray(losses), call["out"], rtol=1e-6)


def test_uncertainty_settles_where_the_paper_says() -> None:
    """With losses held, e^{s} tends to L: the weights to 1/(2L)."""
    losses = jnp.asarray([0.5, 2.0])
    method = jmtl.uncertainty(2, learning_rate=0.05)
    step = lambda state, _: (method.update(Seen(losses), state)[1], None)
    state, _ = jax.jit(lambda: jax.lax.scan(step, method.init(None), None, length=400))()
    np.testing.assert_allclose(jnp.exp(state.s), losses, rtol=1e-3)


def test_uncertainty_shows_a_loss_that_is_nan() -> None:
    method = jmtl.uncertainty(2)
    _, state = method.update(Seen(jnp.asarray([np.nan, 1.0])), method.init(None))
    np.testing.assert_array_equal(np.isnan(state.s), [True, False])
