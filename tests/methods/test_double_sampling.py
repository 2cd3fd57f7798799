"""MoDo and SDMGrad: recurrences, three batches end to end, and the edges."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jmtl
from jmtl.gramian import Gramian
from jmtl.method import Seen, respond
from jmtl.products import Products
from tests.methods import recurrences
from tests.methods.recurrences import K
from tests.solvers.references import shortest

MODO = {"gamma": 0.05, "rho": 0.1}
BATCHED = ["modo", "sdmgrad"]


def crosses(steps: int = 6) -> np.ndarray:
    """Products `[T, K, K]` of gradients of two batches that have a part in common."""
    draw = np.random.default_rng(5)
    common = draw.normal(size=(steps, K, 8)) * np.asarray([0.3, 1.0, 2.0])[:, None]
    one, two = (common + 0.5 * draw.normal(size=common.shape) for _ in range(2))
    return np.einsum("tin,tjn->tij", one, two)


def weights_of(method: jmtl.Method, products: Any, left: float = 1.0, right: float = 1.0) -> Any:
    """Weights `[T, K]` over a scan, of the products times the scales of both batches' gradients."""

    def step(state: Any, cross: Any) -> tuple[Any, Any]:
        ones = jnp.ones(len(cross), cross.dtype)
        gram = Gramian(jnp.eye(len(cross), dtype=cross.dtype), ones)
        seen = Seen(jnp.ones(len(cross)), gram, Products(cross, left * ones, right * ones))
        answer, state = respond(method, seen, state)
        return state, answer.weights

    products = jnp.asarray(products, float)
    start = method.init(jnp.zeros(2, products.dtype))
    return jax.jit(lambda state, seen: jax.lax.scan(step, state, seen)[1])(start, products)


@pytest.mark.parametrize("x64", [False, True])
def test_modo_is_its_recurrence(x64: bool) -> None:
    products = crosses()
    expected = np.stack(list(recurrences.modo(products, **MODO)))
    with jax.enable_x64(x64):
        found = weights_of(jmtl.modo(K, **MODO), products)
    np.testing.assert_allclose(found, expected, atol=1e-13 if x64 else 1e-6)
    assert np.ptp(expected[-1]) > 0.1, "nothing moved"


@pytest.mark.parametrize("x64", [False, True])
def test_sdmgrad_is_its_recurrence(x64: bool) -> None:
    products = crosses()
    products[2, 0, 0] = -0.05  # the two batches disagree on a task
    for rate in (0.05, 10.0):
        expected = np.stack(list(recurrences.sdmgrad(products, 0.3, 20, rate, 0.5)))
        with jax.enable_x64(x64):
            found = weights_of(jmtl.sdmgrad(K, learning_rate=rate), products)
        np.testing.assert_allclose(found, expected, atol=1e-12 if x64 else 1e-5)
        assert np.ptp(expected[-1]) > 0.05, "nothing moved"
        np.testing.assert_allclose(np.asarray(found).sum(axis=1), 1, atol=1e-6)


def test_sdmgrad_finds_the_minimum_of_its_problem() -> None:
    """λ = 0 and many small steps from one batch twice: MGDA's weights."""
    rows = np.random.default_rng(0).normal(size=(K, 4)) - 0.5
    found = weights_of(jmtl.sdmgrad(K, lambda_=0.0, steps=500, learning_rate=0.3), [rows @ rows.T])[
        0
    ]
    np.testing.assert_allclose(found @ rows, shortest(rows), atol=1e-5)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_sdmgrad_has_no_scale(scale: float) -> None:
    method = jmtl.sdmgrad(K, learning_rate=0.05)
    one, other = weights_of(method, crosses()), weights_of(method, crosses(), scale, scale)
    np.testing.assert_allclose(other, one, rtol=1e-5)


def test_modo_at_the_ends_of_float32() -> None:
    """Products below its range are nothing; those within it count, however they come about."""
    method = jmtl.modo(K, **MODO)
    np.testing.assert_allclose(weights_of(method, crosses(), 1e-30, 1e-30), 1 / K, rtol=1e-5)
    one, other = weights_of(method, crosses()), weights_of(method, crosses(), 1e-30, 1e30)
    np.testing.assert_allclose(other, one, rtol=1e-5)


