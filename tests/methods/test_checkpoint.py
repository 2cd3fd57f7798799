"""Every method's state survives a checkpoint: the next answer is the same to the bit."""

import jax
import jax.numpy as jnp
import numpy as np

import jmtl
from jmtl.train import checkpoint
from tests.methods import cases

K = 3


def losses(params, batch):
    hidden = jnp.tanh(batch @ params["layer"]["kernel"])
    return jnp.stack([jnp.mean((hidden[:, i] - 1.5) ** 2) for i in range(K)])


def test_every_method_goes_on_from_a_checkpoint_as_if_nothing_had_happened(tmp_path):
    params = {"layer": {"kernel": jax.random.normal(jax.random.key(0), (5, K))}}
    one = jax.random.normal(jax.random.key(1), (16, 5))
    three = jax.random.normal(jax.random.key(2), (3, 16, 5))
    steps, states = {}, {}
    for name in jmtl.METHODS:
        method = cases.build(name, K)
        batch = one if method.batches == 1 else three
        take = jmtl.value_and_grads(losses, method)
        steps[name] = jax.jit(lambda state, take=take, batch=batch: take(state, params, batch))
        states[name] = steps[name](method.init(params)).state
    handle = checkpoint.open_checkpoints(tmp_path)
    checkpoint.save(handle, 1, states)
    templates = {name: cases.build(name, K).init(params) for name in jmtl.METHODS}
    found = checkpoint.restore(handle, templates).state
    checkpoint.close(handle)
    for name, step in steps.items():
        here, there = step(states[name]), step(found[name])
        for a, b in zip(jax.tree.leaves(here), jax.tree.leaves(there), strict=True):
            if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
                a, b = jax.random.key_data(a), jax.random.key_data(b)
            np.testing.assert_array_equal(a, b, err_msg=name)
