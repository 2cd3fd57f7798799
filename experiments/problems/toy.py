"""The toy problem of CAGrad, Nash-MTL and FAMO: two losses of two numbers, five starts.

python -m experiments toy --steps 50000 --scale 0.1 --out runs/toy

No data: every method descends from every start, all starts in one compiled program. The first
loss is multiplied by `scale`: 0.1 in Nash-MTL and FAMO, 1 in CAGrad.

References:
    Liu, Liu, Jin, Stone, Liu, Conflict-averse gradient descent (CAGrad), NeurIPS 2021, appendix B.
    Navon et al., Multi-task learning as a bargaining game (Nash-MTL), ICML 2022.
    Liu, Feng, Stone, Liu, Fast adaptive multi-task optimisation (FAMO), NeurIPS 2023.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import lax
from jaxtyping import Array, Float, PRNGKeyArray
from scipy import optimize

import jmtl
from jmtl.methods import options

K = 2
STARTS = ((-8.5, 7.5), (0.0, 0.0), (9.0, 9.0), (-7.5, -0.5), (9.0, -1.0))
LEARNING_RATE = 1e-3
SCALE = 0.1
STEPS = 50_000
POINTS = 500
REACHED = 0.1
"""A trajectory that ends nearer to the front than this reached it."""


def losses(x: Float[Array, "2"], scale: float | Float[Array, ""] = SCALE) -> Float[Array, "2"]:
    """f₁, multiplied by `scale`, and f₂.

    Where x₂ = 0 the factors max(tanh(±x₂/2), 0) meet a tie. There both losses are 0, and the
    derivative of a maximum is split in halves between its arguments, as JAX and PyTorch do it: the
    mean of the slopes from both sides. The one-sided slope 0 would hold the start (0, 0) for ever.

    Args:
        x: the point.
        scale: of f₁.
    """
    x1, x2 = x[0], x[1]
    upper = jnp.maximum(jnp.tanh(x2 / 2), 0.0)
    lower = jnp.maximum(jnp.tanh(-x2 / 2), 0.0)
    bend = jnp.tanh(-x2)
    valley = jnp.stack([0.5 * (-x1 - 7) - bend, 0.5 * (-x1 + 3) + bend + 2])
    logs = jnp.log(jnp.maximum(jnp.abs(valley), 5e-6)) + 6
    bowls = (jnp.stack([-x1 + 7, -x1 - 7]) ** 2 + 0.1 * (-x2 - 8) ** 2) / 10 - 20
    return (upper * logs + lower * bowls) * jnp.stack([scale, 1.0])


def bounds(scale: float | Float[Array, ""] = SCALE) -> Float[Array, "2"]:
    """The greatest lower bounds of the losses: 20 below 0, f₁'s times `scale`."""
    return -20 * jnp.stack([scale, 1.0])


def front(x1: np.ndarray) -> np.ndarray:
    """The Pareto front as x₂ over x₁: −8.355 at 0, −8.433 at ±7.

    A convex combination of the gradients vanishes: its first element says λ₁ = (x₁ + 7)/14, and
    with it the second is an equation in x₂. The scale of f₁ moves λ₁ alone.

    Args:
        x1: in [-7, 7], any shape.

    Returns:
        x₂, of the shape of `x1`.
    """

    def slope(x2: np.ndarray) -> np.ndarray:
        factor = np.tanh(-x2 / 2)
        bowl = (49 - x1**2 + 0.1 * (x2 + 8) ** 2) / 10 - 20
        return -0.5 * (1 - factor**2) * bowl + factor * 0.02 * (x2 + 8)

    return optimize.newton(slope, np.full(np.shape(x1), -8.4))


def distance(x: np.ndarray) -> np.ndarray:
    """How far points `[..., 2]` are from the front `[...]`, measured at the nearest x₁ in [-7, 7].

    The front is so flat that this is its distance to 1 part in 1,000. NaN where x is not finite.
    """
    x = np.where(np.isfinite(x).all(axis=-1, keepdims=True), x, np.nan)
    nearest = np.clip(np.nan_to_num(x[..., 0]), -7.0, 7.0)
    return np.hypot(x[..., 0] - nearest, x[..., 1] - front(nearest))


class Paths(NamedTuple):
    """What one method did from every start; the axes S of seeds and N of starts come first.

    Attributes:
        points: `[S, N, T, 2]` the trajectories: the starts, then a point every few steps.
        losses: `[S, N, 2]` at their ends, as `losses` has them.
        residual: `[S, N]` the largest residual of the method's solver on the way. On the front the
            gradients oppose each other: methods whose condition asks for a gain of every task have
            no answer there, and a residual near or above 1.
        compiling: seconds to compile the program.
        running: seconds to run it.
    """

    points: np.ndarray
    losses: np.ndarray
    residual: np.ndarray
    compiling: float
    running: float


