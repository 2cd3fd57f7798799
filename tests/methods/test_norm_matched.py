"""`norm_matched`: every method's update has the norm of the equal-weights gradient."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jmtl
from jmtl.gramian import combined_norm, cross_products
from jmtl.method import Answer, Method, Seen, respond
from jmtl.train.step import make_step
from tests.methods.cases import SMALLEST, build
from tests.solvers.families import draw
from tests.train import toy

EPS = float(np.finfo(np.float32).eps)
LOSSES = jnp.asarray([0.5, 2.0, 1.2])
ROWS = np.asarray([[1.0, 0.5, -0.3, 0.2], [-1.5, 0.3, 0.4, 0.1], [0.2, -2.0, 0.1, 0.6]])
OPPOSED = np.asarray([[3.0, 0.0], [-1.0, 0.0]])


def kept(method: Method) -> Method:
    """The method with its own answer in its state."""

    def update(seen: Seen, state: Any) -> tuple[Answer, Any]:
        answer, _ = method.update(seen, state)
        return answer, answer

    return method._replace(update=update)


def see(rows: Any) -> Seen:
    rows = jnp.asarray(rows, jnp.float32)
    return Seen(LOSSES[: len(rows)], jmtl.gramian(rows), cross_products(rows, rows), rows)


def answer_of(method: Method, rows: Any) -> Answer:
    """The answer to a first step on rows `[K, n]`."""
    seen = see(rows)
    return respond(method, seen, method.init(seen.gradients[0]))[0]


def norms(rows: np.ndarray) -> np.ndarray:
    return np.linalg.norm(rows, axis=-1)


@functools.cache
def found(k: int) -> tuple[np.ndarray, dict[str, tuple[Answer, Answer]]]:
    """Problems `[B, K, n]` and every method's scaled and own answers, of one program."""
    rows = draw(k, 36, 5).jacobians
    zero = rows[:6].copy()
    zero[:, -1] = 0
    rows = np.concatenate([rows, zero, np.zeros_like(rows[:1])])
    methods = {name: build(name, k) for name in jmtl.METHODS if SMALLEST.get(name, 1) <= k}
    matched = {name: jmtl.norm_matched(kept(method)) for name, method in methods.items()}

    def run(rows: jax.Array) -> dict[str, tuple[Answer, Answer]]:
        seen, params = see(rows), rows[0]
        return {name: respond(m, seen, m.init(params)) for name, m in matched.items()}

    return rows, jax.tree.map(np.asarray, jax.jit(jax.vmap(run))(jnp.asarray(rows, jnp.float32)))


@pytest.mark.parametrize("k", [pytest.param(2, marks=pytest.mark.slow), 3])
def test_every_method_has_the_norm_of_the_sum_and_its_own_direction(k: int) -> None:
    rows, answers = found(k)
    assert len(answers) == len(jmtl.METHODS) - (k == 2)
    target, total = norms(rows.sum(axis=1)), norms(rows).sum(axis=1)
    safe = np.where(target > 0, target, 1)
    for name, (scaled, own) in answers.items():
        if own.gradient is None:
            after, before = (np.asarray(a.weights, np.float64) for a in (scaled, own))
            update, plain = (np.einsum("bk,bkn->bn", w, rows) for w in (after, before))
            mass = np.sum(np.abs(before) * norms(rows), axis=1)
        else:
            update, plain = (a.gradient.astype(np.float64) for a in (scaled, own))
            after, before, mass = update, plain, norms(plain)
        size = norms(plain)
        lost = 1 + (total / safe) ** 2 + (mass / np.where(size > 0, size, 1)) ** 2
        error = np.abs(norms(update) - target) / safe
        told = lost < 0.1 / (k * EPS)  # else the norms are those of rounding
        live = told & (size > 0)
        assert np.sum(live) >= 24, name
        assert np.mean(error[live] <= 1e-5) >= 0.8, name
        worst = np.argmax(np.where(live, error / lost, 0))
        assert np.all(error[live] <= 1e-5 + 4 * EPS * lost[live]), (name, error[worst], lost[worst])
        limit = 2 * (target + np.sqrt(k * EPS) * total)
        assert np.all(norms(update)[~told] <= limit[~told]), name
        np.testing.assert_array_equal(update[size == 0], 0, err_msg=name)
        one, other = (x[live] / np.abs(x[live]).max(axis=1, keepdims=True) for x in (after, before))
        np.testing.assert_allclose(one, other, atol=2e-6, err_msg=name)


