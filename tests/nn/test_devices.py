"""Batch norm and dropout: several devices give what one gives, under pmap and under jit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jmtl import nn, tasks
from jmtl.nn import Dropout

N, B = 4, 8
TASKS = (tasks.classification("kind", 3), tasks.regression("size"))
# Every device's rows have another mean and scale, so that local statistics are far off.
X = jnp.concatenate(
    [jax.random.normal(jax.random.key(d), (B // N, 4, 4)) * (d + 1) + d for d in range(N)]
)
LABELS = {"kind": jnp.arange(B) % 3, "size": jnp.arange(B) / B}
PRESENT = {"kind": jnp.arange(B) != 0, "size": jnp.arange(B) % 3 == 0}
BATCH = tasks.batch(X, LABELS, PRESENT)
RNGS = {"dropout": jax.random.key(0)}


def split(tree):
    return jax.tree.map(lambda x: x.reshape(N, B // N, *x.shape[1:]), tree)


def mesh():
    return Mesh(np.array(jax.devices()[:N]), ("data",))


def trained(axis_name):
    """(values, state), gradients of one device's share of the losses, by its global counts."""
    encoder = nn.ResNet((4, 4), (1, 1), dropout=0.25)
    heads = nn.make_heads(TASKS, hidden=(4,), dropout=0.25)
    model = nn.model(encoder, heads, axis_name)

    def loss(params, state, batch, counts, key):
        outputs, state = model.apply(params, state, batch.inputs, True, key)
        return sum(tasks.task_losses(TASKS, outputs, batch, counts)), (outputs, state)

    return model, jax.value_and_grad(loss, has_aux=True)


def close(a, b, tolerance=1e-5):
    for one, other in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        np.testing.assert_allclose(
            one, other, rtol=tolerance, atol=tolerance * np.abs(other).max() + 1e-7
        )


@pytest.fixture(scope="module")
def single():
    model, gradient = trained(None)
    params, state = model.init(jax.random.key(0), X)
    key = jax.random.key(1)
    return params, state, key, jax.jit(gradient)(params, state, BATCH, None, key)


def pmapped(axis_in_model, single):
    params, state, key, _ = single
    _, gradient = trained(axis_in_model)

    def step(params, state, batch):
        counts = jax.lax.psum(tasks.task_counts(TASKS, batch), "data")
        (value, (outputs, state)), grads = gradient(params, state, batch, counts, key)
        # Shares of a sum: their mean over devices is the gradient over N.
        mean = jax.lax.pmean((value, grads), "data")
        return jax.tree.map(lambda x: x * N, mean), outputs, state

    (value, grads), outputs, state = jax.pmap(step, "data", in_axes=(None, None, 0))(
        params, state, split(BATCH)
    )
    for leaf in jax.tree.leaves((grads, state)):  # every device ends with the same bits
        np.testing.assert_array_equal(leaf, np.broadcast_to(leaf[:1], leaf.shape))
    first = jax.tree.map(lambda x: x[0], (value, state, grads))
    joined = jax.tree.map(lambda x: x.reshape(B, *x.shape[2:]), outputs)
    return (first[0], (joined, first[1])), first[2]


def test_pmap_gives_what_one_device_gives(single):
    close(pmapped("data", single), single[3])


def test_pmap_without_the_axis_name_is_far_off(single):
    (value, _), _ = single[3]
    params, state, key, _ = single
    _, gradient = trained(None)
    counts = tasks.task_counts(TASKS, BATCH)
    parts = [jax.tree.map(lambda x, d=d: x[d], split(BATCH)) for d in range(N)]
    local = jax.jit(gradient)
    wrong = sum(local(params, state, part, counts, key)[0][0] for part in parts)
    assert abs(wrong / value - 1) > 0.05


def test_jit_over_a_mesh_gives_what_one_device_gives(single):
    params, state, key, expected = single
    sharded = jax.device_put(BATCH, NamedSharding(mesh(), PartitionSpec("data")))
    _, gradient = trained(None)
    close(jax.jit(gradient)(params, state, sharded, None, key), expected)


@pytest.mark.parametrize("channels", [False, True])
def test_dropout_masks_are_the_same_on_any_number_of_devices(channels):
    x, key = jnp.ones((B, 3, 3, 32)), jax.random.key(0)

    def drop(axis_name):
        module = Dropout(0.4, channels=channels, axis_name=axis_name)
        return lambda x: module.apply({}, x, True, rngs={"dropout": key})

    one = drop(None)(x)
    sharded = jax.device_put(x, NamedSharding(mesh(), PartitionSpec("data")))
    np.testing.assert_array_equal(jax.jit(drop(None))(sharded), one)
    for devices in (2, 8):
        parts = x.reshape(devices, B // devices, *x.shape[1:])
        many = jax.pmap(drop("data"), "data")(parts)
        np.testing.assert_array_equal(many.reshape(x.shape), one)
    same_in_channel = (one == one[:, :1, :1]).all()
    assert same_in_channel == channels
    assert len({row.tobytes() for row in np.asarray(one)}) == B  # no two rows share a mask


@pytest.mark.parametrize("rate", [0.3, 1 / 3, 1e-6, 0.9999])
def test_dropout_keeps_a_whole_number_of_65536ths_and_divides_by_it(rate):
    x = jnp.ones((100, 99, 101))
    y = np.asarray(jax.jit(lambda x: Dropout(rate).apply({}, x, True, rngs=RNGS))(x))
    kept = round((1 - rate) * 65536) / 65536
    np.testing.assert_array_equal(np.unique(y[y > 0]), np.float32(1 / kept))
    # Five standard errors of a share of 10⁶ independent draws.
    np.testing.assert_allclose((y > 0).mean(), kept, atol=5 * (kept * (1 - kept) / y.size) ** 0.5)
    np.testing.assert_array_equal(Dropout(rate).apply({}, x, False), x)


def test_dropout_draws_the_elements_of_a_row_independently():
    kept = Dropout(0.5).apply({}, jnp.ones((4000, 6)), True, rngs=RNGS) > 0
    counts = np.bincount(np.asarray(kept) @ (1 << np.arange(6)), minlength=64)
    # Pearson's statistic over all 64 patterns: chi-squared with 63 degrees, mean 63, spread 11.
    assert ((counts - 4000 / 64) ** 2).sum() / (4000 / 64) < 63 + 5 * 126**0.5


def test_dropout_of_nearly_everything_stays_finite():
    y = Dropout(1 - 1e-9).apply({}, jnp.ones((1000, 1000)), True, rngs=RNGS)
    np.testing.assert_array_equal(np.unique(y), [0, 65536])


@pytest.mark.parametrize("rate", [-0.1, 1.0])
def test_dropout_rates_out_of_range_are_refused(rate):
    with pytest.raises(ValueError, match=f"below 1, got {rate}"):
        Dropout(rate).apply({}, jnp.ones((2, 2)), False)
