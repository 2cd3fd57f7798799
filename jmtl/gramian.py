"""The Gramian of stacked task gradients, and their weighted sum.

Task gradients are a pytree whose every leaf has a leading task axis, ``[K, ...]``. These functions
and those of `jmtl.gradients` are the only ones that walk full gradients.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

TaskGrads = Any  # a pytree with leaves [K, ...]

_NO_LEAVES = "task gradients have no leaves: expected a pytree with leaves [K, ...]"


class Gramian(NamedTuple):
    """The Gramian J Jᵀ with its scale kept apart: ``J Jᵀ = cosine * norms[:, None] * norms``.

    The raw product would under- or overflow in float32 where norms reach 1e-20 or 1e20.

    Attributes:
        cosine: `[K, K]` in [-1, 1], one on the diagonal; rows and columns of a task whose gradient
            is zero are zero, diagonal included.
        norms: `[K]` the Euclidean norm of each task gradient.
    """

    cosine: Float[Array, "K K"]
    norms: Float[Array, " K"]


class Products(NamedTuple):
    """Inner products of scaled rows: ``⟨row_i, row_j⟩ = inner[i, j] · left[i] · right[j]``.

    Attributes:
        inner: `[K, K]` products of rows divided by their scale.
        left, right: `[K]` the scales: the largest magnitude in each row, 0 for a zero row.
    """

    inner: Float[Array, "K K"]
    left: Float[Array, " K"]
    right: Float[Array, " K"]


def compute_dtype(tree: Any) -> jnp.dtype:
    """The dtype of the K×K work over this pytree: float32, or float64 where a leaf has it."""
    leaves = [jnp.result_type(leaf) for leaf in jax.tree.leaves(tree)]
    return jnp.promote_types(jnp.float32, jnp.result_type(*leaves) if leaves else jnp.float32)


def num_tasks(task_grads: TaskGrads) -> int:
    """K, the size of the leading axis that all leaves share.

    Raises:
        ValueError: there is no leaf, the leaves disagree, or K is 0.
    """
    leaves = jax.tree_util.tree_leaves_with_path(task_grads)
    if not leaves:
        raise ValueError(_NO_LEAVES)
    sizes = {jax.tree_util.keystr(path): jnp.shape(leaf)[:1] for path, leaf in leaves}
    first_path, first = next(iter(sizes.items()))
    for path, size in sizes.items():
        if not size or size != first:
            raise ValueError(
                f"task gradients: leaf {path} has leading axis {size[0] if size else 'none'}, but "
                f"leaf {first_path} has {first[0] if first else 'none'}: every leaf must be "
                "[K, ...] with one K"
            )
    if first[0] == 0:
        raise ValueError(f"task gradients: leaf {first_path} has leading axis 0: one task or more")
    return first[0]


def check_num_tasks(task_grads: TaskGrads, expected: int) -> None:
    """Refuse task gradients whose leading axis is not `expected`, naming a leaf and the sizes."""
    if (given := num_tasks(task_grads)) != expected:
        path, leaf = jax.tree_util.tree_leaves_with_path(task_grads)[0]
        raise ValueError(
            f"task gradients have a leading axis of {given} (leaf {jax.tree_util.keystr(path)} is "
            f"{jnp.shape(leaf)}), but the method was made for num_tasks={expected}"
        )


def _scale(x: Float[Array, "K ..."], axis_name: str | None) -> tuple[Array, Array]:
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
    # A GPU multiplies float32 as TF32 and a TPU as bfloat16 unless told otherwise.
    return lax.dot_general(a, b, ((every, every), ((), ())), precision=lax.Precision.HIGHEST)


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
    """
    dtype = compute_dtype((left, right))
    rows = [jnp.asarray(x).astype(dtype) for x in (left, right)]
    a, a_scale = _scale(rows[0], axis_name)
    b, b_scale = (a, a_scale) if right is left else _scale(rows[1], axis_name)
    inner = _contracted(a, b, 1)
    if axis_name is not None:
        inner = lax.psum(inner, axis_name)
    return Products(inner, a_scale, b_scale)


def row_products(rows: Sequence[Float[Array, "..."]]) -> Products:
    """Inner products between K rows of one leaf, pair by pair: no `[K, ...]` stack is built.

    The program has K(K+1)/2 products a leaf, so this is for few tasks.

    Args:
        rows: K arrays of one shape.
    """
    dtype = compute_dtype(rows)
    scaled, scales = zip(*(_scale(row.astype(dtype)[None], None) for row in rows), strict=True)
    pairs = {
        (i, j): _contracted(a[0], b[0], 0)
        for i, a in enumerate(scaled)
        for j, b in enumerate(scaled[: i + 1])
    }
    size = range(len(rows))
    inner = jnp.stack([jnp.stack([pairs[max(i, j), min(i, j)] for j in size]) for i in size])
    scale = jnp.concatenate(scales)
    return Products(inner, scale, scale)


def add_products(products: Sequence[Products]) -> Products:
    """The inner products of concatenated rows, from those of their parts: one or more."""
    if not products:
        raise ValueError(_NO_LEAVES)
    left = jnp.max(jnp.stack([p.left for p in products]), axis=0)
    right = jnp.max(jnp.stack([p.right for p in products]), axis=0)
    safe_left, safe_right = (jnp.where(s > 0, s, 1.0) for s in (left, right))
    inner = sum(
        p.inner * (p.left / safe_left)[:, None] * (p.right / safe_right)[None, :] for p in products
    )
    return Products(jnp.asarray(inner), left, right)


