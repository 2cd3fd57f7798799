"""Pretrained encoders: torchvision's weights for `resnet18`, `resnet34`, `resnet50` and `vgg16`.

`deeplab` takes those of `resnet50`.

They come in files of the safetensors format, which is short enough to read here: eight bytes that
say how long a JSON header is, the header with each array's dtype, shape and place, then the bytes.
The package of that name would be one more dependency, and gives NumPy no bfloat16.

Weights trained on ImageNet expect images in RGB, in [0, 1], less `IMAGENET_MEAN` and divided by
`IMAGENET_STD`: a problem's `to_batch` does that.
"""

import json
import math
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Tree = Any

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

_DTYPES = {
    **{name: np.dtype("<" + code) for name, code in (("F16", "f2"), ("F32", "f4"), ("F64", "f8"))},
    **{f"I{8 * n}": np.dtype(f"<i{n}") for n in (1, 2, 4, 8)},
    **{f"U{8 * n}": np.dtype(f"<u{n}") for n in (1, 2, 4, 8)},
    "BF16": np.dtype(jnp.bfloat16),
    "BOOL": np.dtype(bool),
}

_LEAVES = {
    "kernel": "weight",
    "scale": "weight",
    "mean": "running_mean",
    "var": "running_var",
}
"""What flax calls a layer's arrays, and torch otherwise; `bias` is the same."""

_UNREAD = re.compile(r"(fc|classifier)\..*|.*\.num_batches_tracked")
"""What an encoder may leave: the classifier, which is a head's, and torch's own counters."""


def read_safetensors(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """The arrays of a file in the safetensors format.

    They lie in the file until they are used, so that what is not costs no memory.

    Args:
        path: the file.

    Returns:
        By name, read only, little-endian.

    Raises:
        ValueError: the file is not of that format, was cut off, or holds a dtype not known here.
        OSError: it cannot be read.
    """
    data: np.ndarray = np.empty(0, np.uint8)
    if os.path.getsize(path):  # an empty file has no map
        data = np.memmap(path, np.uint8, "r")
    start = 8 + int.from_bytes(data[:8].tobytes(), "little")
    try:
        header = json.loads(data[8:start].tobytes())
        entries = {
            name: (entry["dtype"], tuple(entry["shape"]), *map(int, entry["data_offsets"]))
            for name, entry in header.items()
            if name != "__metadata__"
        }
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(
            f"{path} is no safetensors file, or was cut off: it has no header ({data.size} bytes)"
        ) from error
    arrays = {}
    for name, (dtype, shape, first, last) in entries.items():
        if dtype not in _DTYPES:
            raise ValueError(f"{path}: {name} has the dtype {dtype}; known: {', '.join(_DTYPES)}")
        part = data[start + first : start + last]
        if part.size != last - first or part.size != math.prod(shape) * _DTYPES[dtype].itemsize:
            raise ValueError(
                f"{path} was cut off or damaged: {name}, {dtype} {list(shape)}, has {part.size} "
                "bytes"
            )
        arrays[name] = part.view(_DTYPES[dtype]).reshape(shape)
    return arrays


def torchvision_name(path: Sequence[str]) -> str:
    """What torchvision calls an array of an encoder.

    Args:
        path: its path in the parameters or in `batch_stats`, as ("layer1_0", "conv1", "kernel").

    Returns:
        The name in torch's `state_dict`, as "layer1.0.conv1.weight".
    """
    *modules, leaf = path
    return re.sub(r"_(?=\d)", ".", ".".join([*modules, _LEAVES.get(leaf, leaf)]))


def from_torchvision(
    arrays: Mapping[str, np.ndarray], params: Tree, state: Mapping[str, Tree]
) -> tuple[Tree, dict[str, Tree]]:
    """An encoder's parameters and running statistics from torchvision's.

    Args:
        arrays: by torchvision's names, as `read_safetensors` gives them. The classifier and
            `num_batches_tracked` are left unread; all else must have its place.
        params: the encoder's, for their structure, shapes, dtypes and placement: `params["shared"]`
            of a `jmtl.nn.Model` with hard sharing.
        state: the encoder's, likewise: `model_state["shared"]`.

    Returns:
        Trees like `params` and `state`, of JAX arrays; of `state`, `batch_stats` alone is new.

    Raises:
        ValueError: arrays are missing, have no place, or have another shape or no floating-point
            numbers; the message names up to 8 of each kind and counts the rest.
    """
    wanted = (params, state.get("batch_stats", {}))
    leaves, treedef = jax.tree_util.tree_flatten_with_path(wanted)
    names = [torchvision_name([entry.key for entry in path[1:]]) for path, _ in leaves]
    places = dict(zip(names, (leaf for _, leaf in leaves), strict=True))
    wrong = {
        "missing": [name for name in names if name not in arrays],
        "of another kind": [
            f"{name} ({arrays[name].dtype} {list(arrays[name].shape)}, expected {shape})"
            for name, shape in ((name, _shape(name, leaf)) for name, leaf in places.items())
            if name in arrays
            and (
                list(arrays[name].shape) != shape
                or not jnp.issubdtype(arrays[name].dtype, jnp.floating)
            )
        ],
        "without a place": sorted(
            name for name in arrays.keys() - places.keys() if not _UNREAD.fullmatch(name)
        ),
    }
    if lines := [f"{kind}: {_few(found)}" for kind, found in wrong.items() if found]:
        raise ValueError("; ".join(lines))
    filled, statistics = jax.tree.unflatten(
        treedef,
        [
            _placed(leaf, arrays[name].transpose(_axes(name, leaf)).astype(leaf.dtype))
            for name, leaf in places.items()
        ],
    )
    return filled, {**state, **({"batch_stats": statistics} if statistics else {})}


def _placed(leaf: Any, values: np.ndarray) -> jax.Array:
    """The values where the leaf lies, if it is bound to devices: in parts if it is split."""
    if not getattr(leaf, "committed", False):
        return jnp.asarray(values)
    return jax.make_array_from_callback(values.shape, leaf.sharding, lambda index: values[index])


def _axes(name: str, leaf: Any) -> tuple[int, ...]:
    """Torch's axes in the order that flax has them: OIHW becomes HWIO, OI becomes IO."""
    rank = len(leaf.shape)
    order = {4: (2, 3, 1, 0), 2: (1, 0)} if name.endswith("weight") else {}
    return order.get(rank, tuple(range(rank)))


def _shape(name: str, leaf: Any) -> list[int]:
    """The shape that torch gives what flax has as this leaf."""
    axes = _axes(name, leaf)
    return [leaf.shape[axes.index(i)] for i in range(len(axes))]


def _few(names: Sequence[str], most: int = 8) -> str:
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + rest