@jax.jit
def opposed(rows: jax.Array, even: jax.Array) -> tuple[Answer, Answer]:
    mgda, static = jmtl.mgda(2), jmtl.static(2, [1.0, 3.0])
    return answer_of(jmtl.norm_matched(mgda), rows), answer_of(jmtl.norm_matched(static), even)


def test_rounding_is_not_blown_up_to_a_step() -> None:
    """MGDA of opposed gradients is 0 to rounding; a sum that cancels has no size."""
    rows = np.asarray([[3.0, 0.0], [-1.0, 0.0]]), np.asarray([[1.0, 0.3], [-1.0, -0.3]])
    for jacobian, answer in zip(rows, opposed(*rows), strict=True):
        assert norms(np.asarray(answer.weights, np.float64) @ jacobian) <= 1e-3


@jax.jit
def scaled_up(rows: jax.Array, weights: jax.Array) -> dict[str, Answer]:
    names = ("upgrad", "nash", "trimmed_mean")
    methods = {name: build(name, 3) for name in names} | {"static": jmtl.static(3, weights)}
    return {name: answer_of(jmtl.norm_matched(method), rows) for name, method in methods.items()}


def test_any_scale_of_gradients_and_of_weights() -> None:
    weights = jnp.asarray([1.0, 2.0, 4.0])
    plain = scaled_up(jnp.asarray(ROWS), weights)
    for scale in (2.0**-90, 2.0**90):
        scaled = scaled_up(jnp.asarray(scale * ROWS), 2.0**60 * weights)
        for name, answer in scaled.items():
            was = plain[name]
            np.testing.assert_allclose(answer.weights, was.weights, rtol=1e-5, err_msg=name)
            if was.gradient is not None:
                np.testing.assert_allclose(answer.gradient, scale * was.gradient, rtol=1e-5)


def test_heads_of_every_method() -> None:
    """Weights of losses take the heads along; other methods do to them what they did."""
    for name, (scaled, own) in found(3)[1].items():
        method, expected = build(name, 3), own.heads
        if method.needs == "losses":
            expected = scaled.weights
        elif expected is None:
            expected = own.weights if method.scales_heads else np.ones_like(own.weights)
        np.testing.assert_array_equal(scaled.heads, expected, err_msg=name)
        assert (scaled.residual == (0 if own.residual is None else own.residual)).all(), name


def test_a_factor_on_all_weights_of_losses_changes_nothing() -> None:
    seen = see(ROWS)
    for inner in (
        jmtl.equal(3, reduce="mean"),
        jmtl.chain(jmtl.equal(3), jmtl.static(3, [0.2] * 3)),
    ):
        method = jmtl.norm_matched(inner)
        assert method.needs == "gramian"
        answer, _ = respond(method, seen, method.init(ROWS[0]))
        np.testing.assert_allclose(answer.weights, 1, rtol=1e-5)
        assert answer.heads is answer.weights, "one backward pass serves shared and heads"


WEIGHTS = np.asarray([1.0, 2.0, 4.0])


@jax.jit
def composed(rows: jax.Array) -> dict[str, Answer]:
    uneven, surgery = jmtl.static(3, WEIGHTS), jmtl.pcgrad(3, order="fixed")
    methods = {
        "plain": jmtl.chain(uneven, surgery),
        "outside": jmtl.norm_matched(jmtl.chain(uneven, surgery)),
        "inside": jmtl.chain(uneven, jmtl.norm_matched(surgery)),
        "smooth": jmtl.norm_matched(jmtl.smooth(jmtl.pcgrad(3, order="fixed"))),
        "bare": jmtl.norm_matched(surgery),
        "layer": jmtl.per_layer(jmtl.norm_matched(surgery)),
        "layers": jmtl.norm_matched(jmtl.per_layer(surgery)),
    }
    seen = see(rows)
    tree = {"a": {"w": rows[:, :2]}, "b": {"w": rows[:, 2:]}}
    layered = seen._replace(gradients=tree)
    found = {}
    for name, method in methods.items():
        given = layered if name.startswith("layer") else seen
        params = jax.tree.map(lambda leaf: leaf[0], given.gradients)
        found[name], _ = respond(method, given, method.init(params))
    return found


