"""The Gramian and the weighted sum against float64, at every scale and under every transform."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jmtl.gramian import (
    check_num_tasks,
    combine,
    cross_products,
    global_norm,
    gramian,
    like,
    num_tasks,
    scale_rows,
)
from tests.programs import live_equations, products

SHAPES: dict[str, tuple[int, ...]] = {"w": (3, 2), "b": (5,), "scalar": (), "empty": (2, 0)}
SIZE = 12

gramian_jit = jax.jit(gramian)


def random_rows(k: int, seed: int = 0, scale: Any = 1.0) -> np.ndarray:
    """`[k, SIZE]` float64 values that float32 holds exactly."""
    rows = np.random.default_rng(seed).normal(size=(k, SIZE)) * scale
    return rows.astype(np.float32).astype(np.float64)


def as_tree(rows: np.ndarray, dtype: Any = jnp.float32) -> dict[str, jax.Array]:
    """The rows cut into leaves `[K, ...]`: a matrix, a vector, a scalar and an empty one."""
    tree, start = {}, 0
    for name, shape in SHAPES.items():
        size = int(np.prod(shape))
        leaf = rows[:, start : start + size].reshape(len(rows), *shape)
        tree[name], start = jnp.asarray(leaf, dtype), start + size
    assert start == rows.shape[1]
    return tree


def reference(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cosines and norms in float64."""
    largest = np.abs(rows).max(axis=1, keepdims=True)
    scaled = rows / np.where(largest > 0, largest, 1)
    lengths = np.linalg.norm(scaled, axis=1)
    units = scaled / np.where(lengths > 0, lengths, 1)[:, None]
    return units @ units.T, lengths * largest[:, 0]


def check(found: Any, rows: np.ndarray, tolerance: float = 1e-6) -> None:
    cosine, norms = reference(rows)
    np.testing.assert_allclose(found.cosine, cosine, atol=tolerance, rtol=0)
    np.testing.assert_allclose(found.norms, norms, rtol=tolerance, atol=0)


@pytest.mark.parametrize("scale", [1e-30, 1e-12, 1.0, 1e12, 1e30])
def test_any_scale(scale: float) -> None:
    rows = random_rows(4, scale=scale)
    found = gramian_jit(as_tree(rows))
    check(found, rows)
    assert found.cosine.dtype == found.norms.dtype == jnp.float32
    np.testing.assert_array_equal(found.cosine, found.cosine.T)
    np.testing.assert_array_equal(np.diagonal(found.cosine), 1.0)


def test_any_ratio_between_rows_and_between_leaves() -> None:
    rows = random_rows(4, scale=np.array([[1.0], [1e-6], [1e12], [1e-30]]))
    check(gramian_jit(as_tree(rows)), rows)
    by_leaf = np.repeat([1e-20, 1.0, 1e18], [6, 5, 1])[None]
    rows = random_rows(4, scale=by_leaf)
    check(gramian_jit(as_tree(rows)), rows)
    rows[:2] = random_rows(4, scale=by_leaf[:, ::-1])[:2]  # no leaf is large for every task
    check(gramian_jit(as_tree(rows)), rows)


def test_parallel_rows_stay_within_one() -> None:
    row = random_rows(1)[0]
    rows = np.stack([row, 3 * row, -row, row / 7]).astype(np.float32).astype(np.float64)
    found = gramian_jit(as_tree(rows))
    check(found, rows)
    assert np.abs(found.cosine).max() <= 1.0


def test_zero_rows_are_zero_and_leave_the_others_alone() -> None:
    rows = random_rows(4)
    full = gramian_jit(as_tree(rows))
    rows[1] = 0.0
    rows[3] = -0.0
    found = gramian_jit(as_tree(rows))
    np.testing.assert_array_equal(found.norms == 0, [False, True, False, True])
    np.testing.assert_array_equal(found.cosine[np.array([1, 3])], 0.0)
    np.testing.assert_array_equal(found.cosine[:, np.array([1, 3])], 0.0)
    np.testing.assert_array_equal(found.cosine[::2, ::2], full.cosine[::2, ::2])
    nothing = gramian_jit(as_tree(np.zeros((4, SIZE))))
    np.testing.assert_array_equal(nothing.cosine, 0.0)
    np.testing.assert_array_equal(nothing.norms, 0.0)


def test_zero_rows_divide_nothing_by_zero() -> None:
    with jax.debug_nans(True):
        gramian(as_tree(np.zeros((2, SIZE))))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("position", [0, 11])
