"""The kernel for large rows, run as ordinary operations, against float64."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jmtl
from jmtl import one_pass, packing, products
from jmtl.gramian import from_products, gramian, row_gramian
from jmtl.products import Products, add_products
from jmtl.train.state import all_finite
from tests.test_gramian import check

interpreted = functools.partial(one_pass.inner_products, interpret=True)


@pytest.fixture
def few_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of some hundred elements are walked along by several threads, more than once."""
    monkeypatch.setattr(one_pass, "_PROGRAMS", 2)
    monkeypatch.setattr(one_pass, "_THREADS", 8)
    monkeypatch.setattr(one_pass, "_TOGETHER", 4)


@pytest.fixture
def on_a_gpu(monkeypatch: pytest.MonkeyPatch, few_programs: None) -> None:
    """What is traced is what a GPU would run, the kernel as ordinary operations."""
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(packing, "SMALL", 24)
    monkeypatch.setattr(one_pass, "inner_products", interpreted)
    monkeypatch.setattr(
        one_pass, "serves", lambda rows: len(rows) <= one_pass.MOST and rows[0].size > 60
    )


def gramian_of(rows: Any) -> Any:
    inner, scale = interpreted(rows)
    return from_products(add_products([Products(inner, scale, scale)]))


def rows_of(k: int, elements: int) -> np.ndarray:
    """K rows whose scales lie apart and change along the row, by up to 1e38."""
    rng = np.random.default_rng(elements)
    along = np.resize([1.0, 1e-20, 1e18, 3.0], -(-elements // 20)).repeat(20)[:elements]
    rows = rng.normal(size=(k, elements)) * along * np.resize([1.0, 1e-3, 1e9], k)[:, None]
    rows[: k // 2, 0] = 1e19  # a larger element at once, a small one from then on
    return rows.astype(np.float32).astype(np.float64)


@pytest.mark.usefixtures("few_programs")
@pytest.mark.parametrize(("k", "elements"), [(1, 5), (2, 64), (3, 129), (8, 517)])
def test_rows_stacked_and_apart(k: int, elements: int) -> None:
    rows = rows_of(k, elements)
    stack = jnp.asarray(rows, jnp.float32)
    check(jax.jit(gramian_of)(stack), rows)
    check(jax.jit(gramian_of)(list(stack)), rows)


@pytest.mark.usefixtures("few_programs")
def test_zero_rows_and_numbers_whose_squares_vanish() -> None:
    rows = rows_of(3, 129)
    rows[1] = 0
    rows[2] = rows[0] * 1e-35 / np.abs(rows[0]).max()
    stack = jnp.asarray(rows, jnp.float32)
    found = gramian_of(stack)
    check(found, np.asarray(stack, np.float64))
    np.testing.assert_array_equal(found.cosine[1], 0)


@pytest.mark.usefixtures("few_programs")
@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_what_is_no_number_is_seen_in_its_row_alone(wrong: float) -> None:
    rows = rows_of(3, 129)
    found = gramian_of(jnp.asarray(rows, jnp.float32).at[2, 100].set(wrong))
    assert not np.isfinite(found.norms[2])
    assert np.isnan(found.cosine[0, 2])
    check(jax.tree.map(lambda x: x[..., :2][:2], found), rows[:2])


@pytest.mark.usefixtures("few_programs")
def test_half_precision_and_many_problems_at_once() -> None:
    many = jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 70)), jnp.bfloat16)
    found = jax.jit(jax.vmap(gramian_of))(many)
    for i in range(2):
        check(jax.tree.map(lambda x, i=i: x[i], found), np.asarray(many[i], np.float64))


def test_who_is_served() -> None:
    stack = jnp.zeros((2, one_pass.LEAST + 1))
    assert not one_pass.serves(stack)  # on a CPU


@pytest.mark.usefixtures("on_a_gpu")
def test_small_leaves_together_and_large_ones_by_the_kernel() -> None:
    rows = rows_of(3, 120)
    stack = jnp.asarray(rows, jnp.float32)
    tree = {"a": stack[:, :7], "b": stack[:, 7:20].reshape(3, -1, 13), "c": stack[:, 20:]}
    assert len(packing.packed([x[0] for x in tree.values()])) == 2
    apart = [jax.tree.map(lambda x, i=i: x[i], tree) for i in range(3)]
    check(gramian(tree), rows)
    check(row_gramian(apart), rows)


@pytest.mark.usefixtures("on_a_gpu")
def test_packed_leaves_keep_their_dtypes_and_what_is_not_finite() -> None:
    leaves = [jnp.ones((2, 3)), jnp.ones((4,), jnp.bfloat16), jnp.zeros((30,)), jnp.ones(())]
    large, single, half = packing.packed(leaves)
    assert large is leaves[2]
    assert (single.shape, single.dtype) == ((7,), jnp.float32)
    assert (half.shape, half.dtype) == ((4,), jnp.bfloat16)
    assert all_finite(leaves)
    assert not all_finite([*leaves, jnp.asarray(jnp.nan)])


def test_visits_one_by_one_are_those_of_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    grads = {"w": jnp.asarray(np.random.default_rng(3).normal(size=(4, 6)), jnp.float32)}
    for method in (jmtl.pcgrad(4, jax.random.key(0)), jmtl.gradvac(4, jax.random.key(0))):
        aggregate = jmtl.aggregator(method)
        state = aggregate.init({"w": grads["w"][0]})
        expected, _ = aggregate.update(grads, state)
        with monkeypatch.context() as patch:
            patch.setattr(jax, "default_backend", lambda: "gpu")
            found, _ = aggregate.update(grads, state)
        np.testing.assert_allclose(found["w"], expected["w"], rtol=1e-5, atol=1e-6)


def test_products_of_no_part_are_refused() -> None:
    with pytest.raises(ValueError, match="no leaves"):
        products.add_products([])
