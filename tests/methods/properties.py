"""The property table of all methods, measured on random problems.

python -m tests.methods.properties      writes docs/properties.md
"""

import functools
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import jmtl
from jmtl.gramian import cross_products
from jmtl.method import Seen, respond
from tests.methods.cases import build

TABLE = Path(__file__).parents[2] / "docs" / "properties.md"
K, WIDTH, COUNT, STEPS = 4, 8, 24, 3
BARS = (1e-3,) * 5 + (1e-4,)  # errors are far below where a property holds, far above elsewhere

# What differs from the options that the conformance suite builds with.
OPTIONS: dict[str, dict[str, Any]] = {
    "static": {"weights": np.full(K, 0.5)},
    # At its default of 10 the steps overshoot so far that rounding decides where they end.
    "sdmgrad": {"learning_rate": 0.1},
}

PROPERTIES = {
    "non-conflicting": "g_i·u ≥ 0 for every task, to rounding",
    "permutation": "the order of the tasks does not matter",
    "linear": "with rows scaled by c > 0, u is linear in c",
    "scale-free": "a factor on all gradients leaves the direction of u alone",
    "rotation": "rotated gradients give the rotated u",
    "stationary": "u is 0, to rounding, where 0 is in the hull of the gradients",
}


class Problems(NamedTuple):
    """Every problem that a method is run on, and how the properties find theirs.

    Attributes:
        rows: `[P, COUNT, K, WIDTH]` task gradients.
        losses: `[P, COUNT, K]`.
        order: `[K]` the permutation in part 1.
        rotation: `[WIDTH, WIDTH]` the rotation in part 2.
    """

    rows: np.ndarray
    losses: np.ndarray
    order: np.ndarray
    rotation: np.ndarray


def fan() -> np.ndarray:
    """Rows `[4, WIDTH]` with 1ᵀG⁺d < 0: a short one between two others, raised out of their plane.

    Equal projections need a negative weight for it, and it is short, so that weight is large.
    """
    wide, tilt = np.radians(40), 0.5
    rows = np.zeros((4, WIDTH))
    rows[0, :2] = np.cos(wide), np.sin(wide)
    rows[1, :2] = np.cos(wide), -np.sin(wide)
    rows[2, [0, 2]] = 0.1 * np.cos(tilt), 0.1 * np.sin(tilt)
    rows[3, 3] = 1.0
    return rows


