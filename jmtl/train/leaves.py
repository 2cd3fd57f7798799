"""A state as a flat dict {path: host array}: what is saved, hashed and compared.

Paths come from names and positions alone, never from container classes, so that a checkpoint
outlives a renamed NamedTuple. A typed key is held as its key data, under the dtype `key<impl>`.
"""

import functools
import hashlib
import json
import urllib.parse
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import PyTree

_KEY_IMPLEMENTATIONS = ("threefry2x32", "rbg", "unsafe_rbg")


class Leaf(NamedTuple):
    """One leaf on the host.

    Attributes:
        dtype: its dtype's name, `key<impl>` for a typed key.
        shape: `[...]` its shape; for a key array, without the axis of the key data.
        data: `[...]` its values; for a key array `[..., n]`, uint32.
    """

    dtype: str
    shape: tuple[int, ...]
    data: np.ndarray


def paths(tree: PyTree) -> list[str]:
    """The path of each leaf in the order of `jax.tree.leaves`, as `params/shared/0/kernel`.

    Characters other than letters, digits and `_.-~` are percent-encoded, so a `/` in a name stays
    apart from a level.
    """
    return [
        "/".join(_encoded(jax.tree_util.keystr((entry,), simple=True)) for entry in path) or "%"
        for path, _ in jax.tree_util.tree_flatten_with_path(tree)[0]
    ]


def _encoded(name: str) -> str:
    quoted = urllib.parse.quote(name, safe="")
    return quoted if quoted.strip(".") else quoted.replace(".", "%2E") or "%"


def flatten(tree: PyTree) -> dict[str, Leaf]:
    """Copies every leaf to the host.

    The copies are real: on a CPU `np.asarray` of a device array is a view, which dies, or changes,
    when the caller donates the buffer.

    Args:
        tree: arrays, typed keys and numbers in any containers.

    Returns:
        A `Leaf` for every path.

    Raises:
        ValueError: an array has parts that no device of this process holds.
    """
    described = [_described(leaf) for leaf in jax.tree.leaves(tree)]
    copies = jax.tree.leaves(on_host(jax.tree.map(_plain, tree)))
    return {
        path: Leaf(*known, copy)
        for path, known, copy in zip(paths(tree), described, copies, strict=True)
    }


def on_host(tree: PyTree) -> PyTree:
    """The tree with every leaf copied into a NumPy array.

    Of an array over several processes' devices, this process's parts are put together.

    Args:
        tree: arrays and numbers in any containers.

    Raises:
        ValueError: an array has parts that no device of this process holds.
    """
    leaves, treedef = jax.tree.flatten(tree)
    held = [_parts(leaf) for leaf in leaves]
    for parts in held:
        for _, part in parts:
            if isinstance(part, jax.Array):
                part.copy_to_host_async()
    copies = [
        _together(path, leaf, parts)
        for path, leaf, parts in zip(paths(tree), leaves, held, strict=True)
    ]
    return jax.tree.unflatten(treedef, copies)


def describe(tree: PyTree) -> dict[str, tuple[str, tuple[int, ...]]]:
    """Dtype name and shape of every leaf by path, without reading a value."""
    return dict(zip(paths(tree), map(_described, jax.tree.leaves(tree)), strict=True))


def blanks(described: Mapping[str, tuple[str, tuple[int, ...]]]) -> dict[str, np.ndarray]:
    """Zeros in the form of every `Leaf.data`, by path; they take no memory.

    Args:
        described: as `describe` gives it.
    """
    return {
        path: np.broadcast_to(np.zeros((), dtype), shape)
        for path, (dtype, shape) in ((path, _form(*known)) for path, known in described.items())
    }


def pack(leaves: Mapping[str, Leaf]) -> np.ndarray:
    """The leaves' bytes one after the other, in the order of their paths, C order: `[n]`, uint8."""
    parts = [_bytes(leaves[path].data) for path in sorted(leaves)]
    return np.concatenate([np.empty(0, np.uint8), *parts])


