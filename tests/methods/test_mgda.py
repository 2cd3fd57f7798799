"""MGDA through its method: reference values, properties, what normalising means."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jmtl
from jmtl.method import Answer, Seen
from tests.solvers.families import FAMILIES, jacobian
from tests.solvers.references import cases_with, exact, rows_of, shortest

WIDTH = 200  # of all rows, padded with zeros: one compilation for each K


@jax.jit
def solve_padded(rows: Any) -> Any:
    method = jmtl.mgda(len(rows))
    answer, _ = method.update(Seen(jnp.ones(len(rows)), jmtl.gramian(rows)), ())
    return answer, jmtl.combine(rows, answer.weights)


def solve(rows: np.ndarray, dtype: Any = np.float32) -> Any:
    padded = np.zeros((len(rows), WIDTH), dtype)
    padded[:, : rows.shape[1]] = rows
    answer, combined = solve_padded(jnp.asarray(padded))
    return answer, combined[: rows.shape[1]]


@pytest.mark.parametrize("case", cases_with("MGDA"))
def test_reference(case: str) -> None:
    rows = rows_of(case)
    largest = np.linalg.norm(rows, axis=1).max()
    for dtype, limit in ((np.float32, 1e-5), (np.float64, 1e-9)):
        with jax.enable_x64(dtype is np.float64):
            answer, found = solve(rows, dtype)
            assert found.dtype == answer.weights.dtype == dtype
            error = np.asarray(found, np.float64) - exact(case, "MGDA")
            assert np.linalg.norm(error) <= limit * largest, dtype
            assert float(answer.residual) <= limit


@settings(max_examples=40, deadline=None, derandomize=True, database=None)
@given(
    st.sampled_from([2, 3, 4]),
    st.sampled_from(FAMILIES),
    st.integers(0, 2**31),
    st.sampled_from([1e-20, 1.0, 1e20]),
)
def test_it_is_the_shortest_and_conflicts_with_no_task(
    k: int, family: str, seed: int, scale: float
) -> None:
    rows = jacobian(family, k, np.random.default_rng(seed))
    rows = (rows * scale).astype(np.float32).astype(np.float64)
    answer, _ = solve(rows)
    weights = np.asarray(answer.weights, np.float64)
    found, best = weights @ rows, shortest(rows)
    norms = np.linalg.norm(rows, axis=1)
    # Lengths: the point itself is ill-conditioned where the hull is thin.
    reach = weights @ norms
    assert np.linalg.norm(found) <= np.linalg.norm(best) + 1e-4 * norms.max()
    assert np.all(rows @ found >= -3e-6 * norms * reach)
    assert weights.min() >= 0
    np.testing.assert_allclose(weights.sum(), 1, rtol=1e-5)


@functools.cache
def compiled(normalize: Any) -> Any:
    method = jmtl.mgda(3, normalize=normalize)
    return jax.jit(lambda rows, losses: method.update(Seen(losses, jmtl.gramian(rows)), ())[0])


def answer_with(normalize: Any, rows: Any, losses: Any) -> Answer:
    return compiled(normalize)(jnp.asarray(rows, jnp.float32), jnp.asarray(losses, jnp.float32))


ROWS = np.asarray([[1.0, 0.2, 0.0], [-0.3, 2.0, 0.5], [0.1, -0.4, 3.0]])
LOSSES = np.asarray([0.5, 4.0, 1.5])


@pytest.mark.parametrize("normalize", ["none", "l2", "loss", "loss+"])
def test_normalising_divides_each_gradient_in_the_search(normalize: Any) -> None:
    norms = np.linalg.norm(ROWS, axis=1)
    divisor = {
        "none": np.ones(3), "l2": norms, "loss": LOSSES, "loss+": LOSSES * norms
    }[normalize]  # fmt: skip
    found = answer_with(normalize, ROWS, LOSSES)
    expected = answer_with("none", ROWS / divisor[:, None], LOSSES)
    np.testing.assert_allclose(found.weights, expected.weights, atol=1e-6)
    assert np.sum(np.asarray(found.weights) > 1e-3) == 3, "a corner tells little"
    assert jmtl.mgda(3, normalize=normalize).uses_losses == normalize.startswith("loss")


def test_a_task_without_gradient_takes_the_weight() -> None:
    rows = ROWS.copy()
    rows[1] = 0.0
    for normalize in ("none", "l2", "loss", "loss+"):
        found = answer_with(normalize, rows, LOSSES)
        np.testing.assert_array_equal(found.weights, [0, 1, 0])
        np.testing.assert_array_equal(found.residual, 0)
    # A batch with no label of a task: its loss is zero too.
    for normalize in ("loss", "loss+"):
        found = answer_with(normalize, rows, [0.5, 0.0, 1.5])
        np.testing.assert_array_equal(found.weights, [0, 1, 0])


@pytest.mark.parametrize("bad", [-1.0, 0.0, np.nan])
@pytest.mark.parametrize("normalize", ["loss", "loss+"])
def test_a_loss_that_cannot_divide_shows(normalize: Any, bad: float) -> None:
    found = answer_with(normalize, ROWS, [0.5, bad, 1.5])
    assert np.isnan(found.weights).all()
    assert np.isnan(found.residual)


def test_non_finite_gradients_show() -> None:
    rows = ROWS.copy()
    rows[0, 1] = np.inf
    found = answer_with("none", rows, LOSSES)
    assert np.isnan(found.weights).all()
    assert np.isnan(found.residual)


def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match="normalize must be one of none, l2, loss, loss"):
        jmtl.mgda(3, normalize="l1")  # type: ignore[arg-type]
    assert jmtl.mgda(3).scales_heads
    assert not jmtl.mgda(3, scales_heads=False).scales_heads
