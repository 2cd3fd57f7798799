"""A shared trunk behind a stem a task: for tasks whose inputs have nothing in common."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array

from jmtl.nn.encoders.staged import flat
from jmtl.nn.model import Model, Tree, model, on_axis
from jmtl.nn.sharing.parts import finish


class Trunk(nn.Module):
    """The parameters of the part that all tasks share; each task runs it on its own inputs.

    Attributes:
        encoder: The part, from `[B, width]` to a representation.
        width: What every stem answers.
    """

    encoder: nn.Module
    width: int

    @nn.compact
    def __call__(self, inputs: Mapping[str, Any], train: bool) -> tuple[Mapping[str, Any], Tree]:
        """The inputs by data set, and the trunk's parameters.

        Raises:
            ValueError: The encoder keeps running statistics: those of which data set?
        """
        del train
        trunk = self.encoder.clone(parent=None)

        def start(key: Array) -> Tree:
            variables = trunk.init(key, jnp.zeros((1, self.width)), False)
            if more := set(variables) - {"params"}:
                raise ValueError(
                    f"a trunk behind stems keeps nothing but parameters, and "
                    f"{type(trunk).__name__} has {', '.join(sorted(more))}: use another encoder"
                )
            return variables["params"]

        return inputs, self.param("trunk", start)


class Path(nn.Module):
    """A task's stem and head, and the trunk between them.

    Attributes:
        source: The data set that it reads.
        encoder: The trunk; its parameters are given.
        head: From the representation to the output.
        width: Of the stem.
    """

    source: str
    encoder: nn.Module
    head: nn.Module
    width: int

    @nn.compact
    def __call__(self, given: tuple[Mapping[str, Any], Tree], train: bool) -> Array:
        """The task's output for the rows of its data set."""
        inputs, trunk = given
        x = nn.relu(nn.Dense(self.width, name="stem")(flat(inputs[self.source])))
        rngs = {"dropout": self.make_rng("dropout")} if self.has_rng("dropout") else None
        representation = self.encoder.clone(parent=None).apply(
            {"params": trunk}, x, train, rngs=rngs
        )
        return finish(self.head, representation, train)


def with_stems(
    encoder: nn.Module,
    heads: Mapping[str, nn.Module],
    sources: Mapping[str, str],
    width: int = 32,
    axis_name: str | None = None,
) -> Model:
    """A model of inputs from several data sets: `y_k = h_k(f(relu(W_k x_k)))`.

    Shared: the trunk f, and nothing else: it is what more than one task's loss reaches. A task's
    own: its stem W_k, which fits the size of its data set's rows, and its head. No representation
    is read by all tasks, so gradients cannot be taken there (`at="representation"`).

    Args:
        encoder: f; reads `[B, width]`, and keeps no running statistics.
        heads: h_k by task.
        sources: By task, the data set that it reads: a name in the inputs.
        width: What a stem answers.
        axis_name: pmap's axis, as for `jmtl.nn.model`.

    Returns:
        The model; its inputs are leaves `[B, ...]` by data set, each with its own B.
    """
    if axis_name is not None:
        encoder = on_axis(encoder, axis_name)
        heads = {name: on_axis(head, axis_name) for name, head in heads.items()}
    paths: dict[str, nn.Module] = {
        name: Path(sources[name], encoder, head, width) for name, head in heads.items()
    }
    return model(Trunk(encoder, width), paths, axis_name)._replace(common=False)