def descend(
    method: jmtl.Method,
    start: Float[Array, "2"],
    scale: float | Float[Array, ""],
    steps: int,
    every: int,
) -> tuple[Float[Array, "T 2"], Float[Array, "2"], Float[Array, ""]]:
    """One descent by Adam: the trajectory, the losses at its end, the largest residual.

    Methods see the losses less their bounds: what takes logarithms or ratios needs them positive,
    and gradients stay the same. A method of several batches gets the same losses for each.

    Args:
        method: of K = 2.
        start: where it begins.
        scale: of f₁.
        steps: of Adam.
        every: steps between the points of the trajectory; its last point is the end.
    """
    optimizer = optax.adam(LEARNING_RATE)

    def positive(x: Float[Array, "2"]) -> Float[Array, "2"]:
        return losses(x, scale) - bounds(scale)

    surgery = jmtl.value_and_grads(positive, method)

    def step(_: Any, carry: tuple[Any, ...]) -> tuple[Any, ...]:
        x, moments, state, worst = carry
        result = surgery(state, x)
        updates, moments = optimizer.update(result.gradient, moments, x)
        moved = optax.apply_updates(x, updates)
        state = result.state
        if method.observe is not None:
            state = method.observe(result.losses, positive(moved), state)
        return moved, moments, state, jnp.maximum(worst, result.residual)

    def block(carry: tuple[Any, ...], _: None) -> tuple[tuple[Any, ...], Float[Array, "2"]]:
        carry = lax.fori_loop(0, every, step, carry)
        return carry, carry[0]

    blocks, rest = divmod(steps, every)
    carry = (start, optimizer.init(start), method.init(start), jnp.zeros((), start.dtype))
    carry, points = lax.scan(block, carry, length=blocks)
    trajectory = [start[None], points]
    if rest:
        carry = lax.fori_loop(0, rest, step, carry)
        trajectory.append(carry[0][None])
    return jnp.concatenate(trajectory), losses(carry[0], scale), carry[3]


def build(name: str, scale: float, key: PRNGKeyArray | None = None) -> jmtl.Method:
    """A method for this problem: its defaults, but for two.

    `static` has weights that undo the scale of f₁; `famo` has no decay, as in its paper.

    Args:
        name: in `jmtl.METHODS`.
        scale: of f₁.
        key: of a method that draws; `jax.random.key(0)` where None.

    Raises:
        ValueError: an unknown name, or a method that does not serve K = 2.
    """
    given: dict[str, Any] = {}
    if name == "static":
        given = {"weights": (1 / scale, 1.0)}
    elif name == "famo":
        given = {"gamma": 0.0}
    if draws(name):
        given["key"] = jax.random.key(0) if key is None else key
    return jmtl.make(name, K, **given)


def draws(name: str) -> bool:
    """Whether the method takes a key."""
    return "key" in options(name)


def descend_all(name: str, scale: float, steps: int, seeds: int = 1, points: int = POINTS) -> Paths:
    """Descend from every start, for every seed of a method that draws, in one program.

    Args:
        name: in `jmtl.METHODS`.
        scale: of f₁.
        steps: of Adam.
        seeds: of methods that draw: 0, 1, …; others have one.
        points: of a trajectory, about.

    Raises:
        ValueError: an unknown name, or a method that does not serve K = 2.
    """
    build(name, scale)
    every = max(1, steps // points)

    def one(key: PRNGKeyArray, start: Float[Array, "2"]) -> tuple[Array, ...]:
        return descend(build(name, scale, key), start, scale, steps, every)

    over_starts = jax.vmap(one, in_axes=(None, 0))
    over_seeds = jax.jit(jax.vmap(over_starts, in_axes=(0, None)))
    keys = jax.vmap(jax.random.key)(jnp.arange(seeds if draws(name) else 1))
    began = time.perf_counter()
    program = over_seeds.lower(keys, jnp.asarray(STARTS)).compile()
    compiled = time.perf_counter()
    found, worth, residual = jax.device_get(program(keys, jnp.asarray(STARTS)))
    return Paths(found, worth, residual, compiled - began, time.perf_counter() - compiled)


def run(
    names: Sequence[str],
    scale: float = SCALE,
    steps: int = STEPS,
    seeds: int = 1,
    refused: Callable[[str], None] = print,
) -> dict[str, Paths]:
    """`descend_all` for each method.

    Args:
        names: in `jmtl.METHODS`.
        scale: of f₁.
        steps: of Adam.
        seeds: of methods that draw.
        refused: told, in one line, of every method that does not serve K = 2, and why.

    Returns:
        By name, without those that do not serve.
    """
    done = {}
    for name in names:
        try:
            build(name, scale)
        except ValueError as error:
            refused(f"not served: {error}")
        else:
            done[name] = descend_all(name, scale, steps, seeds)
    return done


def ends(paths: Paths) -> list[dict[str, Any]]:
    """Where every start of a method ended: a JSON object for each seed and start.

    Its keys: `seed`, `start`, `end` (x), `losses`, `distance` to the front, `reached`, `residual`.
    A number that is not finite is None.
    """
    rows = []
    far = distance(paths.points[:, :, -1].astype(np.float64))
    for seed, start in np.ndindex(far.shape):
        rows.append(
            {
                "seed": seed,
                "start": list(STARTS[start]),
                "end": _rounded(paths.points[seed, start, -1]),
                "losses": _rounded(paths.losses[seed, start]),
                "distance": _rounded(far[seed, start]),
                "reached": bool(far[seed, start] <= REACHED),
                "residual": _rounded(paths.residual[seed, start], "{:.1e}"),
            }
        )
    return rows


def _rounded(values: Any, form: str = "{:.4f}") -> Any:
    if np.ndim(values):
        return [_rounded(value, form) for value in values]
    return float(form.format(values)) + 0.0 if np.isfinite(values) else None  # no -0.0