def test_edges() -> None:
    """No gradient, and no agreement between the batches: the weights stay; NaN shows."""
    edges = np.stack([np.zeros((K, K)), -np.eye(K), np.full((K, K), np.nan)])
    found = weights_of(jmtl.sdmgrad(K), edges)
    np.testing.assert_allclose(found[:2], 1 / K, rtol=1e-6)
    assert np.isnan(found[2]).all()
    found = weights_of(jmtl.modo(K), edges)
    np.testing.assert_allclose(found[:2], 1 / K, rtol=1e-6)
    assert np.isnan(found[2]).all()
    for name in BATCHED:
        found = weights_of(jmtl.make(name, num_tasks=1), [[[2.0]], [[-1.0]]])
        np.testing.assert_allclose(found, 1.0, rtol=1e-6)
        np.testing.assert_allclose(
            np.sum(weights_of(jmtl.make(name, K), 1e24 * np.ones((1, K, K)))), 1, rtol=1e-6
        )


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("name", BATCHED)
def test_three_batches_end_to_end(name: str, split: bool) -> None:
    draw = np.random.default_rng(2)
    batches = draw.normal(size=(4, 5)) + 0.3 * draw.normal(size=(3, 4, 5))
    params, heads, targets = draw.normal(size=5), draw.uniform(0.5, 2, size=K), np.arange(K) - 1.0

    def rows(batch: Any) -> Any:
        """By hand, of L_k = head_k mean_b (x_b · p − t_k)² / 2."""
        gap = (batch @ params)[:, None] - targets
        return heads[:, None] * np.mean(batch[:, None] * gap[..., None], axis=0)

    def losses(shared: Any, tasks: Any, batch: Any) -> Any:
        gap = (batch @ shared)[:, None] - jnp.asarray(targets, jnp.float32)[None]
        return tasks * 0.5 * jnp.mean(gap**2, axis=0)

    method = jmtl.make(name, num_tasks=K)
    args = [jnp.asarray(x, jnp.float32) for x in (params, heads, batches)]
    state = method.init(args[0])
    if split:
        result = jax.jit(jmtl.value_and_grads(losses, method, split=True))(state, *args)
        shared, own = result.gradient
    else:
        fixed = lambda shared, batch: losses(shared, args[1], batch)
        result = jax.jit(jmtl.value_and_grads(fixed, method))(state, args[0], args[2])
        shared, own = result.gradient, None
    cross = rows(batches[0]) @ rows(batches[1]).T
    if name == "modo":
        (weights,) = recurrences.modo(cross[None], 1e-3, 0.1)
    else:
        (weights,) = recurrences.sdmgrad(cross[None], 0.3, 20, 10.0, 0.5)
    np.testing.assert_allclose(result.weights, weights, atol=1e-5)
    np.testing.assert_allclose(shared, weights @ rows(batches[2]), rtol=1e-4, atol=1e-6)
    if own is not None:
        third = 0.5 * np.mean(((batches[2] @ params)[:, None] - targets) ** 2, axis=0)
        np.testing.assert_allclose(own, third, rtol=1e-5)
    np.testing.assert_allclose(
        result.gramian.norms, np.linalg.norm(rows(batches[0]), axis=1), rtol=1e-5
    )


def test_refusals() -> None:
    for name in BATCHED:
        with pytest.raises(ValueError, match=f"{name} takes 3 independent batches"):
            jmtl.aggregator(jmtl.make(name, num_tasks=2))
    with pytest.raises(ValueError, match="sdmgrad: steps must be a whole number >= 1, got 0"):
        jmtl.sdmgrad(2, steps=0)
    with pytest.raises(ValueError, match="sdmgrad: momentum must be a finite number"):
        jmtl.sdmgrad(2, momentum=1.5)
    with pytest.raises(ValueError, match="modo: gamma must be a finite number >= 0"):
        jmtl.modo(2, gamma=-1.0)


def test_options_may_be_traced() -> None:
    products = jnp.asarray(crosses(2), jnp.float32)
    modo = jax.vmap(lambda x: weights_of(jmtl.modo(K, gamma=x), products))
    sdmgrad = jax.vmap(
        lambda x: weights_of(jmtl.sdmgrad(K, lambda_=x, learning_rate=x, momentum=x), products)
    )
    values = jnp.asarray([0.02, 0.1])
    alone = weights_of(jmtl.modo(K, gamma=0.1), products)
    np.testing.assert_allclose(modo(values)[1], alone, atol=1e-6)
    alone = weights_of(jmtl.sdmgrad(K, lambda_=0.1, learning_rate=0.1, momentum=0.1), products)
    np.testing.assert_allclose(sdmgrad(values)[1], alone, atol=1e-5)
