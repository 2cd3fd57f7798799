import gc
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmtl.data import source
from jmtl.data.indices import indices, position
from jmtl.data.loading import evaluation_batches, gather, stream
from tests.data.test_source import Squares

N, B = 12, 8


@pytest.fixture(scope="module")
def squares(tmp_path_factory):
    return source.load(source.prepare(Squares, tmp_path_factory.mktemp("squares")), "train")


def assert_equal(first, second):
    assert first.keys() == second.keys()
    for name, values in first.items():
        assert values.dtype == second[name].dtype
        np.testing.assert_array_equal(values, second[name])


def test_stream_and_device_give_the_same_batches(squares):
    seed, start, steps = 7, 100, 6  # 48 rows: four epochs of 12, straddled
    arrays = jax.tree.map(jnp.asarray, source.as_arrays(squares))
    epoch, offset = position(start, B, N, steps)

    @jax.jit
    def run(arrays, seed, epoch, offset):
        def step(i, _):
            rows = indices(seed, epoch, offset + i * B, B, N, jnp)
            return i + 1, gather(arrays, rows)

        return jax.lax.scan(step, jnp.uint32(0), length=steps)[1]

    device = run(arrays, jnp.uint32(seed), jnp.uint32(epoch), jnp.uint32(offset))
    streamed = list(stream(squares, seed, B, start, start + steps))
    assert len(streamed) == steps
    for i, batch in enumerate(streamed):
        assert_equal(batch, jax.tree.map(lambda a, i=i: a[i], device))
    # The batches are the examples, and each epoch sees each of them once.
    seen = np.concatenate([batch["x"][:, 0, 0] for batch in streamed])
    np.testing.assert_array_equal(
        np.concatenate([batch["y"] for batch in streamed]), seen.astype(int) ** 2
    )
    first = -offset % N
    np.testing.assert_array_equal(np.sort(seen[first : first + N]), np.arange(N))


def test_a_resumed_stream_goes_on_where_it_was(squares):
    whole = list(stream(squares, 3, B, 0, 9))
    for t in (1, 4, 8):
        for batch, expected in zip(stream(squares, 3, B, t, 9), whole[t:], strict=True):
            assert_equal(batch, expected)


@pytest.mark.parametrize("hosts", [2, 4])
def test_hosts_concatenate_to_the_global_batch(squares, hosts):
    parts = [list(stream(squares, 3, B, 2, 6, host, hosts)) for host in range(hosts)]
    for whole, *rows in zip(stream(squares, 3, B, 2, 6), *parts, strict=True):
        assert_equal(whole, jax.tree.map(lambda *a: np.concatenate(a), *rows))


@pytest.mark.parametrize(("start", "stop", "lengths"), [(0, 7, [3, 3, 1]), (4, 6, [2]), (5, 5, [])])
def test_stacks_hold_the_same_batches(squares, start, stop, lengths):
    for data, batch_size in ((squares, B), ({"a": squares, "b": squares}, {"a": 4, "b": 2})):
        stacks = list(stream(data, 3, batch_size, start, stop, 1, 2, every=3))
        assert [len(jax.tree.leaves(stack)[0]) for stack in stacks] == lengths
        batches = list(stream(data, 3, batch_size, start, stop, 1, 2))
        found = [
            jax.tree.map(lambda x, i=i: x[i], stack)
            for stack, steps in zip(stacks, lengths, strict=True)
            for i in range(steps)
        ]
        for one, other in zip(found, batches, strict=True):
            jax.tree.map(np.testing.assert_array_equal, one, other)


def test_arrays_stream_like_their_source(squares):
    arrays = source.as_arrays(squares)
    both = zip(stream(arrays, 3, B, 0, 4), stream(squares, 3, B, 0, 4), strict=True)
    for batch, expected in both:
        assert_equal(batch, expected)


def test_streams_end_and_leave_no_threads(squares):
    before = set(threading.enumerate())
    assert list(stream(squares, 0, B, 5, 5)) == []
    batches = stream(squares, 0, B, 0, 10**6)
    next(batches)
    started = set(threading.enumerate()) - before
    assert started
    del batches
    gc.collect()
    for thread in started:
        thread.join(timeout=10)
        assert not thread.is_alive()


@pytest.mark.parametrize("batch_size", [1, 5, 12, 64])
def test_evaluation_sees_every_example_once_in_order(squares, batch_size):
    arrays = source.as_arrays(squares)
    for data in (squares, arrays):
        batches = list(evaluation_batches(data, batch_size))
        assert len(batches) == -(-N // batch_size)
        weights = np.concatenate([weight for _, weight in batches])
        assert weights.dtype == np.float32
        np.testing.assert_array_equal(weights, np.arange(len(weights)) < N)
        for name, values in arrays.items():
            assert all(len(batch[name]) == batch_size for batch, _ in batches)
            stacked = np.concatenate([batch[name] for batch, _ in batches])
            np.testing.assert_array_equal(stacked[weights > 0], values)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: stream(s, 0, 9, 0, 5, 0, 2), "9 does not divide over 2 hosts"),
        (lambda s: stream(s, 0, B, 5, 4), "steps 5 to 4"),
        (lambda s: stream(s, -1, B, 0, 4), "got -1"),
        (lambda s: stream({"a": np.zeros(3), "b": np.zeros(4)}, 0, 1, 0, 1), "expected one length"),
        (lambda s: next(evaluation_batches(s, 0)), "batch_size is 0"),
    ],
)
def test_refusals(squares, call, message):
    with pytest.raises(ValueError, match=message):
        call(squares)
