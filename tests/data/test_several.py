import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmtl.data import source
from jmtl.data.indices import batch_indices
from jmtl.data.loading import evaluation_batches, start_at, stream, take
from jmtl.data.several import batch_sizes, by_source, seed_of, several

N = {"one": 12, "two": 7}
B = {"one": 4, "two": 6}
ARRAYS = {
    "one": {
        "x": np.arange(12, dtype=np.int32),
        "y": np.arange(24.0, dtype=np.float32).reshape(12, 2),
    },
    "two": {"x": np.arange(100, 107, dtype=np.int32)},
}


def test_each_data_set_has_its_own_order():
    seen = list(stream(ARRAYS, 7, B, 0, 42))
    for name in N:
        rows = np.concatenate([batch[name]["x"] for batch in seen])
        expected = [batch_indices(seed_of(7, name), t, B[name], N[name]) for t in range(42)]
        np.testing.assert_array_equal(rows, ARRAYS[name]["x"][np.concatenate(expected)])
        # Every epoch of its own sees each example once.
        epochs = rows[: len(rows) // N[name] * N[name]].reshape(-1, N[name])
        np.testing.assert_array_equal(np.sort(epochs), np.tile(ARRAYS[name]["x"], (len(epochs), 1)))


def test_stream_and_device_give_the_same_batches():
    start, steps, seed = 5, 6, 3
    epoch, offset = start_at(start, B, N, steps)

    @jax.jit
    def run(arrays, seed, epoch, offset):
        def step(_, i):
            return None, take(arrays, seed, epoch, offset, i, B)

        return jax.lax.scan(step, None, jnp.arange(steps, dtype=jnp.uint32))[1]

    device = run(jax.tree.map(jnp.asarray, ARRAYS), jnp.uint32(seed), epoch, offset)
    streamed = list(stream(ARRAYS, seed, B, start, start + steps))
    jax.tree.map(
        np.testing.assert_array_equal, device, jax.tree.map(lambda *x: np.stack(x), *streamed)
    )


def test_a_resumed_stream_and_hosts_share_the_batches():
    whole = list(stream(ARRAYS, 3, B, 0, 6))
    for t in (1, 5):
        for batch, expected in zip(stream(ARRAYS, 3, B, t, 6), whole[t:], strict=True):
            jax.tree.map(np.testing.assert_array_equal, batch, expected)
    hosts = (list(stream(ARRAYS, 3, B, 0, 6, host, 2)) for host in range(2))
    for expected, *parts in zip(whole, *hosts, strict=True):
        joined = jax.tree.map(lambda *x: np.concatenate(x), *parts)
        jax.tree.map(np.testing.assert_array_equal, joined, expected)


def test_evaluation_sees_every_example_of_each_once():
    batches = list(evaluation_batches(ARRAYS, {"one": 5, "two": 7}))
    assert len(batches) == 3
    for name, features in ARRAYS.items():
        weights = np.concatenate([weight[name] for _, weight in batches])
        assert weights.sum() == N[name]
        for feature, values in features.items():
            stacked = np.concatenate([batch[name][feature] for batch, _ in batches])
            np.testing.assert_array_equal(stacked[weights > 0], values)


def test_arrays_and_sizes_of_several():
    assert source.lengths(ARRAYS) == N
    assert source.lengths(ARRAYS["two"]) == 7
    assert several(ARRAYS)
    assert several(N)
    assert not several(ARRAYS["one"])
    assert not several(12)
    with pytest.raises(ValueError, match="the data sets are one, two; got 4"):
        by_source(lambda name, a, b: None, N, 4)
    with pytest.raises(ValueError, match=r"the data sets are one, two; got \['one'\]"):
        by_source(lambda name, a, b: None, N, {"one": 4})


def test_seeds_of_data_sets_differ():
    names = ("one", "two", "three")
    seeds = {seed_of(seed, name) for seed in range(100) for name in names}
    assert len(seeds) == 300
    assert seed_of(5, None) == 5
    traced = jax.jit(lambda seed: seed_of(seed, "one"))(jnp.uint32(5))
    assert traced == seed_of(5, "one") == seed_of(np.uint32(5), "one")


@pytest.mark.parametrize("total", [3, 10, 64, 97])
def test_batch_sizes(total):
    sizes = {"a": 342, "b": 107, "c": 266}
    n = np.array(list(sizes.values()))
    for temperature in (1.0, 2.0, 5.0):
        rows = np.array(list(batch_sizes(sizes, total, temperature).values()))
        assert rows.sum() == total
        assert rows.min() >= 1
        share = total * n ** (1 / temperature) / (n ** (1 / temperature)).sum()
        assert (np.abs(rows - share)[share >= 1] < 1).all()
    rows = np.array(list(batch_sizes(sizes, total, np.inf).values()))
    assert rows.max() - rows.min() <= 1
    assert rows.sum() == total


@pytest.mark.parametrize("unit", [2, 8])
def test_batch_sizes_in_units(unit):
    sizes = {"a": 342, "b": 107, "c": 266}
    for temperature in (1e-3, 1.0, 3.0, np.inf):
        rows = batch_sizes(sizes, 16 * unit, temperature, unit)
        assert rows == {k: unit * n for k, n in batch_sizes(sizes, 16, temperature).items()}
    with pytest.raises(ValueError, match="65 rows cannot be dealt to 3 data sets in units of"):
        batch_sizes(sizes, 65, 1.0, unit)


def test_batch_sizes_by_hand():
    assert batch_sizes({"a": 100, "b": 300}, 8) == {"a": 2, "b": 6}
    assert batch_sizes({"a": 100, "b": 900}, 8, 2.0) == {"a": 2, "b": 6}
    assert batch_sizes({"a": 1, "b": 10**6}, 8) == {"a": 1, "b": 7}
    assert batch_sizes({"a": 1, "b": 10**6}, 8, np.inf) == {"a": 4, "b": 4}
    with pytest.raises(ValueError, match="2 data sets take at least a row each, got 1"):
        batch_sizes({"a": 1, "b": 1}, 1)
    with pytest.raises(ValueError, match="above 0, got 0"):
        batch_sizes({"a": 1, "b": 1}, 2, 0)
