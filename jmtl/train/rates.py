"""Learning rates by parameter path: factors of the optimiser's updates, and frozen parameters.

A path names a layer or an array of the parameters of a `jmtl.nn.Model`: `encoder/...` is what the
tasks share and `tasks/NAME/...` is a task's own, as in `encoder/layer1_0/conv1/kernel`. A factor
given to a path is that of all below it, but for what a longer path names. Where nothing is named
the factor is 1. A factor of 0 freezes: those parameters keep their bits, the optimiser keeps no
moments of them, and no weight decay reaches them.

Methods see the gradients before any factor. Of frozen parameters they see zeros (`frozen`), so that
what nobody trains has no part in a Gramian. Batch norm's running statistics are no parameters: they
move in frozen layers too.
"""

import difflib
import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from jmtl.nn import Model

Factors = Mapping[str, float]


def check(params: Any, factors: Factors) -> None:
    """Refuse paths that name nothing, and factors that are none.

    Args:
        params: {"shared": ..., "tasks": {name: ...}}.
        factors: by path.

    Raises:
        ValueError: a path names no parameter (the nearest ones are told), or a factor is negative
            or not finite.
    """
    known = {path[:end] for path in map(_parts, _leaves(params)) for end in range(1, len(path) + 1)}
    names = sorted("/".join(path) for path in known)
    for path, factor in factors.items():
        if path not in names:
            near = difflib.get_close_matches(path, names, n=3, cutoff=0.0)
            raise ValueError(f"no parameters at {path!r}: the nearest are {', '.join(near)}")
        if not 0 <= factor < math.inf:
            raise ValueError(
                f"the factor of {path} must be a finite number of at least 0, got {factor}"
            )


def scaled(
    optimizer: optax.GradientTransformation, factors: Factors
) -> optax.GradientTransformation:
    """An optimiser whose updates are multiplied by factors; those of 0 are left out of it.

    Args:
        optimizer: over {"shared", "tasks"}.
        factors: by path, see `check`; none leave the optimiser as it is.

    Returns:
        The optimiser; its `init` raises as `check` does.
    """
    if not factors:
        return optimizer
    inner = optax.masked(optimizer, lambda tree: jax.tree.map(bool, _tree(tree, factors)))

    def init(params: Any) -> Any:
        check(params, factors)
        return inner.init(params)

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        updates, state = inner.update(updates, state, params)
        return jax.tree.map(_times, updates, _tree(updates, factors)), state

    return optax.GradientTransformation(init, update)


def frozen(model: Model, factors: Factors) -> Model:
    """The model with gradients of zero for the parameters whose factor is 0.

    Args:
        model: of any way of sharing.
        factors: by path.
    """
    if all(factors.values()):
        return model

    def held(params: Any) -> Any:
        return jax.tree.map(
            lambda x, factor: x if factor else lax.stop_gradient(x), params, _tree(params, factors)
        )

    def encode(shared: Any, *given: Any, **more: Any) -> Any:
        return model.encode(held({"shared": shared})["shared"], *given, **more)

    def decode(task_params: Any, *given: Any, **more: Any) -> Any:
        return model.decode(held({"tasks": task_params})["tasks"], *given, **more)

    def apply(params: Any, *given: Any, **more: Any) -> Any:
        return model.apply(held(params), *given, **more)

    return model._replace(encode=encode, decode=decode, apply=apply)


def _times(update: Any, factor: float) -> Any:
    # x + (-0.0) has the bits of x; -0.0 + 0.0 would be 0.0.
    return (
        jnp.full_like(update, -0.0) if factor == 0 else update if factor == 1 else update * factor
    )


def _tree(tree: Any, factors: Factors) -> Any:
    """The factor of every leaf: that of the longest path that names it, else 1."""
    found = []
    for path in _leaves(tree):
        parts = _parts(path)
        above = ("/".join(parts[:end]) for end in range(len(parts), 0, -1))
        found.append(next((factors[name] for name in above if name in factors), 1.0))
    return jax.tree.unflatten(jax.tree.structure(tree), found)


def _leaves(tree: Any) -> list[Any]:
    return [path for path, _ in jax.tree_util.tree_flatten_with_path(tree)[0]]


def _parts(path: Any) -> tuple[str, ...]:
    first, *rest = (jax.tree_util.keystr((entry,), simple=True) for entry in path)
    return ("encoder" if first == "shared" else first, *rest)
