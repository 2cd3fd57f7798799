"""The Gramian methods against the reference file, in float32 and float64."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jmtl
from jmtl.method import Seen
from tests.solvers.references import CASES, rows_of

WIDTH = 200  # of all rows, padded with zeros: one compilation for each K
RADII = (0.2, 0.4, 0.5, 1.0)
# Where rows depend on each other, equal projections do not exist, and the residual says so.
EQUAL = ("IMTLG", "ConFIG", "ConFIG_pref")


def methods(k: int) -> dict[str, jmtl.Method]:
    """By the reference's names, with the options that its `params` give."""
    ramp = np.arange(1, k + 1) / np.arange(1, k + 1).sum()
    return {
        "UPGrad": jmtl.upgrad(k),
        "DualProj": jmtl.dualproj(k),
        "FairGrad_a1": jmtl.nash(k, max_norm=0),
        "FairGrad_a2": jmtl.fairgrad(k, alpha=2),
        "IMTLG": jmtl.imtl_g(k),
        "AlignedMTL": jmtl.aligned(k),
        "AlignedMTL_median": jmtl.aligned(k, scale="median"),
        "AlignedMTL_rmse": jmtl.aligned(k, scale="rmse"),
        "AlignedMTL_pref": jmtl.aligned(k, preference=ramp),
        "ConFIG": jmtl.config(k),
        "ConFIG_pref": jmtl.config(k, preference=ramp),
    }


@jax.jit
def updates(leaf: jax.Array) -> dict[str, tuple[jax.Array, jax.Array]]:
    """The update and the residual of every method, in one program for each K."""
    k, gram = len(leaf), jmtl.gramian(leaf)
    seen = Seen(jnp.ones(k, leaf.dtype), gram)

    def run(method: jmtl.Method) -> tuple[jax.Array, jax.Array]:
        answer, _ = method.update(seen, method.init(leaf[0]))
        return jmtl.combine(leaf, answer.weights), answer.residual

    found = {name: run(method) for name, method in methods(k).items()}
    radii = jnp.asarray(RADII, leaf.dtype)
    several = jax.vmap(lambda c: run(jmtl.cagrad(k, c)))(radii)
    return found | {f"CAGrad_c{c:g}": (several[0][i], several[1][i]) for i, c in enumerate(RADII)}


def check(case: str, dtype: Any, limit: float) -> None:
    rows = rows_of(case)
    values = CASES[case]["exact"] | CASES[case]["deterministic"]
    largest = np.linalg.norm(rows, axis=1).max()
    padded = np.zeros((len(rows), WIDTH))
    padded[:, : rows.shape[1]] = rows
    with jax.enable_x64(dtype is np.float64):
        found = jax.tree.map(np.asarray, updates(jnp.asarray(padded, dtype)))
    compared = 0
    for name, (update, residual) in found.items():
        if name not in values:
            continue
        compared += 1
        assert update.dtype == dtype
        error = update[: rows.shape[1]].astype(np.float64) - np.asarray(values[name]["vector"])
        assert np.linalg.norm(error) <= limit * largest, name
        exact = name not in EQUAL or "deficient" not in case
        # The fair weights' equation has a bar of its own.
        bound = 10 * limit if name.startswith("FairGrad") else limit
        assert (residual <= bound) == exact, (name, residual)
    assert compared >= 9


@pytest.mark.parametrize("case", CASES)
def test_reference(case: str) -> None:
    check(case, np.float32, 1e-5)


@pytest.mark.parametrize("case", [case for case in CASES if len(rows_of(case)) == 3])
def test_reference_in_float64(case: str) -> None:
    check(case, np.float64, 1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("case", [case for case in CASES if len(rows_of(case)) != 3])
def test_reference_in_float64_of_other_sizes(case: str) -> None:
    """Apart, since each K takes seconds to compile; the solvers' tests hold all of them."""
    check(case, np.float64, 1e-9)
