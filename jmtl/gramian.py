"""The Gramian of stacked task gradients, and their weighted sum.

Task gradients are a pytree whose every leaf has a leading task axis, ``[K, ...]``. These functions
and those of `jmtl.gradients` are the only ones that walk full gradients.
"""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jmtl.packing import packed
from jmtl.products import (
    NO_LEAVES,
    Products,
    add_products,
    compute_dtype,
    leaf_products,
    row_products,
)

TaskGrads = Any  # a pytree with leaves [K, ...]


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


def num_tasks(task_grads: TaskGrads) -> int:
    """K, the size of the leading axis that all leaves share.

    Raises:
        ValueError: there is no leaf, the leaves disagree, or K is 0.
    """
    leaves = jax.tree_util.tree_leaves_with_path(task_grads)
    if not leaves:
        raise ValueError(NO_LEAVES)
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
    leaves = jax.tree.leaves(task_grads)
    return from_products(
        add_products([leaf_products(x, x, axis_name) for x in packed(leaves, leading=1)])
    )


def row_gramian(rows: Sequence[Any]) -> Gramian:
    """The Gramian of K task gradients that were not stacked: K pytrees `[...]` of some leaves."""
    leaves = zip(*(packed(jax.tree.leaves(row)) for row in rows), strict=True)
    return from_products(add_products([row_products(row) for row in leaves]))


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


def combine_rows(rows: Sequence[Any], weights: Float[Array, " K"]) -> Any:
    """`combine` of K task gradients that were not stacked: one pass over each of the K pytrees."""

    def one(*row: Array) -> Array:
        dtype = compute_dtype(row)
        terms = [w.astype(dtype) * x.astype(dtype) for w, x in zip(weights, row, strict=True)]
        return functools.reduce(jnp.add, terms).astype(row[0].dtype)

    return jax.tree.map(one, *rows)


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
