"""IMTL-G, ConFIG, CAGrad, FairGrad, Aligned-MTL, UPGrad, DualProj: options, closed forms, edges."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jmtl
from jmtl.method import Answer, Seen, respond
from tests.solvers.references import rows_of

ROWS = rows_of("normal_3x7")
PREFERENCE = np.asarray([0.5, 1.0, 2.0])
PLAIN: dict[str, Callable[[int], jmtl.Method]] = {
    "imtl_g": jmtl.imtl_g,
    "config": jmtl.config,
    "cagrad": jmtl.cagrad,
    "fairgrad": jmtl.fairgrad,
    "aligned": jmtl.aligned,
    "upgrad": jmtl.upgrad,
    "dualproj": jmtl.dualproj,
}


@jax.jit
def _plain(rows: jax.Array) -> dict[str, Answer]:
    seen = Seen(jnp.ones(3), jmtl.gramian(rows))
    return {name: respond(make(3), seen, ())[0] for name, make in PLAIN.items()}


def plain(rows: Any) -> dict[str, Answer]:
    """Every method's answer, by defaults, for three tasks."""
    padded = np.zeros((3, 7))
    padded[:, : np.shape(rows)[1]] = rows
    return _plain(jnp.asarray(padded, jnp.float32))


def answer(method: jmtl.Method, rows: Any = ROWS) -> Answer:
    leaf = jnp.asarray(rows, jnp.float32)
    return respond(method, Seen(None, jmtl.gramian(leaf)), ())[0]


def test_orthogonal_rows_in_closed_form() -> None:
    """d = 1, 2, 4: no conflict, equal angles by 1/d, Aligned-MTL to the shortest, fair by α."""
    d = np.asarray([1.0, 2.0, 4.0])
    expected = {
        "imtl_g": (1 / d) / np.sum(1 / d),
        "config": np.sum(d) / 3 / d,
        "fairgrad": d ** (-4 / 3),
        "aligned": 1 / d / 3,
        "upgrad": np.full(3, 1 / 3),
        "dualproj": np.full(3, 1 / 3),
    }
    found = plain(np.diag(d))
    for name, weights in expected.items():
        np.testing.assert_allclose(found[name].weights, weights, rtol=1e-5, err_msg=name)
        assert found[name].residual <= 1e-5, name


def test_a_zero_row_weighs_nothing_or_its_preference() -> None:
    rows = ROWS.copy()
    rows[1] = 0
    found = plain(rows)
    for name in ("imtl_g", "config", "fairgrad"):
        assert found[name].weights[1] == 0, name
        assert np.all(np.asarray(found[name].weights)[[0, 2]] != 0), name
    for name in ("upgrad", "dualproj"):
        np.testing.assert_allclose(found[name].weights[1], 1 / 3, rtol=1e-6)
    assert found["fairgrad"].residual >= 1
    for name, response in plain(np.zeros((3, 7))).items():
        assert np.isfinite(response.weights).all(), name


def test_equal_rows() -> None:
    found = plain(np.tile(ROWS[:1], (3, 1)))
    for name, total in {"imtl_g": 1, "config": 3, "upgrad": 1, "dualproj": 1}.items():
        np.testing.assert_allclose(np.sum(found[name].weights), total, rtol=1e-5, err_msg=name)


def test_opposite_rows_have_no_common_direction() -> None:
    """Three at 120°: every equal-angle direction is 0, and the residual tells."""
    turn = 2 * np.pi * np.arange(3) / 3
    found = plain(np.stack([np.cos(turn), np.sin(turn)], axis=1))
    for name in ("imtl_g", "config"):
        np.testing.assert_array_equal(found[name].weights, 0)
        assert found[name].residual == 1
    for name in ("upgrad", "dualproj"):
        weights = np.asarray(found[name].weights)
        np.testing.assert_allclose(weights, weights[0], rtol=1e-4)


def test_imtl_g_goes_against_every_task_where_the_sum_is_negative() -> None:
    """By definition: the projections are equal and negative."""
    wide, tilt = np.radians(40), 0.5
    rows = np.asarray(
        [
            [np.cos(wide), np.sin(wide), 0],
            [np.cos(wide), -np.sin(wide), 0],
            [0.1 * np.cos(tilt), 0, 0.1 * np.sin(tilt)],
        ]
    )
    found = plain(rows)
    update = np.asarray(found["imtl_g"].weights, np.float64) @ rows
    projections = rows @ update / np.linalg.norm(rows, axis=1)
    np.testing.assert_allclose(projections, projections[0], rtol=1e-4)
    assert projections[0] < 0
    np.testing.assert_allclose(np.sum(found["imtl_g"].weights), 1, rtol=1e-5)
    assert np.all(rows @ (np.asarray(found["config"].weights) @ rows) > 0)


