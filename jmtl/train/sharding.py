"""Parameters split over a `model` axis: which dimension of which array lies on it.

The rule is by size: of an array of `LEAST` numbers or more, the largest dimension that the axis
divides (of equal ones the last) is split; smaller arrays are whole on every device. A rule by path
comes before it: a pattern of a parameter's path, as `encoder/Dense_*/kernel` or `tasks/left/*`, and
the dimension that is split, or None.

The optimiser's and the method's state follow the parameters: an array whose path ends in a
parameter's and that has its shape, after a task axis or none, is split as it is. So are the task
gradients, since parameters are held where they lie inside the function that is differentiated
(`held`), and the transpose of that holds each gradient there.
"""

import fnmatch
import math
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import jax
from jax import lax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jmtl.nn import Model

MODEL = "model"
"""The name of the axis that parameters are split over."""

LEAST = 2**12
"""Numbers in the smallest array that is split without a rule of its own."""

Rules = Mapping[str, int | None]
"""By pattern of a parameter's path, the dimension that is split, None for none; the first fits."""

NONE: Rules = MappingProxyType({})


def dimension(path: str, shape: tuple[int, ...], parts: int, rules: Rules = NONE) -> int | None:
    """The dimension of a parameter that is split, counted from the last, which is -1.

    Args:
        path: `encoder/...` or `tasks/NAME/...`.
        shape: of the parameter.
        parts: the size of the axis.
        rules: by pattern.

    Returns:
        The dimension; None for none.

    Raises:
        ValueError: a rule names a dimension that is not there or that the axis does not divide.
    """
    for pattern, wanted in rules.items():
        if not fnmatch.fnmatchcase(path, pattern):
            continue
        if wanted is None:
            return None
        if not -len(shape) <= wanted < len(shape) or shape[wanted] % parts:
            raise ValueError(
                f"the rule {pattern}={wanted} splits {path} {list(shape)}, which has no such "
                f"dimension that divides over {parts} devices: name another dimension, or None"
            )
        return wanted % len(shape) - len(shape)
    if parts == 1 or math.prod(shape) < LEAST:
        return None
    fits = [(size, at) for at, size in enumerate(shape) if size % parts == 0]
    return max(fits)[1] - len(shape) if fits else None


def specs(state: Any, parts: int, rules: Rules = NONE) -> Any:
    """How a `TrainState` lies: a `PartitionSpec` a leaf.

    Args:
        state: arrays or their shapes.
        parts: the size of the axis.
        rules: by pattern.

    Raises:
        ValueError: as `dimension`; a pattern that fits no parameter.
    """
    known = {_name(path): x.shape for path, x in _leaves(state.params)}
    for pattern in rules:
        if not any(fnmatch.fnmatchcase(name, pattern) for name in known):
            raise ValueError(
                f"the rule {pattern} fits no parameter: there are {', '.join(sorted(known)[:8])}"
            )

    def spec(path: Any, x: Any) -> PartitionSpec:
        name = next((name for name in _endings(path) if name in known), None)
        if name is not None and x.shape[x.ndim - len(known[name]) :] == known[name]:
            return _spec(x.ndim, dimension(name, known[name], parts, rules))
        return _spec(x.ndim, dimension("", x.shape, parts))

    return jax.tree.unflatten(
        jax.tree.structure(state), [spec(path, x) for path, x in _leaves(state)]
    )


def is_split(tree: Any) -> bool:
    """Whether some array of a tree lies in parts on several devices."""
    arrays = (x for x in jax.tree.leaves(tree) if isinstance(x, jax.Array))
    return not all(x.sharding.is_fully_replicated for x in arrays)


def held(model: Model, mesh: Mesh, rules: Rules = NONE) -> Model:
    """The model with its parameters, and their gradients, held where they lie on the mesh.

    Args:
        model: of any way of sharing.
        mesh: with an axis `MODEL`.
        rules: by pattern.
    """
    parts = mesh.shape[MODEL]

    def put(params: Any) -> Any:
        def one(path: Any, x: Any) -> Any:
            spec = _spec(x.ndim, dimension(_name(path), x.shape, parts, rules))
            return lax.with_sharding_constraint(x, NamedSharding(mesh, spec))

        return jax.tree_util.tree_map_with_path(one, params)

    def encode(shared: Any, *given: Any, **more: Any) -> Any:
        return model.encode(put({"shared": shared})["shared"], *given, **more)

    def decode(task_params: Any, *given: Any, **more: Any) -> Any:
        return model.decode(put({"tasks": task_params})["tasks"], *given, **more)

    def apply(params: Any, *given: Any, **more: Any) -> Any:
        return model.apply(put(params), *given, **more)

    return model._replace(encode=encode, decode=decode, apply=apply)


def _spec(ndim: int, at: int | None) -> PartitionSpec:
    if at is None:
        return PartitionSpec()
    return PartitionSpec(*[None] * (ndim + at), MODEL)


def _leaves(tree: Any) -> list[tuple[Any, Any]]:
    return jax.tree_util.tree_flatten_with_path(tree)[0]


def _name(path: Any) -> str:
    """The public path of a parameter, `encoder/...` or `tasks/...`."""
    first, *rest = (jax.tree_util.keystr((entry,), simple=True) for entry in path)
    return "/".join(("encoder" if first == "shared" else first, *rest))


def _endings(path: Any) -> list[str]:
    """Names that a leaf of the state may have as a parameter, longest first.

    A method's state is over the shared parameters alone, without their key.
    """
    names = [_name(path[i:]) for i in range(len(path))]
    return [*names, *(f"encoder/{name}" for name in names)]