def from_products(products: Products) -> Gramian:
    """The Gramian from the products of rows with themselves."""
    inner, scale, _ = products
    squares = jnp.diagonal(inner)
    roots = jnp.sqrt(squares)
    safe = jnp.where(squares == 0, 1.0, roots)  # == keeps a NaN visible
    # Halves of a symmetric product may differ in the last bit.
    cosine = 0.5 * (inner + inner.T) / (safe[:, None] * safe[None, :])
    cosine = jnp.clip(cosine, -1.0, 1.0)
    diagonal = squares / jnp.where(squares == 0, 1.0, squares)
    cosine = jnp.where(jnp.eye(len(squares), dtype=bool), diagonal, cosine)
    return Gramian(cosine, roots * scale)


def gramian(task_grads: TaskGrads, axis_name: str | None = None) -> Gramian:
    """The Gramian of task gradients, in float32 (or float64) at the highest precision.

    Each row of each leaf is divided by its largest magnitude before it is contracted, since squares
    of 1e-23 vanish in float32.

    Args:
        task_grads: a pytree with leaves `[K, ...]`.
        axis_name: a mapped axis over which the elements of the rows are spread (representations of
            a batch split over devices), if any.

    Returns:
        `Gramian(cosine [K, K], norms [K])`.

    Raises:
        ValueError: the leaves' leading axes differ.
    """
    num_tasks(task_grads)
    return from_products(
        add_products([leaf_products(x, x, axis_name) for x in jax.tree.leaves(task_grads)])
    )


class Layers(NamedTuple):
    """The leaves of a tree by layer.

    Attributes:
        names: one name a layer, the path that its leaves share, in the order of the leaves.
        members: for each layer, the positions of its leaves in `jax.tree.leaves`.
    """

    names: tuple[str, ...]
    members: tuple[tuple[int, ...], ...]


def layers_of(tree: Any) -> Layers:
    """Groups leaves by their parent's path: the kernel and the bias of a Dense are one layer."""
    members: dict[str, list[int]] = {}
    for i, (path, _) in enumerate(jax.tree_util.tree_leaves_with_path(tree)):
        members.setdefault(jax.tree_util.keystr(path[:-1]), []).append(i)
    return Layers(tuple(members), tuple(map(tuple, members.values())))


def layer_gramians(task_grads: TaskGrads) -> dict[str, Gramian]:
    """The Gramian of each layer's part of the task gradients, by the layer's path."""
    num_tasks(task_grads)
    leaves = jax.tree.leaves(task_grads)
    names, members = layers_of(task_grads)
    return {
        name: gramian([leaves[i] for i in layer])
        for name, layer in zip(names, members, strict=True)
    }


def cross_products(left: TaskGrads, right: TaskGrads, axis_name: str | None = None) -> Products:
    """`J₁ J₂ᵀ` with its scales kept apart: inner products between two batches' task gradients."""
    pairs = zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True)
    return add_products([leaf_products(a, b, axis_name) for a, b in pairs])


def scale_rows(task_grads: TaskGrads, factors: Float[Array, " K"]) -> TaskGrads:
    """Row i of every leaf `[K, ...]` multiplied by `factors[i]`, in float32 or wider.

    A factor may take a row of half precision out of its range; what is combined from the scaled
    rows goes back to the leaves' own dtypes (`like`).
    """

    def one(leaf: Array) -> Array:
        dtype = compute_dtype(leaf)
        return leaf.astype(dtype) * factors.astype(dtype).reshape((-1,) + (1,) * (leaf.ndim - 1))

    return jax.tree.map(one, task_grads)


def like(tree: Any, leaves: Any) -> Any:
    """`tree` in the dtypes of `leaves`."""
    return jax.tree.map(lambda x, leaf: x.astype(leaf.dtype), tree, leaves)


def combine(task_grads: TaskGrads, weights: Float[Array, " K"]) -> Any:
    """`wᵀ J`: the weighted sum of the task gradients.

    Args:
        task_grads: a pytree with leaves `[K, ...]`.
        weights: `[K]`.

    Returns:
        A pytree with leaves `[...]` in the leaves' dtypes, summed in float32 or wider.

    Raises:
        ValueError: `weights` is not `[K]`.
    """
    k = num_tasks(task_grads)
    weights = jnp.asarray(weights)
    if weights.shape != (k,):
        raise ValueError(
            f"combine: weights have shape {weights.shape}, but the task gradients need ({k},)"
        )

    def one(leaf: Array) -> Array:
        dtype = compute_dtype(leaf)
        out = jnp.tensordot(
            weights.astype(dtype), leaf.astype(dtype), axes=1, precision=lax.Precision.HIGHEST
        )
        return out.astype(leaf.dtype)

    return jax.tree.map(one, task_grads)


def combined_norm(gramian: Gramian, weights: Float[Array, " K"]) -> Float[Array, ""]:
    """‖Σ w_i g_i‖ from the Gramian, without squaring a norm; 0 where rounding leaves no square."""
    unit = weights * gramian.norms
    largest = jnp.max(jnp.abs(unit))
    unit = unit / jnp.where(largest == 0, 1, largest)
    turned = jnp.matmul(gramian.cosine, unit, precision=lax.Precision.HIGHEST)
    return largest * jnp.sqrt(jnp.maximum(jnp.sum(unit * turned), 0))


def global_norm(tree: Any) -> Float[Array, ""]:
    """The Euclidean norm of a pytree, without over- or underflow."""
    return gramian(jax.tree.map(lambda x: jnp.asarray(x)[None], tree)).norms[0]