def test_imtl_is_a_chain() -> None:
    """The loss weights scale the rows that are balanced."""
    method = jmtl.chain(jmtl.imtl_l(3, s0=0.7), jmtl.imtl_g(3))
    leaf = jnp.asarray(ROWS, jnp.float32)
    seen = Seen(jnp.asarray([0.5, 1.0, 2.0]), jmtl.gramian(leaf))
    found, _ = method.update(seen, method.init(leaf[0]))
    expected = np.exp(0.7) * np.asarray(plain(ROWS)["imtl_g"].weights)
    np.testing.assert_allclose(found.weights, expected, rtol=1e-5)


@pytest.mark.parametrize(("rescale", "divisor"), [(0, 1.0), (1, 1.25), (2, 1.5)])
def test_cagrad_rescales(rescale: Any, divisor: float) -> None:
    found = answer(jmtl.cagrad(3, rescale=rescale))
    expected = np.asarray(plain(ROWS)["cagrad"].weights) / divisor
    np.testing.assert_allclose(found.weights, expected, rtol=1e-6)


def test_radius_and_fairness_may_be_traced() -> None:
    seen = Seen(None, jmtl.gramian(jnp.asarray(ROWS, jnp.float32)))

    def run(value: jax.Array) -> tuple[jax.Array, jax.Array]:
        first = jmtl.cagrad(3, c=value, rescale=1).update(seen, ())[0].weights
        return first, jmtl.fairgrad(3, alpha=value).update(seen, ())[0].weights

    found = jax.jit(jax.vmap(run))(jnp.asarray([0.5, 2.0]))
    np.testing.assert_allclose(
        found[0][0] * 1.25, plain(ROWS)["cagrad"].weights, rtol=1e-5, atol=1e-6
    )
    np.testing.assert_allclose(found[1][1], plain(ROWS)["fairgrad"].weights, rtol=1e-5)


def test_no_radius_is_the_mean() -> None:
    np.testing.assert_allclose(answer(jmtl.cagrad(3, c=0)).weights, 1 / 3, rtol=1e-6)


@jax.jit
def _preferred(rows: jax.Array) -> dict[str, jax.Array]:
    methods = {
        "upgrad": jmtl.upgrad(3, preference=PREFERENCE),
        "dualproj": jmtl.dualproj(3, preference=PREFERENCE),
        "dualproj of one number": jmtl.dualproj(3, preference=2 / 3),
        "config": jmtl.config(3, preference=PREFERENCE),
        "aligned": jmtl.aligned(3, preference=PREFERENCE),
        "aligned to one more": jmtl.aligned(3, preference=PREFERENCE + 1.0),
    }
    return {name: answer(method, rows).weights for name, method in methods.items()}


def test_preference() -> None:
    found = {name: np.asarray(w) for name, w in _preferred(jnp.asarray(ROWS, jnp.float32)).items()}
    of_ones = {name: np.asarray(response.weights) for name, response in plain(ROWS).items()}
    scaled = plain(3 * PREFERENCE[:, None] * ROWS)
    # A preference is a scale of what is projected, and the cone does not know scales.
    for name in ("upgrad", "dualproj"):
        expected = 3 * PREFERENCE * np.asarray(scaled[name].weights)
        np.testing.assert_allclose(found[name], expected, rtol=1e-4)
    np.testing.assert_allclose(found["dualproj of one number"], 2 * of_ones["dualproj"], rtol=1e-5)
    units = ROWS / np.linalg.norm(ROWS, axis=1, keepdims=True)
    cosines = units @ (found["config"] @ ROWS)
    np.testing.assert_allclose(cosines / cosines[1], PREFERENCE, rtol=1e-4)
    total = found["aligned"] + 3 * of_ones["aligned"]
    np.testing.assert_allclose(found["aligned to one more"], total, rtol=1e-4)


def test_non_finite_gradients_show() -> None:
    rows = ROWS.copy()
    rows[1, 2] = np.nan
    for name, response in plain(rows).items():
        assert np.isnan(response.weights).any(), name
        assert np.isnan(response.residual), name


def test_options_are_checked() -> None:
    with pytest.raises(ValueError, match="cagrad: c must be a finite number >= 0"):
        jmtl.cagrad(3, c=-0.1)
    with pytest.raises(ValueError, match="cagrad: rescale must be one of 0, 1, 2; got 3"):
        jmtl.cagrad(3, rescale=3)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="fairgrad: alpha must be a finite number > 0"):
        jmtl.fairgrad(3, alpha=0)
    with pytest.raises(ValueError, match="aligned: scale must be one of min, median, rmse"):
        jmtl.aligned(3, scale="max")  # type: ignore[arg-type]
    for make in (jmtl.upgrad, jmtl.dualproj, jmtl.config):
        with pytest.raises(ValueError, match=r"preference must be .* >= 0, or 3 of them"):
            make(3, preference=[1.0, -1.0, 0.0])
    with pytest.raises(ValueError, match=r"aligned: preference .* got shape \(2,\)"):
        jmtl.aligned(3, preference=[1.0, 2.0])
