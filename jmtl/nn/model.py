"""An encoder and heads as pure functions of parameters and model state.

Both are trees `{"shared": ..., "tasks": {name: ...}}`. Model state is what a forward pass moves and
no gradient does (batch norm's running statistics); it moves once however many tasks there are,
because the encoder runs once.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, PRNGKeyArray

from jmtl.method import named_key
from jmtl.methods import nearest

Tree = Any


class Model(NamedTuple):
    """Pure functions, and the modules they run.

    `train` is a Python bool; `key` is needed in training with dropout. Under pmap the key is the
    same on every device.

    Attributes:
        init: `(key, inputs)` -> `(params, model_state)`. Every part draws from a key of its own
            name, so that one task more leaves the others' parameters as they are.
        encode: `(shared, model_state, inputs, train=False, key=None)` -> `(representation,
            model_state)`.
        decode: `(task_params, model_state, representation, train=False, key=None)` -> `(outputs by
            task, model_state)`; `task_params` is `{name: ...}`.
        apply: `(params, model_state, inputs, train=False, key=None)` -> `(outputs by task,
            model_state)`, decode after encode.
        encoder: From inputs to the representation.
        heads: By task, from the representation to an output.
        common: Whether what `encode` gives is one representation, read alike by all tasks, so that
            task gradients may be taken there.
    """

    init: Callable[[PRNGKeyArray, Tree], tuple[Tree, Tree]]
    encode: Callable[..., tuple[Tree, Tree]]
    decode: Callable[..., tuple[dict[str, Array], Tree]]
    apply: Callable[..., tuple[dict[str, Array], Tree]]
    encoder: nn.Module
    heads: Mapping[str, nn.Module]
    common: bool = True


def model(
    encoder: nn.Module, heads: Mapping[str, nn.Module], axis_name: str | None = None
) -> Model:
    """The functional face of an encoder and a head a task.

    Args:
        encoder: A module called as `encoder(inputs, train)`.
        heads: By task name, modules called as `head(representation, train)`; see `part_for` for
            representations of several parts.
        axis_name: pmap's axis. Given to every module that has a field of that name; a module of
            your own needs one if it has batch norm or dropout. Leave it out under jit, where
            statistics and masks are global without it.

    Returns:
        The model.

    Raises:
        ValueError: If there are no heads.
    """
    if not heads:
        raise ValueError("a model has at least one head")
    if axis_name is not None:
        encoder = on_axis(encoder, axis_name)
        heads = {name: on_axis(head, axis_name) for name, head in heads.items()}

    def init(key: PRNGKeyArray, inputs: Tree) -> tuple[Tree, Tree]:
        representation, shared = encoder.init_with_output(named_key(key, "shared"), inputs, False)
        tasks = {
            name: head.init(named_key(key, f"task {name}"), part_for(head, representation), False)
            for name, head in heads.items()
        }
        params = {
            "shared": shared.get("params", {}),
            "tasks": {name: variables.get("params", {}) for name, variables in tasks.items()},
        }
        state = {
            "shared": _state(shared),
            "tasks": {name: _state(variables) for name, variables in tasks.items()},
        }
        return params, state

    def encode(
        shared: Tree, model_state: Tree, inputs: Tree, train: bool = False, key: Any = None
    ) -> tuple[Tree, Tree]:
        part = None if key is None else named_key(key, "shared")
        representation, state = _run(encoder, shared, model_state["shared"], inputs, train, part)
        return representation, {**model_state, "shared": state}

    def decode(
        task_params: Tree,
        model_state: Tree,
        representation: Tree,
        train: bool = False,
        key: Any = None,
    ) -> tuple[dict[str, Array], Tree]:
        outputs, states = {}, {}
        for name, head in heads.items():
            if name not in task_params:
                raise ValueError(f"no parameters for task {name!r}; {nearest(name, task_params)}")
            drawn = None if key is None else named_key(key, f"task {name}")
            part = part_for(head, representation)
            outputs[name], states[name] = _run(
                head, task_params[name], model_state["tasks"][name], part, train, drawn
            )
        return outputs, {**model_state, "tasks": states}

    def apply(
        params: Tree, model_state: Tree, inputs: Tree, train: bool = False, key: Any = None
    ) -> tuple[dict[str, Array], Tree]:
        representation, model_state = encode(params["shared"], model_state, inputs, train, key)
        return decode(params["tasks"], model_state, representation, train, key)

    return Model(init, encode, decode, apply, encoder, dict(heads))


def summary(model: Model, inputs: Tree) -> str:
    """A table of the model: the parameters of encoder and heads, then every layer's shapes.

    Args:
        model: The model.
        inputs: A batch, or its shapes (`jax.ShapeDtypeStruct`). No layer is computed.

    Returns:
        Plain text without colour, 120 columns wide.
    """
    params, _ = jax.eval_shape(model.init, jax.random.key(0), inputs)
    parts = {"encoder": params["shared"], **params["tasks"]}
    counts = {name: _size(part) for name, part in parts.items()}
    counts["total"] = sum(counts.values())
    wide, digits = max(map(len, counts)), len(f"{counts['total']:,}")
    lines = [f"{name:<{wide}}  {count:>{digits},} parameters" for name, count in counts.items()]
    table = nn.tabulate(
        Layers(model.encoder, dict(model.heads)),
        jax.random.key(0),
        console_kwargs={"force_terminal": False, "no_color": True, "width": 120},
    )(jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), inputs))
    return "\n".join(lines) + "\n" + "\n".join(line.rstrip() for line in table.splitlines())


class Layers(nn.Module):
    """Encoder and heads as one module: what flax's table needs, and titles it by."""

    encoder: nn.Module
    task: dict[str, nn.Module]

    def __call__(self, inputs: Tree) -> dict[str, Array]:
        """Outputs by task."""
        representation = self.encoder(inputs, train=False)
        return {
            name: head(part_for(head, representation), train=False)
            for name, head in self.task.items()
        }


