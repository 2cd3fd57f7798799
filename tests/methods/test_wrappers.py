"""`smooth` against its recurrence, `per_layer` against the method on each layer alone."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jmtl
from jmtl.method import Answer, Method, Seen, named_key, respond, stateless
from jmtl.methods.per_layer import layers_of

K, KEY = 3, jax.random.key(2)


def tree_of(seed: int, scale: float = 1.0) -> dict[str, Any]:
    """Task gradients of two Dense layers and a scale at the top."""
    draw = np.random.default_rng(seed)
    make = lambda *shape: jnp.asarray(scale * draw.normal(size=(K, *shape)), jnp.float32)
    return {
        "Dense_0": {"kernel": make(2, 3), "bias": make(3)},
        "Dense_1": {"bias": make(2), "kernel": make(3, 2)},
        "gain": make(),
    }


def opposed(seed: int) -> dict[str, Any]:
    """The same less most of its mean: every task conflicts with the others."""
    return jax.tree.map(lambda g: g - 0.95 * jnp.mean(g, axis=0, keepdims=True), tree_of(seed))


def params_of(grads: Any) -> Any:
    return jax.tree.map(lambda leaf: leaf[0], grads)


def steps_of(method: Method, stacks: list[Any], losses: Any = None) -> list[Answer]:
    """The answers of consecutive steps, compiled once."""
    losses = jnp.ones(K) if losses is None else losses

    @jax.jit
    def step(grads: Any, state: Any) -> Any:
        return respond(method, Seen(losses, jmtl.gramian(grads), gradients=grads), state)

    state, answers = method.init(params_of(stacks[0])), []
    for grads in stacks:
        answer, state = step(grads, state)
        answers.append(answer)
    return answers


# --- smooth


def test_smooth_averages_over_steps() -> None:
    stacks = [opposed(i) for i in range(4)]
    inner = jmtl.pcgrad(K, order="fixed")._replace(scales_heads=True)
    bare = [answer.weights for answer in steps_of(inner, stacks)]
    method = jmtl.smooth(inner, beta=0.7)
    found = steps_of(method, stacks)
    expected = np.asarray(bare[0], np.float64)
    for i, answer in enumerate(found):
        expected = expected if i == 0 else 0.7 * expected + 0.3 * np.asarray(bare[i], np.float64)
        np.testing.assert_allclose(answer.weights, expected, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(answer.heads, expected, rtol=1e-5, atol=1e-6)
    assert np.abs(found[-1].weights - bare[-1]).max() > 0.01
    assert (method.name, method.needs, method.num_tasks) == ("smooth(pcgrad)", "gramian", K)
    for i, answer in enumerate(steps_of(jmtl.smooth(inner, beta=0), stacks)):
        np.testing.assert_allclose(answer.weights, bare[i], rtol=1e-6)


def test_smooth_of_loss_methods_chains_and_others() -> None:
    stacks = [tree_of(i) for i in range(3)]
    weigh = jmtl.smooth(jmtl.random(K, key=KEY), beta=0.5)
    bare = [a.weights for a in steps_of(jmtl.random(K, key=KEY), stacks)]
    found = steps_of(jmtl.chain(weigh, jmtl.equal(K)), stacks)
    np.testing.assert_allclose(found[1].weights, (bare[0] + bare[1]) / 2, rtol=1e-6)
    np.testing.assert_array_equal(found[1].heads, found[1].weights)
    # A chain's heads have the loss weights alone, which are not averaged.
    inner = jmtl.chain(jmtl.static(K, [1.0, 2.0, 3.0]), jmtl.pcgrad(K, order="fixed"))
    bare = [a.weights for a in steps_of(inner, stacks)]
    found = steps_of(jmtl.smooth(inner, beta=0.5), stacks)
    np.testing.assert_allclose(found[1].weights, (bare[0] + bare[1]) / 2, rtol=1e-5)
    np.testing.assert_allclose(found[1].heads, [1.0, 2.0, 3.0], rtol=1e-6)
    assert jmtl.smooth(jmtl.modo(K)).batches == 3
    assert jmtl.smooth(jmtl.excess(K)).needs == "gradients"


def test_smooth_passes_on_what_is_observed() -> None:
    update = lambda seen, state: (Answer(jnp.ones(K)), state)
    kept = Method("kept", K, stateless, update, "losses", observe=lambda a, b, state: (a, b, state))
    method = jmtl.smooth(kept)
    assert method.observe is not None
    assert jmtl.smooth(jmtl.equal(K)).observe is None
    state = method.observe(jnp.ones(K), jnp.zeros(K), method.init(jnp.zeros(2)))
    np.testing.assert_array_equal(state.method[0], 1.0)
    assert state.method[2] == ()


def test_smooth_refuses() -> None:
    for name in ("graddrop", "moco", "db_mtl", "trimmed_mean"):
        inner = jmtl.make(name, K, **({"key": KEY} if name == "graddrop" else {}))
        with pytest.raises(ValueError, match=f"smooth averages weights, and {name} answers with"):
            jmtl.smooth(inner)
    with pytest.raises(ValueError, match="smooth: beta must be a finite number >= 0 and <= 1"):
        jmtl.smooth(jmtl.equal(K), beta=2.0)


# --- per_layer


def layers(grads: dict[str, Any]) -> list[Any]:
    return [grads["Dense_0"], grads["Dense_1"], grads["gain"]]


def test_layers_share_their_parents_path() -> None:
    found = layers_of(tree_of(0))
    assert found.members == ((0, 1), (2, 3), (4,))
    assert len(set(found.names)) == 3
    assert layers_of({"w": 0.0, "b": 1.0}).members == ((0, 1),)
    assert layers_of(jnp.ones(3)).members == ((0,),)


@pytest.mark.parametrize("name", ["mgda", "pcgrad", "krum"])
def test_per_layer_is_the_method_on_each_layer(name: str) -> None:
    inner = jmtl.make(name, K, **({"order": "fixed"} if name == "pcgrad" else {}))
    method = jmtl.per_layer(inner)
    assert (method.name, method.needs) == (f"per_layer({name})", "gradients")
    grads = tree_of(7)
    (answer,) = steps_of(method, [grads])
    residuals = []
    for part, own in zip(layers(grads), layers(answer.gradient), strict=True):
        (alone,) = steps_of(inner, [part])
        expected = jmtl.combine(part, alone.weights)
        residuals.append(alone.residual)
        for found, exact in zip(jax.tree.leaves(own), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(found, exact, rtol=1e-4, atol=1e-5)
    assert np.isnan(answer.weights).all()
    np.testing.assert_array_equal(answer.heads, 1.0)
    np.testing.assert_allclose(answer.residual, max(residuals), atol=1e-6)


def test_each_layer_draws_its_own_orders() -> None:
    grads = opposed(1)
    same = {f"layer_{i}": grads["Dense_0"] for i in range(6)}
    method = jmtl.per_layer(jmtl.pcgrad(K, key=KEY))
    first, second = steps_of(method, [same, same])
    kernels = [np.asarray(first.gradient[name]["kernel"]) for name in same]
    assert any(np.abs(kernel - kernels[0]).max() > 1e-3 for kernel in kernels[1:])
    assert any(
        np.abs(kernels[i] - second.gradient[name]["kernel"]).max() > 1e-3
        for i, name in enumerate(same)
    )
    # The second layer's draws are those of the method with the key that carries its name.
    alone = jmtl.pcgrad(K, key=KEY)
    state = alone.init(None)
    state = state._replace(key=named_key(state.key, "['layer_1']"))
    answer, _ = alone.update(Seen(jnp.ones(K), jmtl.gramian(same["layer_1"])), state)
    expected = jmtl.combine(same["layer_1"], answer.weights)["kernel"]
    np.testing.assert_allclose(kernels[1], expected, rtol=1e-5, atol=1e-6)


def test_per_layer_in_a_chain_a_scan_and_half_precision() -> None:
    grads, inner = opposed(3), jmtl.pcgrad(K, order="fixed")
    grads["Dense_0"]["bias"] = grads["Dense_0"]["bias"].astype(jnp.bfloat16)
    weights = jnp.asarray([0.5, 2.0, 1.0])
    surgery = jmtl.per_layer(jmtl.smooth(inner, beta=0.5))
    (found,) = steps_of(jmtl.chain(jmtl.static(K, weights), surgery), [grads])
    scaled = jax.tree.map(
        lambda g: (g * weights.reshape(-1, *[1] * (g.ndim - 1))).astype(g.dtype), grads
    )
    (exact,) = steps_of(jmtl.per_layer(inner), [scaled])
    np.testing.assert_allclose(
        found.gradient["Dense_1"]["kernel"], exact.gradient["Dense_1"]["kernel"], atol=1e-5
    )
    np.testing.assert_array_equal(found.heads, weights)
    assert found.gradient["Dense_0"]["bias"].dtype == jnp.bfloat16
    tx = jmtl.aggregator(surgery)

    def step(state: Any, _: None) -> Any:
        updates, state = tx.update(grads, state)
        return state, updates

    start = tx.init(params_of(grads))
    end, updates = jax.jit(lambda s: jax.lax.scan(step, s, None, 2))(start)
    assert np.isfinite(updates["gain"]).all()
    assert end.method.weights.shape == (3, K)


def test_per_layer_refuses() -> None:
    for method, message in (
        (jmtl.equal(K), "equal needs losses"),
        (jmtl.moco(K), "moco needs gradients"),
        (jmtl.modo(K), "modo takes 3 batches"),
        (jmtl.chain(jmtl.equal(K), jmtl.mgda(K)), "put the loss methods before it"),
    ):
        with pytest.raises(ValueError, match=message):
            jmtl.per_layer(method)
