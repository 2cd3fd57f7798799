"""What ways of sharing are made of: experts, gates and mixtures."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jmtl.nn.encoders.staged import Staged, flat, spans
from jmtl.nn.model import part_for


class Sharing(NamedTuple):
    """A model's modules as a way of sharing arranges them.

    What the encoder here holds is shared: the parameters that more than one task's loss reaches,
    and the only ones that surgery acts on. What a head here holds is reached by its task alone.

    Attributes:
        encoder: called as `encoder(inputs, train)`; gives what all heads read.
        heads: by task, called as `head(that, train)`.
        common: as in `jmtl.nn.Model`.
    """

    encoder: nn.Module
    heads: Mapping[str, nn.Module]
    common: bool = False


class Experts(nn.Module):
    """Copies of an encoder, side by side.

    Attributes:
        encoder: What is copied.
        count: How many there are.
    """

    encoder: nn.Module
    count: int

    @nn.compact
    def __call__(self, inputs: Any, train: bool) -> tuple[tuple[Any, ...], Float[Array, "B D"]]:
        """Each expert's representation, and what a gate reads of the inputs."""
        experts = [self.encoder.copy(name=f"expert_{i}") for i in range(self.count)]
        return tuple(expert(inputs, train) for expert in experts), gate_inputs(self.encoder, inputs)


class Gate(nn.Module):
    """`softmax(W x)`, the weights of a mixture.

    Attributes:
        count: E, how many are mixed.
    """

    count: int

    @nn.compact
    def __call__(self, x: Float[Array, "B D"]) -> Float[Array, "B E"]:
        """Weights for each example, which sum to 1."""
        return nn.softmax(nn.Dense(self.count, use_bias=False, name="logits")(x))


def gate_inputs(encoder: nn.Module, inputs: Any) -> Float[Array, "B D"]:
    """What a gate reads of an encoder's inputs: by the encoder's own rule where it has one."""
    own = getattr(encoder, "gate_inputs", flat)
    read: Float[Array, "B D"] = own(inputs)
    return read


def mixed(weights: Float[Array, "*B E"], parts: Sequence[Any]) -> Any:
    """The weighted sum of E trees.

    Args:
        weights: `[B, E]` of each example, or `[E]`.
        parts: E trees of one structure, leaves `[B, ...]`. Leaves that are no floating-point
            numbers (masks) are facts about the inputs and the same in all: those of the first.
    """

    def one(*leaves: Array) -> Array:
        if not jnp.issubdtype(leaves[0].dtype, jnp.floating):
            return leaves[0]
        rank = leaves[0].ndim
        rows = [jnp.atleast_1d(weights[..., i]) for i in range(len(leaves))]
        columns = [row.reshape(-1, *[1] * (rank - 1)) for row in rows]
        total = sum(w * leaf for w, leaf in zip(columns, leaves, strict=True))
        return jnp.asarray(total).astype(leaves[0].dtype)

    return jax.tree.map(one, *parts)


def finish(head: nn.Module, representation: Any, train: bool) -> Array:
    """The task's output from its own representation."""
    output: Array = head(part_for(head, representation), train)
    return output


def staged(encoder: nn.Module, sharing: str) -> tuple[Staged, list[range], range]:
    """The encoder, the blocks of its stages, and those of its neck.

    Raises:
        ValueError: The encoder has no stages.
    """
    if not isinstance(encoder, Staged):
        raise ValueError(
            f"{sharing} exchanges features between the stages of an encoder, and "
            f"{type(encoder).__name__} has none: make it a jmtl.nn.Staged, or use hard, none, "
            "mmoe, cgc or dselect_k"
        )
    return encoder, *spans(encoder)


def borrowed(
    part: nn.Module, name: str, module: nn.Module, params: Any, x: Any, train: bool, *rest: Any
) -> Any:
    """A module run by a task's part on shared parameters; what else it keeps is the task's own.

    Args:
        part: the task's part, inside its `__call__`; keeps running statistics and the like.
        name: that these are kept under.
        module: what is run.
        params: its parameters.
        x: what it reads.
        train: whether statistics move, and dropout drops.
        *rest: what else the module is called with.
    """
    module = module.clone(parent=None)
    if part.is_initializing():
        fresh = module.init(part.make_rng("params"), x, False, *rest)
        for collection in set(fresh) - {"params"}:
            part.put_variable(collection, name, fresh[collection])
    own = [c for c in part.variables if c != "params" and part.has_variable(c, name)]
    kept: dict[str, Any] = {c: part.get_variable(c, name) for c in own}
    rngs = {"dropout": part.make_rng("dropout")} if part.has_rng("dropout") else None
    if not (train and kept):
        return module.apply({"params": params, **kept}, x, train, *rest, rngs=rngs)
    y, moved = module.apply(
        {"params": params, **kept}, x, train, *rest, rngs=rngs, mutable=list(kept)
    )
    for collection in kept:
        part.put_variable(collection, name, moved[collection])
    return y