def test_a_non_finite_row_shows_and_spoils_no_other(bad: float, position: int) -> None:
    rows = random_rows(4)
    clean = gramian_jit(as_tree(rows))
    rows[2, position] = bad
    rows[3] = 0.0
    found = gramian_jit(as_tree(rows))
    assert np.isnan(found.cosine[2, :3]).all()
    assert np.isnan(found.cosine[:3, 2]).all()
    assert np.isnan(found.norms[2])
    np.testing.assert_array_equal(found.cosine[:2, :2], clean.cosine[:2, :2])
    np.testing.assert_array_equal(found.norms[:2], clean.norms[:2])


def test_low_precision_leaves_are_contracted_in_float32() -> None:
    rows = np.random.default_rng(0).normal(size=(3, 4000))
    for dtype in (jnp.bfloat16, jnp.float16):
        leaf = jnp.asarray(rows, dtype)
        found = gramian(leaf)
        assert found.cosine.dtype == jnp.float32
        check(found, np.asarray(leaf, np.float64), 2e-6)
        weights = jnp.asarray([0.1, -2.0, 1.7])
        total = combine(leaf, weights)
        assert total.dtype == dtype
        exact = np.asarray(weights, np.float64) @ np.asarray(leaf, np.float64)
        # Rounded once, at the end: half a unit in the last place of the leaf's dtype.
        half_unit = float(jnp.finfo(dtype).eps) / 2
        np.testing.assert_allclose(
            np.asarray(total, np.float64), exact, rtol=1.001 * half_unit, atol=1e-6
        )
    half = jnp.full((2, 3), 60000.0, jnp.float16)  # its square overflows float16
    np.testing.assert_allclose(gramian(half).norms, 60000 * np.sqrt(3), rtol=1e-6)


def test_float64_leaves_are_contracted_in_float64() -> None:
    with jax.enable_x64(True):
        rows = np.random.default_rng(1).normal(size=(3, SIZE)) * 1e-150
        tree = as_tree(rows, jnp.float64)
        check(gramian(tree), rows, 1e-14)
        tree["b"] = tree["b"].astype(jnp.float32)
        assert gramian(tree).cosine.dtype == jnp.float64


def test_products_ask_for_the_highest_precision() -> None:
    tree = as_tree(random_rows(3))

    def everything(tree: Any) -> Any:
        return gramian(tree), combine(tree, jnp.ones(3)), cross_products(tree, tree)

    dots = products(live_equations(everything, tree))
    assert len(dots) >= 8
    highest = lax.Precision.HIGHEST
    assert all(dot.params["precision"] == (highest, highest) for dot in dots)


def test_permuting_tasks_permutes() -> None:
    rows, order = random_rows(4), np.array([2, 0, 3, 1])
    found, permuted = gramian_jit(as_tree(rows)), gramian_jit(as_tree(rows[order]))
    np.testing.assert_allclose(permuted.cosine, found.cosine[order][:, order], atol=1e-6)
    np.testing.assert_allclose(permuted.norms, found.norms[order], rtol=1e-6)


def test_rotating_parameters_changes_nothing() -> None:
    rows = random_rows(4)
    rotation, _ = np.linalg.qr(np.random.default_rng(5).normal(size=(SIZE, SIZE)))
    check(gramian_jit(as_tree(rows @ rotation)), rows, 2e-6)


def test_one_task() -> None:
    found = gramian(as_tree(random_rows(1)))
    check(found, random_rows(1))
    np.testing.assert_array_equal(found.cosine, [[1.0]])


def test_eager_jit_and_vmap_agree() -> None:
    rows = np.stack([random_rows(4, seed) for seed in range(3)])
    trees = [as_tree(r) for r in rows]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)
    mapped = jax.jit(jax.vmap(gramian))(stacked)
    for index, tree in enumerate(trees):
        one = jax.tree.map(lambda x, i=index: x[i], mapped)
        for other in (gramian(tree), gramian_jit(tree)):
            np.testing.assert_allclose(one.cosine, other.cosine, atol=1e-6)
            np.testing.assert_allclose(one.norms, other.norms, rtol=1e-6)


@pytest.mark.parametrize("transform", [jax.vmap, jax.pmap])
def test_elements_spread_over_a_mapped_axis_add_up(transform: Any) -> None:
    rows = random_rows(3, scale=np.geomspace(1e-9, 1e9, SIZE)[None])
    rows[1] = 0.0
    shares = jnp.asarray(rows.reshape(3, 4, 3).transpose(1, 0, 2), jnp.float32)  # [4, K, 3]
    found = transform(lambda share: gramian(share, axis_name="i"), axis_name="i")(shares)
    for index in range(4):
        check(jax.tree.map(lambda x, i=index: x[i], found), rows)