def part_for(head: nn.Module, representation: Any) -> Any:
    """What a head is given of a representation.

    Args:
        head: any module; its attribute `reads` names a part, "vector" where it has none.
        representation: an array, or several by name: "vector" `[B, F]`, "map" `[B, H, W, C]`,
            "sequence" `[B, T, C]`.

    Returns:
        The part of that name, or the representation itself where it is no mapping.

    Raises:
        ValueError: the representation has no such part.
    """
    if not isinstance(representation, Mapping):
        return representation
    reads = getattr(head, "reads", "vector")
    if reads not in representation:
        raise ValueError(
            f"{type(head).__name__} reads the part {reads!r} of the representation, which has "
            f"{', '.join(sorted(representation))}: use another encoder, or another head"
        )
    return representation[reads]


def penalties(model_state: Tree) -> dict[str, Array]:
    """What is added to the tasks' losses in training, by the names of tasks that have any.

    A head, or a task's part of a way of sharing, adds with `jmtl.nn.add_penalty`.

    Args:
        model_state: after a forward pass in training, which has set the penalties.

    Returns:
        `[]` a task: the sum of its penalties. On several devices, that of all of them.
    """
    return {
        name: jnp.sum(jnp.stack(jax.tree.leaves(state["penalties"])))
        for name, state in model_state["tasks"].items()
        if "penalties" in state
    }


def on_axis(module: nn.Module, axis_name: str) -> nn.Module:
    """The module with pmap's axis, where it has a field for it."""
    return module.clone(axis_name=axis_name) if hasattr(module, "axis_name") else module


def _state(variables: Mapping[str, Tree]) -> dict[str, Tree]:
    return {collection: tree for collection, tree in variables.items() if collection != "params"}


def _run(
    module: nn.Module, params: Tree, state: Tree, inputs: Tree, train: bool, key: Any
) -> tuple[Any, Tree]:
    variables = {"params": params, **state}
    rngs = None if key is None else {"dropout": key}
    if train and state:
        return module.apply(variables, inputs, True, rngs=rngs, mutable=list(state))
    return module.apply(variables, inputs, train, rngs=rngs), state


def _size(tree: Tree) -> int:
    return sum(leaf.size for leaf in jax.tree.leaves(tree))
