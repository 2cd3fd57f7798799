"""Encoders that compute activations again: the same update, less memory."""

import jax
import jax.numpy as jnp
import pytest

import jmtl
from jmtl.train.step import make_step
from tests.nn.test_encoders import SAME_CODE
from tests.nn.tiny import TINY, tiny
from tests.train import toy
from tests.train.test_step import batch_of

ON_A_CPU = {"xla_disable_hlo_passes": "cse_barrier_expander"}
"""Without it XLA undoes on a CPU what it keeps on a GPU and a TPU."""
DEEP = ("mlp", {"hidden": (32,) * 4, "dropout": 0.2})
BLOCKS = ("resnet", {"widths": (4, 8), "blocks": (2, 2), "dropout": 0.2})


@pytest.mark.parametrize(
    ("encoder", "method", "options"),
    [
        (DEEP, jmtl.equal(2), {"microbatches": 2}),
        pytest.param(DEEP, jmtl.pcgrad(2), {"strategy": "vmap"}, marks=pytest.mark.slow),
        pytest.param(BLOCKS, jmtl.pcgrad(2), {}, marks=pytest.mark.slow),  # batch norm
    ],
)
def test_the_same_update_with_less_memory(encoder, method, options):
    state, batch = toy.start(encoder, method), batch_of(0, 512)
    updated, used = [], []
    for remat in (False, True):
        net = toy.net((encoder[0], {**encoder[1], "remat": remat}))
        step = jax.jit(make_step(net, toy.TASKS, method, toy.OPTIMIZER, **options))
        compiled = step.lower(state, batch).compile(compiler_options=ON_A_CPU)
        used.append(compiled.memory_analysis().temp_size_in_bytes)
        updated.append(toy.numbers(toy.Trained(*compiled(state, batch))))
    assert toy.distance(*updated) < 1e-6
    assert used[1] < 0.8 * used[0]


@pytest.mark.parametrize("name", sorted(TINY.keys() - SAME_CODE - {"resnet50"}))
def test_every_encoder_has_the_same_parameters_and_gradients_of_the_same_shapes(name):
    plain, inputs = tiny(name)
    again, _ = tiny(name, remat=True)
    key = jax.random.key(0)
    one, other = (jax.eval_shape(lambda e=e: e.init(key, inputs, False)) for e in (plain, again))
    assert jax.tree.map(lambda x, y: x.shape == y.shape, one, other)

    rngs = {"dropout": key}

    def total(params, state):
        variables = {"params": params, **state}
        out, moved = again.apply(variables, inputs, True, mutable=list(state), rngs=rngs)
        return sum(x.astype(jnp.float32).sum() for x in jax.tree.leaves(out)), moved

    params = other["params"]
    state = {name: tree for name, tree in other.items() if name != "params"}
    jaxpr = jax.make_jaxpr(jax.grad(total, has_aux=True))(params, state)
    assert "remat" in str(jaxpr) or "checkpoint" in str(jaxpr)
    grads = jax.eval_shape(jax.grad(total, has_aux=True), params, state)[0]
    assert jax.tree.map(lambda x: x.shape, grads) == jax.tree.map(lambda x: x.shape, params)