def test_cross_products() -> None:
    left, right = random_rows(3, 1), random_rows(3, 2)
    exact = left @ right.T
    for one, other in ((1e-8, 1e10), (1e-30, 1e-30), (1e30, 1e20)):
        inner, a, b = cross_products(as_tree(one * left), as_tree(other * right))
        found = np.asarray(inner) * (np.asarray(a) / one)[:, None] * (np.asarray(b) / other)
        np.testing.assert_allclose(found, exact, atol=1e-6 * SIZE)
    right[1] = 0.0
    inner, a, b = cross_products(as_tree(left), as_tree(right))
    np.testing.assert_allclose(inner * a[:, None] * b[None], left @ right.T, atol=1e-6 * SIZE)


def test_combine() -> None:
    rows, weights = random_rows(3), np.array([0.5, -2.0, 0.25])
    total = combine(as_tree(rows), jnp.asarray(weights))
    expected = jax.tree.map(lambda x: x[0], as_tree((weights @ rows)[None]))
    assert set(total) == set(expected)
    for found, exact in zip(jax.tree.leaves(total), jax.tree.leaves(expected), strict=True):
        assert found.shape == exact.shape
        assert found.dtype == exact.dtype
        np.testing.assert_allclose(found, exact, atol=1e-6)


def test_scale_rows() -> None:
    rows, factors = random_rows(3), np.array([0.5, -2.0, 1e6])
    tree = as_tree(rows) | {"half": jnp.asarray(rows[:, :2], jnp.float16)}
    found = scale_rows(tree, jnp.asarray(factors))
    expected = as_tree(rows * factors[:, None])
    assert {leaf.dtype for leaf in jax.tree.leaves(found)} == {jnp.dtype(jnp.float32)}
    for name, exact in expected.items():
        np.testing.assert_allclose(found[name], exact, rtol=1e-6)
    np.testing.assert_allclose(found["half"], np.float16(rows[:, :2]) * factors[:, None], rtol=1e-6)
    assert {name: leaf.dtype for name, leaf in like(found, tree).items()} == {
        name: leaf.dtype for name, leaf in tree.items()
    }


def test_combine_takes_a_list() -> None:
    np.testing.assert_array_equal(combine(jnp.eye(2), [2.0, 3.0]), [2.0, 3.0])  # type: ignore[arg-type]


def test_a_weight_of_zero_does_not_hide_nan() -> None:
    assert np.isnan(combine(jnp.asarray([[1.0], [np.nan]]), jnp.asarray([1.0, 0.0]))).all()


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
def test_global_norm(scale: float) -> None:
    rows = random_rows(1, scale=scale)
    tree = jax.tree.map(lambda x: x[0], as_tree(rows))
    np.testing.assert_allclose(global_norm(tree), reference(rows)[1][0], rtol=1e-6)


def test_num_tasks() -> None:
    assert num_tasks(as_tree(random_rows(3))) == 3
    assert num_tasks({"a": jnp.ones(2), "b": jnp.ones((2, 0))}) == 2


@pytest.mark.parametrize(
    ("tree", "words"),
    [
        ({}, ["no leaves", "[K, ...]"]),
        ({"a": jnp.ones((2, 3)), "b": jnp.ones((4, 3))}, ["['a']", "2", "['b']", "4"]),
        ({"a": jnp.ones((2, 3)), "b": jnp.ones(())}, ["['b']", "none", "['a']", "2"]),
        ({"a": jnp.ones(())}, ["['a']", "none"]),
        ({"a": jnp.ones((0, 3))}, ["['a']", "0", "one task"]),
    ],
)
def test_leaves_that_do_not_fit_are_refused(tree: Any, words: list[str]) -> None:
    with pytest.raises(ValueError, match="task gradients") as raised:
        gramian(tree)
    assert all(word in str(raised.value) for word in words), raised.value
    assert "\n" not in str(raised.value)


def test_sizes_that_do_not_fit_are_in_the_message() -> None:
    with pytest.raises(ValueError, match=r"leading axis of 2 \(leaf \['a'\] is \(2, 3\)\).*=5"):
        check_num_tasks({"a": jnp.ones((2, 3))}, 5)
    with pytest.raises(ValueError, match=r"combine: weights have shape \(3,\).*\(2,\)"):
        combine(jnp.ones((2, 3)), jnp.ones(3))
    with pytest.raises(ValueError, match=r"combine: weights have shape \(\).*\(2,\)"):
        combine(jnp.ones((2, 3)), jnp.ones(()))
