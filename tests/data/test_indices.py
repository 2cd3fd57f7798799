import subprocess
import sys

import hypothesis.strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from scipy import stats

from jmtl.data.indices import batch_indices, indices, position

SIZES = [1, 2, 3, 4, 5, 7, 8, 9, 63, 64, 65, 1023, 1024, 1025]


def order(seed, epoch, n):
    return indices(seed, epoch, 0, n, n)


def check_permutation(seed, epoch, n):
    found = order(seed, epoch, n)
    assert found.dtype == np.int32
    np.testing.assert_array_equal(np.sort(found), np.arange(n))


@pytest.mark.parametrize("n", SIZES)
def test_every_epoch_is_a_permutation(n):
    for seed, epoch in [(0, 0), (0, 1), (1, 0), (2**32 - 1, 2**32 - 1)]:
        check_permutation(seed, epoch, n)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.integers(1, 5000))
def test_every_epoch_is_a_permutation_for_any_size(seed, epoch, n):
    check_permutation(seed, epoch, n)


def test_epochs_and_seeds_have_their_own_orders():
    orders = np.stack([order(s, e, 100) for s in range(10) for e in range(10)])
    assert len(np.unique(orders, axis=0)) == 100
    # Two independent orders of n agree in one place on average, with variance 1.
    agreements = [(orders[i] == orders[j]).sum() for i in range(100) for j in range(i)]
    assert abs(np.mean(agreements) - 1) < 5 / np.sqrt(len(agreements))


def pvalue(counts):
    return stats.chisquare(counts).pvalue


@pytest.mark.parametrize("n", [3, 7, 10, 16, 37])
def test_places_are_uniform_over_seeds_and_over_epochs(n):
    by_seed = np.stack([order(s, 0, n) for s in range(4000)])
    by_epoch = indices(5, 0, 0, 4000 * n, n).reshape(4000, n)
    for orders in (by_seed, by_epoch):
        for column in (0, n // 2, n - 1):
            assert pvalue(np.bincount(orders[:, column], minlength=n)) > 1e-4
        # Of the ordered pairs in the first two places, each is as frequent as any other.
        pairs = np.bincount(orders[:, 0] * n + orders[:, 1], minlength=n * n)
        assert pvalue(pairs[pairs_that_differ(n)]) > 1e-4


def pairs_that_differ(n):
    return [i * n + j for i in range(n) for j in range(n) if i != j]


def test_all_orders_of_four_appear_alike():
    orders = indices(9, 0, 0, 4 * 24 * 200, 4).reshape(-1, 4)
    _, counts = np.unique(orders, axis=0, return_counts=True)
    assert len(counts) == 24
    assert pvalue(counts) > 1e-4


def test_neighbours_are_not_kept_together():
    n = 4096
    steps = np.abs(np.diff(order(3, 0, n).astype(float)))
    # |i - j| of two independent uniform places has mean n / 3 and standard deviation n / sqrt(18).
    assert abs(steps.mean() - n / 3) < 5 * n / np.sqrt(18 * n)


@pytest.mark.parametrize("n", [1, 2, 3, 10, 64, 1000])
@pytest.mark.parametrize("batch_size", [1, 16])
def test_jit_vmap_and_scan_equal_numpy(n, batch_size):
    start, steps = 1000, 5
    epoch, offset = position(start, batch_size, n, steps)
    seeds = jnp.array([0, 1, 2**31, 2**32 - 1], jnp.uint32)

    @jax.jit
    def run(seed, epoch, offset):
        def step(i, _):
            return i + 1, indices(seed, epoch, offset + i * batch_size, batch_size, n, jnp)

        return jax.lax.scan(step, jnp.uint32(0), length=steps)[1]

    arguments = (jnp.uint32(epoch), jnp.uint32(offset))
    expected = [
        [batch_indices(int(seed), start + i, batch_size, n) for i in range(steps)] for seed in seeds
    ]
    one = run(seeds[1], *arguments)
    assert one.dtype == jnp.int32
    np.testing.assert_array_equal(one, expected[1])
    np.testing.assert_array_equal(jax.vmap(run, (0, None, None))(seeds, *arguments), expected)


def test_positions_beyond_32_bits():
    n, batch_size, t = 50_000, 4096, 10**9
    p = t * batch_size + np.arange(batch_size)
    expected = [order(7, int(e), n) for e in (p[0] // n, p[-1] // n)]
    rows = [expected[int(q // n != p[0] // n)][q % n] for q in p]
    np.testing.assert_array_equal(batch_indices(7, t, batch_size, n), rows)


@pytest.mark.parametrize(("n", "batch_size"), [(10, 4), (10, 10), (3, 8), (1, 5), (7, 64)])
def test_batches_straddle_epochs(n, batch_size):
    steps = 3 * n
    stream = np.concatenate([batch_indices(5, t, batch_size, n) for t in range(steps)])
    expected = np.concatenate([order(5, e, n) for e in range(steps * batch_size // n)])
    np.testing.assert_array_equal(stream, expected)


@pytest.mark.parametrize("hosts", [1, 2, 3, 4, 12])
def test_hosts_share_the_global_batch(hosts):
    for t in (0, 1, 99):
        parts = [batch_indices(0, t, 12, 50, host, hosts) for host in range(hosts)]
        np.testing.assert_array_equal(np.concatenate(parts), batch_indices(0, t, 12, 50))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: batch_indices(0, 0, 10, 50, 0, 3), "10 does not divide over 3 hosts"),
        (lambda: batch_indices(0, 0, 10, 50, 2, 2), "host is 2 of 2; expected 0 to 1"),
        (lambda: batch_indices(-1, 0, 10, 50), r"got -1; expected an integer in \[0, 2\*\*32\)"),
        (lambda: batch_indices(0, -1, 10, 50), "t is -1"),
        (lambda: batch_indices(0, 0, 0, 50), "batch_size 0"),
        (lambda: batch_indices(0, 0, 10, 0), "n is 0 examples"),
        (lambda: indices(0, 0, 0, 10, 2**31), "n is 2147483648 examples"),
        (
            lambda: position(0, 2**20, 100, 2**11),
            "pass 2\\*\\*31 positions; use at most 2047 steps",
        ),
    ],
)
def test_refusals(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_import_needs_neither_grain_nor_tfds():
    code = (
        "import sys, jmtl.data.indices; print({'grain', 'tensorflow_datasets'} & set(sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout == "set()\n"
