"""A shared trunk behind a stem a task: for tasks that read data sets of their own."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array

from jmtl.nn.encoders.staged import flat
from jmtl.nn.model import Model, Tree, model
from jmtl.nn.sharing import arrange
from jmtl.nn.sharing.parts import borrowed, finish


class Trunk(nn.Module):
    """The parameters of the part that all tasks share; each task runs it on its own inputs.

    Attributes:
        encoder: The part, from what stems answer to what tasks' parts read.
        width: What every stem answers; None where there are none.
    """

    encoder: nn.Module
    width: int | None

    @nn.compact
    def __call__(self, inputs: Mapping[str, Any], train: bool) -> tuple[Mapping[str, Any], Tree]:
        """The inputs by data set, and the trunk's parameters."""
        del train
        trunk = self.encoder.clone(parent=None)
        first = inputs[min(inputs)] if self.width is None else jnp.zeros((1, self.width))

        def start(key: Array) -> Tree:
            return trunk.init(key, first, False).get("params", {})

        return inputs, self.param("trunk", start)


class Path(nn.Module):
    """A task's stem and head, and the trunk between them.

    Attributes:
        source: The data set that it reads.
        encoder: The trunk; its parameters are given.
        head: From what the trunk makes of it to the output.
        width: Of the stem; None where there is none.
        dtype: What the stem computes in.
    """

    source: str
    encoder: nn.Module
    head: nn.Module
    width: int | None
    dtype: Any

    @nn.compact
    def __call__(self, given: tuple[Mapping[str, Any], Tree], train: bool) -> Array:
        """The task's output for the rows of its data set."""
        inputs, trunk = given
        x = inputs[self.source]
        if self.width is not None:
            x = nn.relu(nn.Dense(self.width, dtype=self.dtype, name="stem")(flat(x)))
        read = borrowed(self, "trunk", self.encoder, trunk, x, train)
        return finish(self.head, read, train)


def with_stems(
    encoder: nn.Module,
    heads: Mapping[str, nn.Module],
    sources: Mapping[str, str],
    width: int | None = 32,
    axis_name: str | None = None,
    sharing: str = "hard",
    dtype: Any = None,
    **options: Any,
) -> Model:
    """A model of inputs from several data sets: `y_k = h_k(f(relu(W_k x_k)))`.

    Shared: what the way of sharing shares, of the trunk f; under hard sharing that is f. A task's
    own: its stem W_k, which fits the size of its data set's rows, the way of sharing's part for it,
    its head, and the running statistics of the trunk on its inputs, as those of another data set
    would be wrong for it. No representation is read by all tasks, so gradients cannot be taken
    there (`at="representation"`).

    Args:
        encoder: f; reads `[B, width]`.
        heads: h_k by task.
        sources: By task, the data set that it reads: a name in the inputs.
        width: What a stem answers. None: there are no stems, and f reads the inputs of every data
            set, which are alike but for B.
        axis_name: pmap's axis, as for `jmtl.nn.model`.
        sharing: A name in `jmtl.nn.SHARINGS`.
        dtype: What the stems compute in; None takes the wider of inputs and parameters.
        **options: Of the way of sharing.

    Returns:
        The model; its inputs are leaves `[B, ...]` by data set, each with its own B.

    Raises:
        ValueError: as `jmtl.nn.make_sharing`.

    References:
        Bilen & Vedaldi, *Universal representations: The missing link between faces, text,
        planktons, and cat breeds*, 2017 (running statistics by domain).
    """
    arranged = arrange(sharing, encoder, heads, axis_name, **options)
    paths: dict[str, nn.Module] = {
        name: Path(sources[name], arranged.encoder, part, width, dtype)
        for name, part in arranged.heads.items()
    }
    return model(Trunk(arranged.encoder, width), paths)._replace(common=False)
