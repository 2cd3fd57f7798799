"""Many trainings as one program: a vmap axis, over several devices cut into equal shares.

No device talks to another.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

AXIS = "trainings"


def over_trainings(
    fun: Callable[..., Any], devices: int, shared: Sequence[int] = (), donate: Sequence[int] = ()
) -> Any:
    """`fun` of one training, jitted over many: all arguments but `shared` have the axis [W]."""

    def many(*args: Any) -> Any:
        axes = tuple(None if i in shared else 0 for i in range(len(args)))
        mapped = jax.vmap(fun, in_axes=axes)
        if devices == 1:
            return mapped(*args)
        specs = tuple(
            PartitionSpec() if i in shared else PartitionSpec(AXIS) for i in range(len(args))
        )
        cut = jax.shard_map(
            mapped,
            mesh=_mesh(devices),
            in_specs=specs,
            out_specs=PartitionSpec(AXIS),
            check_vma=False,
        )
        return cut(*args)

    return jax.jit(many, donate_argnums=tuple(donate))


def place(tree: Any, devices: int, shared: bool) -> Any:
    """Arrays put on the devices: the same on all, or cut along the axis of trainings."""
    if devices == 1:
        return jax.device_put(tree)
    spec = PartitionSpec() if shared else PartitionSpec(AXIS)
    return jax.device_put(tree, NamedSharding(_mesh(devices), spec))


def _mesh(devices: int) -> Mesh:
    return Mesh(np.array(jax.devices()[:devices]), (AXIS,), axis_types=(AxisType.Auto,))
