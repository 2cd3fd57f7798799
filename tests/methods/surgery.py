"""The Gramian methods side by side in one compiled program for each K, on batches of problems."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import jmtl
from jmtl.method import Seen, respond

COUNT = 48  # problems a call, so that each K compiles once

METHODS: dict[str, Callable[[int], jmtl.Method]] = {
    "mgda": jmtl.mgda,
    "pcgrad": lambda k: jmtl.pcgrad(k, order="fixed"),
    "gradvac": lambda k: jmtl.gradvac(k, order="fixed"),
    "imtl_g": jmtl.imtl_g,
    "cagrad": jmtl.cagrad,
    "cagrad c=1": lambda k: jmtl.cagrad(k, c=1.0),
    "nash": jmtl.nash,
    "nash unclipped": lambda k: jmtl.nash(k, max_norm=0.0),
    "fairgrad": jmtl.fairgrad,
    "fairgrad alpha=1": lambda k: jmtl.fairgrad(k, alpha=1.0),
    "aligned": jmtl.aligned,
    "upgrad": jmtl.upgrad,
    "dualproj": jmtl.dualproj,
    "config": jmtl.config,
    "gradnorm": jmtl.gradnorm,
}


@jax.jit
def _answers(rows: Float[Array, "B K n"]) -> dict[str, tuple[jax.Array, jax.Array]]:
    k = rows.shape[1]

    def one(leaf: Float[Array, "K n"]) -> dict[str, tuple[jax.Array, jax.Array]]:
        seen = Seen(jnp.ones(k, leaf.dtype), jmtl.gramian(leaf))
        found = {}
        for name, make in METHODS.items():
            method = make(k)
            answer, _ = respond(method, seen, method.init(leaf[0]))
            found[name] = (answer.weights, answer.residual)
        return found

    return jax.vmap(one)(rows)


def answers(rows: np.ndarray) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Weights `[B, K]` (as float64) and residuals `[B]` of every method's first step.

    Args:
        rows: `[B, K, n]`, given to the methods in float32; B is COUNT, or a program is compiled.
    """
    found = _answers(jnp.asarray(rows, jnp.float32))
    return {name: (np.asarray(w, np.float64), np.asarray(r)) for name, (w, r) in found.items()}


def updates(rows: np.ndarray) -> dict[str, np.ndarray]:
    """The updates `[COUNT, n]`, combined in float64."""
    return {
        name: np.einsum("bk,bkn->bn", weights, rows) for name, (weights, _) in answers(rows).items()
    }
