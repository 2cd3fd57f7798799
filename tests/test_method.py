"""`chain` against hand calculation; the optax face under optax's and JAX's transforms."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jmtl
from jmtl.gramian import cross_products
from jmtl.method import Answer, Method, Seen, respond, stateless
from tests.methods.cases import build

K = 3
JACOBIAN = np.asarray(
    [[1.0, 0.5, -0.3, 0.2], [-1.5, 0.3, 0.4, 0.1], [0.2, -2.0, 0.1, 0.6]], np.float32
)
LOSSES = jnp.asarray([0.5, 2.0, 1.0])


def seen(jacobian: Any = JACOBIAN, losses: Any = LOSSES) -> Seen:
    return Seen(losses, jmtl.gramian(jnp.asarray(jacobian)))


def answer_of(method: Method, given: Seen, params: Any = None) -> Answer:
    return respond(method, given, method.init(jnp.ones(4) if params is None else params))[0]


def recorder(k: int = K, **fields: Any) -> Method:
    """Weights 1, 2, … and the state is what it saw."""
    update = lambda seen, state: (Answer(jnp.arange(1.0, k + 1)), seen)
    return Method("recorder", k, stateless, update, **({"needs": "gramian"} | fields))


# --- chain


def test_uncertainty_and_pcgrad_by_hand() -> None:
    key = jax.random.key(3)
    both = jmtl.chain(jmtl.uncertainty(K), jmtl.pcgrad(K, key=key))
    assert both.name == "uncertainty+pcgrad"
    # A second step, when the weights differ.
    state = both.init(jnp.ones(4))
    _, state = both.update(seen(), state)
    found, _ = respond(both, seen(), state)
    weights = np.asarray(0.5 * jnp.exp(-state[0].s))
    assert np.ptp(weights) > 1e-3
    alone = jmtl.pcgrad(K, key=key)
    _, own = alone.update(seen(), alone.init(jnp.ones(4)))
    scaled, _ = alone.update(seen(JACOBIAN * weights[:, None]), own)
    np.testing.assert_allclose(found.weights, weights * scaled.weights, rtol=1e-5)
    np.testing.assert_allclose(found.heads, weights, rtol=1e-6)
    assert np.ptp(np.asarray(scaled.weights)) > 0.1, "no conflict to operate on"


def test_the_last_method_sees_scaled_rows_and_raw_losses() -> None:
    weights = np.asarray([2.0, 0.0, 1e-12], np.float32)
    method = jmtl.chain(jmtl.static(K, weights), recorder())
    gradients = {"a": jnp.asarray(JACOBIAN), "b": jnp.asarray(JACOBIAN[:, 0], jnp.bfloat16)}
    cross = cross_products(jnp.asarray(JACOBIAN), jnp.asarray(JACOBIAN[::-1]))
    given = seen()._replace(gradients=gradients, cross=cross)
    found, (_, saw) = respond(method, given, method.init(None))
    expected = jmtl.gramian(jnp.asarray(JACOBIAN * weights[:, None]))
    np.testing.assert_allclose(saw.gramian.cosine, expected.cosine, atol=1e-6)
    np.testing.assert_array_equal(saw.gramian.cosine[1], 0.0)
    np.testing.assert_allclose(saw.gramian.norms, expected.norms, rtol=1e-6)
    exact = JACOBIAN @ JACOBIAN[::-1].T * np.outer(weights, weights)
    np.testing.assert_allclose(
        saw.cross.inner * saw.cross.left[:, None] * saw.cross.right[None], exact, rtol=1e-5
    )
    np.testing.assert_allclose(saw.gradients["a"], JACOBIAN * weights[:, None], rtol=1e-6)
    assert saw.gradients["b"].dtype == jnp.float32, "a scaled row may leave half precision's range"
    np.testing.assert_array_equal(saw.losses, LOSSES)
    np.testing.assert_allclose(found.weights, weights * [1, 2, 3])
    np.testing.assert_allclose(found.heads, weights)


def test_weights_may_take_half_precision_out_of_its_range() -> None:
    rows = jnp.asarray([[1.0, 2.0], [3.0, -1.0]], jnp.float16)
    given = Seen(jnp.full(2, 1e6), jmtl.gramian(rows), gradients=rows)
    method = jmtl.chain(jmtl.static(2, [1e6, 1e6]), jmtl.db_mtl(2, beta=0.0))
    answer, _ = method.update(given, method.init(rows[0]))
    assert answer.gradient.dtype == jnp.float16
    alone = jmtl.db_mtl(2, beta=0.0)
    plain, _ = alone.update(given._replace(losses=jnp.ones(2)), alone.init(rows[0]))
    np.testing.assert_allclose(answer.gradient, plain.gradient, rtol=2e-3)


@pytest.mark.parametrize(("last", "heads"), [({}, [2, 3, 4]), ({"scales_heads": True}, [2, 6, 12])])
def test_heads_of_a_chain(last: dict[str, Any], heads: list[float]) -> None:
    method = jmtl.chain(jmtl.static(K, [2, 3, 4]), recorder(**last))
    np.testing.assert_array_equal(answer_of(method, seen()).heads, heads)


def test_weights_multiply_over_three_methods() -> None:
    method = jmtl.chain(
        jmtl.static(K, [2, 3, 4]), jmtl.equal(K, reduce="mean"), jmtl.static(K, [1, 0, 5])
    )
    assert (method.needs, method.name) == ("losses", "static+equal+static")
    found = answer_of(method, Seen(LOSSES))
    np.testing.assert_allclose(found.weights, np.asarray([2, 0, 20]) / 3, rtol=1e-6)
    assert found.heads is found.weights, "one backward pass serves shared and heads"


def test_one_method_is_itself() -> None:
    alone = build("mgda", K)
    method = jmtl.chain(alone)
    assert method._replace(init=alone.init, update=alone.update) == alone
    found, exact = answer_of(method, seen()), answer_of(alone, seen())
    for one, other in zip(found, exact, strict=True):
        np.testing.assert_array_equal(one, other)  # type: ignore[arg-type]


def test_observe_goes_to_those_that_have_it() -> None:
    watching = recorder(needs="losses", observe=lambda before, after, state: before - after)
    method = jmtl.chain(jmtl.equal(K), watching, recorder())
    assert method.observe is not None
    found = method.observe(LOSSES, 0.5 * LOSSES, ((), None, "kept"))
    assert found[0] == ()
    np.testing.assert_allclose(found[1], 0.5 * LOSSES)
    assert found[2] == "kept"
    assert jmtl.chain(jmtl.equal(K), recorder()).observe is None


def test_what_a_chain_takes_over() -> None:
    method = jmtl.chain(jmtl.uncertainty(K), recorder(batches=3, scales_heads=True))
    assert (method.batches, method.uses_losses, method.scales_heads) == (3, True, True)
    assert not jmtl.chain(jmtl.equal(K), recorder()).uses_losses


def test_chains_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one method"):
        jmtl.chain()
    with pytest.raises(ValueError, match="mgda needs gramian and can only come last"):
        jmtl.chain(build("mgda", K), jmtl.equal(K))
    with pytest.raises(ValueError, match="equal has num_tasks=2, mgda has num_tasks=3"):
        jmtl.chain(jmtl.equal(2), build("mgda", K))


# --- the optax face


def losses_of(params: Any, batch: jax.Array) -> jax.Array:
    hidden = jnp.tanh(batch @ params["w"] + params["b"][None])
    return jnp.mean((hidden - jnp.asarray([[1.0, -1.0, 0.5]])) ** 2, axis=0) * jnp.arange(1.0, 4.0)


PARAMS = {"w": 0.1 * jnp.arange(12.0).reshape(4, 3) - 0.5, "b": jnp.zeros(3)}
BATCH = jnp.sin(jnp.arange(32.0)).reshape(8, 4)


def chained(key: jax.Array) -> optax.GradientTransformationExtraArgs:
    method = jmtl.chain(jmtl.uncertainty(num_tasks=K), jmtl.pcgrad(num_tasks=K, key=key))
    return optax.chain(jmtl.aggregator(method), optax.clip_by_global_norm(0.5), optax.adam(1e-2))


def train(key: jax.Array) -> tuple[Any, Any, jax.Array]:
    tx = chained(key)

    def step(carry: Any, _: None) -> tuple[Any, jax.Array]:
        params, state = carry
        values, grads = jmtl.value_and_task_grads(losses_of)(params, BATCH)
        updates, state = tx.update(grads, state, params, losses=values)
        return (optax.apply_updates(params, updates), state), jnp.sum(values)

    (params, state), totals = jax.lax.scan(step, (PARAMS, tx.init(PARAMS)), None, length=10)
    return params, state, totals


def test_under_jit_scan_and_vmap_over_seeds() -> None:
    keys = jax.random.split(jax.random.key(0), 8)
    params, state, totals = jax.jit(jax.vmap(train))(keys)
    one_by_one = jax.jit(train)
    for seed in range(8):
        expected, alone, falling = one_by_one(keys[seed])
        for name in PARAMS:
            np.testing.assert_allclose(params[name][seed], expected[name], rtol=2e-5, atol=2e-6)
        np.testing.assert_allclose(
            jmtl.info(state).weights[seed], jmtl.info(alone).weights, rtol=1e-4, atol=1e-5
        )
        assert falling[-1] < falling[0]
    assert np.isfinite(totals).all()
    assert jmtl.info(state).weights.shape == (8, K)


def test_the_chain_of_the_readme_equals_its_parts() -> None:
    values, grads = jmtl.value_and_task_grads(losses_of)(PARAMS, BATCH)
    key = jax.random.key(1)
    tx = optax.chain(jmtl.aggregator(jmtl.pcgrad(num_tasks=K, key=key)), optax.adam(1e-3))
    state = tx.init(PARAMS)
    assert np.isnan(jmtl.info(state).weights).all()
    updates, state = jax.jit(tx.update)(grads, state, PARAMS, losses=values)
    weights = jmtl.info(state).weights
    expected, _ = optax.adam(1e-3).update(
        jmtl.combine(grads, weights), optax.adam(1e-3).init(PARAMS)
    )
    for name in PARAMS:
        np.testing.assert_allclose(updates[name], expected[name], rtol=1e-5, atol=1e-9)
    assert float(jmtl.info(state).residual) == 0.0


def test_clipping_after_it_clips_the_one_gradient() -> None:
    transform = optax.chain(jmtl.aggregator(jmtl.equal(2)), optax.clip_by_global_norm(1.0))
    rows = jnp.asarray([[30.0, 0.0], [0.0, 40.0]])
    updates, _ = transform.update(rows, transform.init(rows[0]))
    np.testing.assert_allclose(updates, [0.6, 0.8], rtol=1e-6)


@pytest.mark.parametrize("wrapper", ["partition", "MultiSteps", "masked"])
def test_info_finds_it_inside_wrappers(wrapper: str) -> None:
    inside = jmtl.aggregator(jmtl.static(2, [1.0, 3.0]))
    params = {"shared": jnp.ones(2), "head": jnp.ones(2)}
    grads = {"shared": jnp.eye(2), "head": jnp.ones(2)}
    if wrapper == "partition":
        labels = {"shared": "a", "head": "b"}
        tx: Any = optax.partition({"a": inside, "b": optax.sgd(0.1)}, labels)
    elif wrapper == "masked":
        tx = optax.masked(inside, {"shared": True, "head": False})
    else:
        params, grads = {"shared": params["shared"]}, {"shared": grads["shared"]}
        steps = optax.MultiSteps(optax.sgd(1.0), every_k_schedule=2).gradient_transformation()
        tx = optax.chain(inside, steps)
    state = tx.init(params)
    updates, state = tx.update(grads, state, params, losses=jnp.ones(2))
    np.testing.assert_array_equal(jmtl.info(state).weights, [1.0, 3.0])
    if wrapper != "MultiSteps":
        np.testing.assert_array_equal(updates["shared"], [1.0, 3.0])
    else:
        updates, state = tx.update(grads, state, params, losses=jnp.ones(2))
        np.testing.assert_array_equal(updates["shared"], [-1.0, -3.0])


def test_info_refuses_none_and_two() -> None:
    one = jmtl.aggregator(jmtl.equal(2)).init(PARAMS)
    with pytest.raises(ValueError, match="found 0"):
        jmtl.info(optax.adam(1e-3).init(PARAMS))
    with pytest.raises(ValueError, match="found 2"):
        jmtl.info((one, (one,)))


@pytest.mark.parametrize(
    ("grads", "losses", "words"),
    [
        (jnp.ones((2, 4)), LOSSES, r"leading axis of 2 .*\(2, 4\).*num_tasks=3"),
        ({"a": jnp.ones((3, 1)), "b": jnp.ones((2, 1))}, LOSSES, r"\['b'\].* 2, .*\['a'\].* 3"),
        (jnp.ones((3, 4)), jnp.ones(2), r"losses have shape \(2,\), but uncertainty .* \(3,\)"),
        (jnp.ones((3, 4)), jnp.ones((3, 1)), r"losses have shape \(3, 1\).*expected \(3,\)"),
        (jnp.ones((3, 4)), None, "uncertainty reads the losses.*losses=values"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(grads: Any, losses: Any, words: str) -> None:
    transform = jmtl.aggregator(jmtl.uncertainty(K))
    state = transform.init(jnp.ones(4))
    with pytest.raises(ValueError, match=words) as raised:
        transform.update(grads, state, losses=losses)
    assert "\n" not in str(raised.value)
    with pytest.raises(ValueError, match=words):
        jax.jit(transform.update)(grads, state, losses=losses)


def test_losses_may_be_left_out_where_no_one_reads_them() -> None:
    transform = jmtl.aggregator(jmtl.equal(K))
    updates, _ = transform.update(jnp.ones((3, 4)), transform.init(jnp.ones(4)))
    np.testing.assert_array_equal(updates, 3.0)


def test_methods_of_several_batches_are_refused() -> None:
    with pytest.raises(ValueError, match=r"recorder takes 3 .* use jmtl.value_and_grads"):
        jmtl.aggregator(recorder(batches=3))


def test_low_precision_gradients_keep_their_dtype_and_the_state_its_own() -> None:
    transform = jmtl.aggregator(jmtl.chain(jmtl.uncertainty(K), jmtl.pcgrad(K, order="fixed")))
    params = jnp.ones(4, jnp.bfloat16)
    state = transform.init(params)
    update = jax.jit(transform.update)
    grads, losses = jnp.asarray(JACOBIAN, jnp.bfloat16), LOSSES.astype(jnp.bfloat16)
    updates, after = update(grads, state, losses=losses)
    assert updates.dtype == jnp.bfloat16
    dtypes = lambda tree: [x.dtype for x in jax.tree.leaves(tree)]
    assert dtypes(after) == dtypes(state)
    assert after.weights.dtype == jnp.float32


def test_a_donated_state_leaves_the_key_of_the_caller_alone() -> None:
    key = jax.random.key(0)
    tx = chained(key)
    state = tx.init(PARAMS)
    grads = jax.tree.map(lambda p: jnp.stack([p, -p, 2 * p]), PARAMS)
    update = jax.jit(lambda grads, state: tx.update(grads, state, losses=LOSSES), donate_argnums=1)
    _, after = update(grads, state)
    assert jmtl.info(state).method[1].key.is_deleted(), "not donated: the test shows nothing"
    update(grads, after)
    jax.random.normal(key)
    update(grads, chained(key).init(PARAMS))


def test_parts_of_one_key_draw_different_bits() -> None:
    key = jax.random.key(0)
    named = [jmtl.method.named_key(key, name) for name in ("pcgrad", "graddrop", "pcgrad")]
    data = [np.asarray(jax.random.key_data(k)) for k in named]
    assert not np.array_equal(data[0], data[1])
    np.testing.assert_array_equal(data[0], data[2])
    assert not np.array_equal(data[0], np.asarray(jax.random.key_data(key)))