@functools.cache
def problems() -> Problems:
    """Parts: plain, permuted, rotated, scaled up, scaled down, c, c', c + c', stationary, beside.

    The table is of fixed problems, so that it is the same in every run: a third is normal, in a
    third every pair conflicts, in a third all agree, each to its own degree. Norms differ by up
    to 10. "Beside" is the stationary part with its last rows turned around, of the same norms.
    """
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(COUNT, K, WIDTH))
    rows[::3] -= 0.8 * rows[::3].mean(axis=1, keepdims=True)
    rows[1::3] += rng.uniform(1, 4, (COUNT // 3, K, 1)) * rng.normal(size=(COUNT // 3, 1, WIDTH))
    mixture = rng.dirichlet(np.full(K, 20.0), COUNT)
    stationary = rng.normal(size=rows.shape)
    rest = np.einsum("bk,bkn->bn", mixture[:, :-1], stationary[:, :-1])
    stationary[:, -1] = -rest / mixture[:, -1:]
    beside = stationary.copy()
    beside[:, -1] *= -1
    rows = rows * 10 ** rng.uniform(-0.5, 0.5, (COUNT, K, 1))
    rows[1] = fan()
    losses = rng.uniform(0.5, 2.0, (COUNT, K))
    order = np.array([2, 0, 3, 1])
    rotation, _ = np.linalg.qr(rng.normal(size=(WIDTH, WIDTH)))
    first, second = rng.uniform(0.3, 2.0, (2, COUNT, K, 1))
    parts = np.stack(
        [
            rows,
            rows[:, order],
            rows @ rotation,
            rows * 2.0**40,
            rows * 2.0**-40,
            first * rows,
            second * rows,
            (first + second) * rows,
            stationary,
            beside,
        ]
    )
    every = np.stack([losses[:, order] if i == 1 else losses for i in range(len(parts))])
    return Problems(parts, every, order, rotation)


def updates(name: str) -> np.ndarray:
    """The update `[P, COUNT, WIDTH]` of each problem, at the third step on the same gradients.

    The losses fall a little between steps, each task's by another factor, so that methods with
    memory have left their start.
    """
    method = build(name, K, **OPTIONS.get(name, {}))

    def one(rows: jax.Array, losses: jax.Array) -> jax.Array:
        def step(state: Any, t: jax.Array) -> tuple[Any, jax.Array]:
            now = losses * losses ** (0.1 * t)
            seen = Seen(now, jmtl.gramian(rows), cross_products(rows, rows), rows)
            answer, state = respond(method, seen, state)
            if method.observe is not None:
                state = method.observe(now, now * losses**0.1, state)
            if answer.gradient is not None:
                return state, answer.gradient
            return state, jmtl.combine(rows, answer.weights)

        start = method.init(rows[0])
        return jax.lax.scan(step, start, jnp.arange(STEPS, dtype=rows.dtype))[1][-1]

    given = problems()
    flat = given.rows.reshape(-1, K, WIDTH), given.losses.reshape(-1, K)
    found = jax.jit(jax.vmap(one))(*(jnp.asarray(x, jnp.float32) for x in flat))
    return np.asarray(found, np.float64).reshape(-1, COUNT, WIDTH)


def measures(name: str) -> tuple[float, ...]:
    """How far the method is from each of `PROPERTIES`, in their order: the worst problem's error.

    Relative: of a conflict to ‖g_i‖ ‖u‖, of an update to its own norm, of an update where 0 is in
    the hull to the method's median update for gradients of the same norms.
    """
    given, found = problems(), updates(name)
    plain, permuted, rotated, up, down, first, second, both, stationary, beside = found
    rows = given.rows[0]
    size = np.linalg.norm(plain, axis=-1)
    typical = np.median(np.linalg.norm(beside, axis=-1))
    products = np.einsum("bkn,bn->bk", rows, plain) / np.linalg.norm(rows, axis=-1)

    def error(one: np.ndarray, other: np.ndarray) -> float:
        apart = np.linalg.norm(one - other, axis=-1)
        return float(np.max(apart / np.linalg.norm(other, axis=-1)))

    def direction(update: np.ndarray) -> np.ndarray:
        return update / np.linalg.norm(update, axis=-1, keepdims=True)

    return (
        float(np.max(-products / size[:, None])),
        error(permuted, plain),
        error(first + second, both),
        max(error(direction(part), direction(plain)) for part in (up, down)),
        error(rotated, plain @ given.rotation),
        float(np.max(np.linalg.norm(stationary, axis=-1)) / typical),
    )


def properties(name: str) -> tuple[bool, ...]:
    """Which of `PROPERTIES` the method has on the problems."""
    return tuple(found <= bar for found, bar in zip(measures(name), BARS, strict=True))


def line(name: str) -> str:
    """The method's row of the table."""
    marks = ["✓" if holds else "" for holds in properties(name)]
    return "| " + " | ".join([f"`{name}`", *marks]) + " |"


def table() -> str:
    """The whole page."""
    head = [
        "# Which method has which property",
        "",
        "Measured by `tests/methods/properties.py` on random problems of four tasks, at the third",
        "step on the same task gradients g_i, with default options (`static` with equal weights,",
        "`sdmgrad` with a learning rate of 0.1, beyond which rounding decides); u is the update.",
        "The suite compares: a method that loses a property turns the build red. To write this",
        "page: `python -m tests.methods.properties`.",
        "",
        *[f"- **{name}**: {meaning}." for name, meaning in PROPERTIES.items()],
        "",
        "`config` keeps from conflict where the gradients are independent, as here, and `cagrad`",
        "with c >= 1. Where 0 is in the hull `nash` and `fairgrad` have no solution, and say so",
        "in the residual. `pcgrad` and `gradvac` draw their orders for numbered tasks; `random`",
        "its weights.",
        "",
        "| " + " | ".join(["method", *PROPERTIES]) + " |",
        "|---" * (1 + len(PROPERTIES)) + "|",
    ]
    return "\n".join([*head, *[line(name) for name in jmtl.METHODS]]) + "\n"


if __name__ == "__main__":
    TABLE.write_text(table(), encoding="utf-8")
    print(f"wrote {TABLE}")