def test_inside_and_outside_of_other_wrappers() -> None:
    found = jax.tree.map(np.asarray, composed(jnp.asarray(ROWS)))
    for name, total in (("outside", ROWS.sum(axis=0)), ("inside", WEIGHTS @ ROWS)):
        answer = found[name]
        np.testing.assert_allclose(norms(answer.weights @ ROWS), norms(total), rtol=1e-5)
        ratio = answer.weights / found["plain"].weights
        np.testing.assert_allclose(ratio, ratio[0], rtol=1e-5)
        np.testing.assert_allclose(answer.heads, WEIGHTS, rtol=1e-6)
    np.testing.assert_allclose(found["smooth"].weights, found["bare"].weights, rtol=1e-6)
    first, second = (found["layer"].gradient[name]["w"] for name in "ab")
    np.testing.assert_allclose(norms(first), norms(ROWS.sum(axis=0)[:2]), rtol=1e-5)
    np.testing.assert_allclose(norms(second), norms(ROWS.sum(axis=0)[2:]), rtol=1e-5)
    both = np.concatenate([found["layers"].gradient[name]["w"] for name in "ab"])
    np.testing.assert_allclose(norms(both), norms(ROWS.sum(axis=0)), rtol=1e-5)


def test_names_needs_and_refusals() -> None:
    uneven, surgery = jmtl.static(3, WEIGHTS), jmtl.mgda(3)
    method = jmtl.norm_matched(jmtl.chain(uneven, surgery))
    assert (method.name, method.needs) == ("norm_matched(static+mgda)", "gramian")
    assert jmtl.norm_matched(jmtl.moco(3)).needs == "gradients"
    assert jmtl.norm_matched(jmtl.famo(3)).observe is not None
    with pytest.raises(ValueError, match=r"norm_matched\(static\) needs gramian and can only come"):
        jmtl.chain(jmtl.norm_matched(uneven), surgery)
    with pytest.raises(ValueError, match="or make it with scales_heads=False"):
        jmtl.per_layer(jmtl.norm_matched(surgery))


def test_without_shared_gradients_the_heads_still_learn() -> None:
    answer = answer_of(jmtl.norm_matched(jmtl.static(3, WEIGHTS)), np.zeros((3, 4)))
    np.testing.assert_array_equal(answer.heads, WEIGHTS)


def test_non_finite_gradients_show() -> None:
    rows = ROWS.copy()
    rows[1, 2] = np.nan
    answer = answer_of(jmtl.norm_matched(jmtl.equal(3)), rows)
    assert np.isnan(answer.weights).all()


def test_half_precision_stays() -> None:
    rows = jnp.asarray(ROWS, jnp.bfloat16)
    method = jmtl.norm_matched(jmtl.trimmed_mean(3))
    answer, _ = method.update(Seen(LOSSES, jmtl.gramian(rows), gradients=rows), ())
    assert answer.gradient.dtype == jnp.bfloat16


def test_in_a_step_under_vmap_over_a_traced_option() -> None:
    """SGD moves the shared parameters as far as with equal weights, whatever the option."""
    batch = toy.to_batch({key: values[: toy.BATCH] for key, values in toy.ARRAYS.items()})
    start = toy.start(toy.PLAIN, jmtl.equal(2))
    options = {"stch": "mu", "fairgrad": "alpha", "moco": "beta"}

    def moved(method: Method) -> tuple[jax.Array, jax.Array]:
        state = start._replace(method_state=method.init(start.params["shared"]))
        step = make_step(toy.net(toy.PLAIN), toy.TASKS, method, toy.OPTIMIZER)
        new, metrics = step(state, batch)
        shared = new.params["shared"], start.params["shared"]
        return jmtl.global_norm(jax.tree.map(jnp.subtract, *shared)), metrics.weights

    @jax.jit
    def run(values: jax.Array) -> Any:
        def one(name: str) -> Any:
            make = lambda x: jmtl.norm_matched(jmtl.make(name, 2, **{options[name]: x}))
            return jax.vmap(lambda x: moved(make(x)))(values)

        return moved(jmtl.equal(2)), {name: one(name) for name in options}

    (expected, _), found = run(jnp.asarray([0.1, 0.5, 0.9]))
    for name, (lengths, weights) in found.items():
        np.testing.assert_allclose(lengths, expected, rtol=2e-5, err_msg=name)
        assert np.isfinite(weights).all() == (name != "moco")
    for name in ("stch", "fairgrad"):
        assert np.ptp(found[name][1][:, 0]) > 1e-3, "the option does nothing"


def test_combined_norm() -> None:
    weights = np.asarray([1.0, -2.0, 0.5])
    for scale in (1e-25, 1.0, 1e25):
        seen = jmtl.gramian(jnp.asarray(scale * ROWS, jnp.float32))
        norm = combined_norm(seen, jnp.asarray(weights, jnp.float32))
        np.testing.assert_allclose(norm, scale * norms(weights @ ROWS), rtol=1e-6)
    nothing = jmtl.gramian(jnp.zeros((3, 2)))
    np.testing.assert_array_equal(combined_norm(nothing, jnp.ones(3)), 0)