def unpack(packed: np.ndarray, blanks: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The inverse of `pack`, for the forms of `blanks`.

    Raises:
        ValueError: the sizes do not add up.
    """
    data, start = {}, 0
    if packed.size != (total := sum(blank.nbytes for blank in blanks.values())):
        raise ValueError(f"{packed.size} bytes of leaves, expected {total}")
    for path, blank in sorted(blanks.items()):
        part = packed[start : start + blank.nbytes]
        data[path] = part.view(blank.dtype).reshape(blank.shape)
        start += blank.nbytes
    return data


def digest(tree: PyTree) -> str:
    """SHA-256 of a tree's leaves: the same bits give the same digest on any machine.

    For each leaf in the order of its path: `json.dumps([path, dtype, shape])` and a newline, in
    UTF-8, then its values' bytes, C order, little-endian.

    Args:
        tree: arrays, typed keys and numbers in any containers.

    Returns:
        64 hexadecimal digits.
    """
    return digest_of(flatten(tree))


def digest_of(leaves: Mapping[str, Leaf]) -> str:
    """`digest` of leaves that are on the host already."""
    total = hashlib.sha256()
    for path in sorted(leaves):
        dtype, shape, data = leaves[path]
        total.update(json.dumps([path, dtype, list(shape)]).encode() + b"\n")
        total.update(_bytes(data))
    return total.hexdigest()


def differing_leaves(
    saved: Mapping[str, tuple[str, tuple[int, ...]]],
    wanted: Mapping[str, tuple[str, tuple[int, ...]]],
    most: int = 5,
) -> str:
    """What keeps `saved` from filling `wanted`, on one line; empty where nothing does.

    Args:
        saved: dtype and shape by path, as in `describe`.
        wanted: the same, of the template.
        most: how many leaves of each kind to name before counting the rest.
    """
    kinds = {
        "missing": sorted(wanted.keys() - saved.keys()),
        "extra": sorted(saved.keys() - wanted.keys()),
        "unlike": [
            f"{path} (saved {_spell(saved[path])}, expected {_spell(wanted[path])})"
            for path in sorted(saved.keys() & wanted.keys())
            if saved[path] != wanted[path]
        ],
    }
    return "; ".join(
        f"{kind}: {', '.join(names[:most])}"
        + (f" and {len(names) - most} more" if len(names) > most else "")
        for kind, names in kinds.items()
        if names
    )


def unflatten(template: PyTree, data: Mapping[str, np.ndarray]) -> PyTree:
    """The template's containers and placements, filled with values.

    Args:
        template: arrays, `jax.ShapeDtypeStruct`s, typed keys or numbers; their shapes and dtypes
            must be those of `data` already (`differing_leaves`).
        data: `Leaf.data` by path.

    Returns:
        A tree like `template`: an array lies where the template's lies, over the same sharding.
    """
    leaves, treedef = jax.tree.flatten(template)
    filled = [_placed(leaf, data[path]) for path, leaf in zip(paths(template), leaves, strict=True)]
    return jax.tree.unflatten(treedef, filled)


def _bytes(data: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(data).reshape(-1).view(np.uint8)


def _parts(leaf: Any) -> list[tuple[Any, Any]]:
    """What this process holds of a leaf: places in it, and what lies there, each once."""
    if not isinstance(leaf, jax.Array) or leaf.is_fully_addressable:
        return [(..., leaf)]
    shards = {str(shard.index): shard for shard in leaf.addressable_shards}
    return [(shard.index, shard.data) for shard in shards.values()]


def _together(path: str, leaf: Any, parts: list[tuple[Any, Any]]) -> np.ndarray:
    if len(parts) == 1 and np.shape(parts[0][1]) == np.shape(leaf):
        return np.array(parts[0][1], copy=True)
    if sum(part.size for _, part in parts) != leaf.size:
        raise ValueError(
            f"{path} {list(leaf.shape)} has parts that no device of this process holds: split it "
            "over the devices of one process"
        )
    whole = np.empty(leaf.shape, leaf.dtype)
    for place, part in parts:
        whole[place] = part
    return whole


def _plain(leaf: Any) -> Any:
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _is_key(leaf: Any) -> bool:
    return hasattr(leaf, "dtype") and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _described(leaf: Any) -> tuple[str, tuple[int, ...]]:
    if _is_key(leaf):
        return f"key<{_implementation(leaf.dtype)}>", tuple(leaf.shape)
    described = _sized(leaf)
    return np.dtype(described.dtype).name, tuple(described.shape)


def _form(dtype: str, shape: tuple[int, ...]) -> tuple[str, tuple[int, ...]]:
    """Dtype and shape of `Leaf.data`: of a typed key, those of its key data."""
    if not dtype.startswith("key<"):
        return dtype, shape
    key = functools.partial(jax.random.key, 0, impl=dtype[len("key<") : -1])
    data = jax.eval_shape(lambda: jax.random.key_data(key()))
    return data.dtype.name, (*shape, *data.shape)


def _sized(leaf: Any) -> Any:
    return leaf if hasattr(leaf, "dtype") else np.asarray(leaf)


def _implementation(dtype: Any) -> str:
    for name in _KEY_IMPLEMENTATIONS:
        if jax.eval_shape(functools.partial(jax.random.key, 0, impl=name)).dtype == dtype:
            return name
    raise ValueError(
        f"a key of {dtype} cannot be saved: expected {', '.join(_KEY_IMPLEMENTATIONS)}"
    )


def _spell(described: tuple[str, tuple[int, ...]]) -> str:
    return f"{described[0]}[{', '.join(map(str, described[1]))}]"


def _placed(leaf: Any, data: np.ndarray) -> Any:
    if not isinstance(leaf, jax.Array | jax.ShapeDtypeStruct):
        return data.copy() if isinstance(leaf, np.ndarray) else type(leaf)(data.item())
    # An uncommitted array is bound to no device; made committed it would refuse its neighbours'.
    if leaf.sharding is None or not getattr(leaf, "committed", True):
        array = jnp.array(data)
    else:
        # Copies: on a CPU the array may lie in what it is given, and be donated.
        array = jax.make_array_from_callback(
            data.shape, leaf.sharding, lambda index: data[index].copy()
        )
    if _is_key(leaf):
        return jax.random.wrap_key_data(array, impl=_implementation(leaf.dtype))
    return array
