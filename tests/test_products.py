"""Inner products by blocks and row by row, against float64."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmtl import products
from jmtl.gramian import combine, combine_rows, cross_products, from_products, gramian, row_gramian
from tests.test_gramian import check

BLOCK = 60
"""Of these tests: 20 elements of each of 3 rows."""


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "BLOCK", BLOCK)


def leaf_of(elements: int, *, seed: int = 0) -> np.ndarray:
    """Three rows whose scale changes from block to block by up to 1e38."""
    scales = np.resize([1.0, 1e-20, 1e18, 3.0], -(-elements // 20)).repeat(20)[:elements]
    rows = np.random.default_rng(seed).normal(size=(3, elements)) * scales[None]
    return rows.astype(np.float32).astype(np.float64)


@pytest.mark.parametrize("elements", [20, 21, 60, 79, 200])
def test_blocks_with_and_without_a_rest(elements: int) -> None:
    rows = leaf_of(elements)
    stack = jnp.asarray(rows, jnp.float32)
    check(jax.jit(gramian)(stack), rows)
    check(jax.jit(row_gramian)(list(stack)), rows)


def test_leaves_of_any_shape_and_zero_rows() -> None:
    rows = leaf_of(120)
    rows[1] = 0
    tree = {"a": jnp.asarray(rows, jnp.float32).reshape(3, 4, 5, 6), "b": jnp.zeros((3,))}
    apart = [jax.tree.map(lambda x, i=i: x[i], tree) for i in range(3)]
    for found in (gramian(tree), row_gramian(apart)):
        check(found, rows)
        np.testing.assert_array_equal(found.cosine[1], 0)


def test_what_is_no_number_is_seen_in_its_row_alone() -> None:
    rows = leaf_of(79)
    stack = jnp.asarray(rows, jnp.float32).at[2, 30].set(jnp.nan)
    for found in (gramian(stack), row_gramian(list(stack))):
        assert np.isnan(found.norms[2])
        assert np.isnan(found.cosine[0, 2])
        check(jax.tree.map(lambda x: x[..., :2][:2], found), rows[:2])


def test_products_of_two_batches() -> None:
    left, right = leaf_of(79), leaf_of(79, seed=1)
    found = cross_products(jnp.asarray(left, jnp.float32), jnp.asarray(right, jnp.float32))
    inner = np.asarray(found.inner, np.float64)
    whole = inner * np.asarray(found.left)[:, None] * np.asarray(found.right, np.float64)[None]
    lengths = np.linalg.norm(left, axis=1)[:, None] * np.linalg.norm(right, axis=1)[None]
    np.testing.assert_allclose(whole / lengths, left @ right.T / lengths, atol=1e-6)


@pytest.mark.parametrize("elements", [40, 200])
def test_two_tasks(elements: int) -> None:
    """On a CPU two rows are contracted one by one: each product is at its own place."""
    left, right = leaf_of(elements)[:2], leaf_of(elements, seed=1)[:2]
    shape = (2, 4, elements // 4)
    a, b = (jnp.asarray(x, jnp.float32).reshape(shape) for x in (left, right))
    check(gramian(a), left)
    check(row_gramian(list(a)), left)
    found = jax.jit(cross_products)(a, b)
    inner = np.asarray(found.inner, np.float64)
    scaled = [x / np.abs(x).max(axis=1, keepdims=True) for x in (left, right)]
    np.testing.assert_allclose(inner, scaled[0] @ scaled[1].T, rtol=1e-5, atol=1e-6)


def test_many_problems_at_once() -> None:
    rows = np.stack([leaf_of(79, seed=seed) for seed in range(3)])
    stacks = jnp.asarray(rows, jnp.float32)
    found = jax.vmap(lambda stack: row_gramian(list(stack)))(stacks)
    for i in range(3):
        check(jax.tree.map(lambda x, i=i: x[i], found), rows[i])


def test_rows_pair_by_pair_as_on_a_gpu() -> None:
    rows = leaf_of(20)
    apart = [jnp.asarray(row, jnp.float32).reshape(4, 5) for row in rows]
    check(from_products(products._by_pairs(apart)), rows)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_rows_combine_as_their_stack(dtype: Any) -> None:
    tree = {"a": jnp.asarray(leaf_of(24), dtype).reshape(3, 4, 6), "b": jnp.ones((3, 2), dtype)}
    weights = jnp.asarray([0.3, -2.0, 1.1])
    found = combine_rows([jax.tree.map(lambda x, i=i: x[i], tree) for i in range(3)], weights)
    expected = combine(tree, weights)
    for name in tree:
        assert found[name].dtype == dtype
        np.testing.assert_allclose(
            np.asarray(found[name], np.float64),
            np.asarray(expected[name], np.float64),
            rtol=1e-5 if dtype == jnp.float32 else 8e-3,
        )
