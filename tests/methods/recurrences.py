"""Recurrences of methods with memory as plain float64 loops, and a run of the method beside them.

Each loop takes task gradients `[T, K, n]` and losses `[T, K]` and gives T updates `[n]`.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import softmax

import jmtl

K, SHAPES = 3, {"a": (2, 2), "b": (3,)}
WIDTH = 7


def problem(steps: int = 5, scale: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Task gradients `[T, K, 7]`, of different lengths, and positive losses `[T, K]`."""
    draw = np.random.default_rng(3)
    grads = draw.normal(size=(steps, K, WIDTH)) * np.asarray([0.5, 1.0, 4.0])[:, None]
    return scale * grads, draw.uniform(0.2, 3.0, size=(steps, K))


def as_tree(flat: Any) -> dict[str, Any]:
    """The last axis `[..., 7]` as the leaves "a" `[..., 2, 2]` and "b" `[..., 3]`."""
    lead = flat.shape[:-1]
    return {"a": flat[..., :4].reshape(*lead, 2, 2), "b": flat[..., 4:]}


def as_flat(tree: dict[str, Any], lead: int) -> np.ndarray:
    """The inverse of `as_tree` for leaves with `lead` leading axes."""
    parts = [np.asarray(tree[name]) for name in ("a", "b")]
    return np.concatenate([part.reshape(*part.shape[:lead], -1) for part in parts], axis=-1)


def runner(method: jmtl.Method) -> Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, Any]]:
    """(task gradients, losses) -> updates `[T, n]` and aggregator states, from one scan."""
    tx = jmtl.aggregator(method)

    def step(state: Any, now: Any) -> tuple[Any, Any]:
        updates, state = tx.update(now[0], state, losses=now[1])
        return state, (updates, state)

    scan = jax.jit(lambda state, seen: jax.lax.scan(step, state, seen)[1])

    def run(grads: np.ndarray, losses: np.ndarray) -> tuple[np.ndarray, Any]:
        stacks = as_tree(jnp.asarray(grads, float))
        start = tx.init(jax.tree.map(lambda leaf: leaf[0, 0], stacks))
        updates, states = scan(start, (stacks, jnp.asarray(losses, float)))
        return as_flat(updates, 1), states

    return run


def moco(
    grads: np.ndarray, losses: np.ndarray, beta: float, gamma: float, sigma: float, rho: float
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    tracked, weights = np.zeros(grads.shape[1:]), np.full(K, 1 / K)
    for t, (g, loss) in enumerate(zip(grads, losses, strict=True), start=1):
        for i in range(K):
            length = np.linalg.norm(g[i])
            target = loss[i] * g[i] / length if length else np.zeros_like(g[i])
            tracked[i] -= beta / t**sigma * (tracked[i] - target)
        products = tracked @ tracked.T + rho * np.eye(K)
        weights = softmax(weights - gamma / t**sigma * products @ weights)
        yield weights @ tracked, weights


def db_mtl(
    grads: np.ndarray, losses: np.ndarray, beta: float, sigma: float
) -> Iterator[np.ndarray]:
    average = np.zeros(grads.shape[1:])
    for t, (g, loss) in enumerate(zip(grads, losses, strict=True), start=1):
        logs = g / (loss + 1e-8)[:, None]
        average = logs + beta / t**sigma * (average - logs)
        norms = np.linalg.norm(average, axis=1)
        yield sum(norms.max() / n * row for n, row in zip(norms, average, strict=True) if n)


def excess(grads: np.ndarray, eta: float, epsilon: float) -> Iterator[np.ndarray]:
    """Yields the weights."""
    squares, weights, first = np.zeros(grads.shape[1:]), np.ones(K), None
    for g in grads:
        squares += g**2
        risks = np.sum(g**2 / np.sqrt(squares + epsilon), axis=1)
        if first is None:
            first = risks
        else:
            weights = weights * np.exp(eta * risks / first)
            weights = K * weights / weights.sum()
        yield weights


def on_simplex(point: np.ndarray) -> np.ndarray:
    """The projection, by bisection on the threshold."""
    low, high = point.min() - 1, point.max()
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if np.maximum(point - middle, 0).sum() > 1 else (low, middle)
    return np.maximum(point - (low + high) / 2, 0)


def modo(crosses: np.ndarray, gamma: float, rho: float) -> Iterator[np.ndarray]:
    """Yields the weights, of products `[T, K, K]`."""
    weights = np.full(K, 1 / K)
    for cross in crosses:
        weights = on_simplex(weights - gamma * (cross @ weights + rho * weights))
        yield weights


def sdmgrad(
    crosses: np.ndarray, pull: float, steps: int, rate: float, momentum: float
) -> Iterator[np.ndarray]:
    """Yields the weights, of products `[T, K, K]`."""
    weights = np.full(K, 1 / K)
    for cross in crosses:
        products = cross / np.mean(np.sqrt(np.maximum(np.diag(cross), 0))) ** 2
        velocity = np.zeros(K)
        for _ in range(steps):
            slope = products @ weights + pull * products.mean(axis=1)
            velocity = momentum * velocity + slope
            weights = on_simplex(weights - rate * velocity)
        yield (weights + pull / K) / (1 + pull)
