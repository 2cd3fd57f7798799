"""Inner products between task gradients with their scales kept apart, leaf by leaf.

On a CPU large leaves are contracted by blocks that stay in a core's cache: a row is read once, and
nothing of its size is written. Products of a whole leaf wrote its scaled copy, whose pages alone
took longer than the arithmetic (8 rows of 11 million, 2 cores, jax 0.10: 334 ms, and 46 by blocks;
K rows that lie apart, 2.4 million each: 194 ms stacked, 40 pair by pair, 10 by blocks).
On one NVIDIA GPU a kernel of `jmtl.one_pass` does the same.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jmtl import one_pass

BLOCK = 2**15
"""Elements of K rows that a CPU contracts at a time."""

PAIRWISE = 8
"""The largest K whose rows are contracted pair by pair elsewhere; above it programs grow long."""

NO_LEAVES = "task gradients have no leaves: expected a pytree with leaves [K, ...]"


class Products(NamedTuple):
    """Inner products of scaled rows: ``⟨row_i, row_j⟩ = inner[i, j] · left[i] · right[j]``.

    Attributes:
        inner: `[K, K]` products of rows divided by their scale; `[N, K, K]` those of N parts of
            the rows.
        left, right: `[K]`, or `[N, K]`, the scales: the largest magnitude in each row, 0 for a zero
            row.
    """

    inner: Float[Array, "*N K K"]
    left: Float[Array, "*N K"]
    right: Float[Array, "*N K"]


def compute_dtype(tree: Any) -> jnp.dtype:
    """The dtype of the K×K work over this pytree: float32, or float64 where a leaf has it."""
    leaves = [jnp.result_type(leaf) for leaf in jax.tree.leaves(tree)]
    return jnp.promote_types(jnp.float32, jnp.result_type(*leaves) if leaves else jnp.float32)


def leaf_products(
    left: Float[Array, "K ..."], right: Float[Array, "K ..."], axis_name: str | None = None
) -> Products:
    """Inner products between the rows of two leaves, each row scaled by its largest magnitude.

    One leaf at a time, so that a compiled program can let the K gradients of a layer go as soon as
    they are contracted.

    Args:
        left: `[K, ...]`.
        right: `[K, ...]`; the same array as `left` for a Gramian.
        axis_name: a mapped axis over which the *elements* of the rows are spread: products add up.

    Returns:
        The products of one or more parts of the leaves, for `add_products`.
    """
    if axis_name is None and right is left and one_pass.serves(left):
        return _by_kernel(left)
    if axis_name is not None or not is_large(left.size):
        return _alone(_of_whole(left, right, axis_name))
    flat = [x.reshape(len(x), -1) for x in ((left,) if right is left else (left, right))]

    def of_block(start: Any, size: int) -> Products:
        cut = [lax.dynamic_slice_in_dim(x, start, size, axis=1) for x in flat]
        return _of_whole(cut[0], cut[-1])

    return over_blocks(of_block, *flat[0].shape)


def row_products(rows: Sequence[Float[Array, "..."]]) -> Products:
    """Inner products between K rows of one leaf, without a `[K, ...]` stack where it is large.

    Elsewhere than on a CPU a few large rows are contracted by one kernel, on one NVIDIA GPU, or
    pair by pair, by K(K+1)/2 products in the program.

    Args:
        rows: K arrays of one shape.

    Returns:
        As `leaf_products`.
    """
    if one_pass.serves(rows):
        return _by_kernel(rows)
    if jax.default_backend() != "cpu" and len(rows) <= PAIRWISE and rows[0].size > BLOCK:
        return _alone(_by_pairs(rows))
    if not is_large(len(rows) * rows[0].size):
        stack = jnp.stack(list(rows))
        return _alone(_of_whole(stack, stack))
    flat = [row.reshape(-1) for row in rows]

    def of_block(start: Any, size: int) -> Products:
        stack = jnp.stack([lax.dynamic_slice_in_dim(row, start, size) for row in flat])
        return _of_whole(stack, stack)

    return over_blocks(of_block, len(rows), flat[0].size)


def add_products(parts: Sequence[Products]) -> Products:
    """The inner products of rows from those of their parts: one or more, each of `[N, K, K]`."""
    if not parts:
        raise ValueError(NO_LEAVES)
    inner, left, right = jax.tree.map(lambda *of: jnp.concatenate(of), *parts)
    largest = jnp.max(left, axis=0), jnp.max(right, axis=0)
    safe_left, safe_right = (jnp.where(s > 0, s, 1.0)[None] for s in largest)
    shares = (left / safe_left)[:, :, None] * (right / safe_right)[:, None, :]
    return Products(jnp.sum(inner * shares, axis=0), *largest)


def _alone(part: Any) -> Any:
    """One part as a stack of parts."""
    return jax.tree.map(lambda x: x[None], part)


def is_large(elements: int) -> bool:
    """Whether blocks pay: on a CPU, which has few cores and large caches."""
    return jax.default_backend() == "cpu" and elements > BLOCK


def _by_kernel(rows: Sequence[Array] | Array) -> Products:
    inner, scale = one_pass.inner_products(rows)
    return Products(inner, scale, scale)


def over_blocks(of_block: Callable[[Any, int], Any], k: int, elements: int) -> Any:
    """`of_block(start, size)` of the blocks of K rows, its leaves stacked along a leading axis."""
    size = max(BLOCK // k, 1)
    starts = size * jnp.arange(elements // size)
    _, parts = lax.scan(lambda _, start: (None, of_block(start, size)), None, starts)
    if rest := elements % size:
        last = _alone(of_block(elements - rest, rest))
        parts = jax.tree.map(lambda *of: jnp.concatenate(of), parts, last)
    return parts


def _of_whole(left: Array, right: Array, axis_name: str | None = None) -> Products:
    """`leaf_products` of all elements at once."""
    dtype = compute_dtype((left, right))
    a, a_scale = _scaled(left.astype(dtype), axis_name)
    b, b_scale = (a, a_scale) if right is left else _scaled(right.astype(dtype), axis_name)
    inner = _contracted(a, b, 1)
    if axis_name is not None:
        inner = lax.psum(inner, axis_name)
    return Products(inner, a_scale, b_scale)


def _by_pairs(rows: Sequence[Array]) -> Products:
    dtype = compute_dtype(rows)
    scaled, scales = zip(*(_scaled(row.astype(dtype)[None], None) for row in rows), strict=True)
    pairs = {
        (i, j): _contracted(a[0], b[0], 0)
        for i, a in enumerate(scaled)
        for j, b in enumerate(scaled[: i + 1])
    }
    size = range(len(rows))
    inner = jnp.stack([jnp.stack([pairs[max(i, j), min(i, j)] for j in size]) for i in size])
    scale = jnp.concatenate(scales)
    return Products(inner, scale, scale)


def _scaled(x: Float[Array, "K ..."], axis_name: str | None) -> tuple[Array, Array]:
    """Rows divided by their largest magnitude `[K, ...]`, and those magnitudes `[K]`."""
    largest = jnp.max(jnp.abs(x), axis=tuple(range(1, x.ndim)), initial=0.0)
    if axis_name is not None:
        largest = lax.pmax(largest, axis_name)
    divisor = jnp.where(largest > 0, largest, 1.0)
    return x / divisor.reshape(-1, *[1] * (x.ndim - 1)), largest


def _contracted(a: Array, b: Array, first: int) -> Array:
    """Inner products over all dimensions from `first` on.

    Without a reshape: rows that are split over devices along a dimension stay where they are.
    """
    every = tuple(range(first, a.ndim))
    if first and len(a) == 2 and jax.default_backend() == "cpu":
        # Row by row. A product of two matrices is shared out over the cores, and waiting for one
        # takes longer than the product (a step of two tasks, an MLP of 128-64, 2 cores, jax 0.10:
        # 0.40 ms, and 0.32 row by row). From three rows on neither is faster.
        columns = [_products(a, row, every, tuple(range(row.ndim))) for row in b]
        return jnp.stack(columns, axis=1)
    return _products(a, b, every, every)


def _products(a: Array, b: Array, of_a: Sequence[int], of_b: Sequence[int]) -> Array:
    # A GPU multiplies float32 as TF32 and a TPU as bfloat16 unless told otherwise.
    return lax.dot_general(a, b, ((of_a, of_b), ((), ())), precision=lax.Precision.HIGHEST)
