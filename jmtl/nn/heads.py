"""Heads: flax modules from the representation to one task's output."""

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from jmtl import tasks
from jmtl.methods import nearest
from jmtl.nn.layers import Dropout, activation, initialiser


class DenseHead(nn.Module):
    """A linear layer, after hidden ones if any. Its output is at least float32.

    Attributes:
        features: The size of the output's last dimension.
        hidden: The widths of the hidden layers.
        activation: A name in `jmtl.nn.ACTIVATIONS`, after every hidden layer.
        dropout: The rate after every hidden layer.
        kernel_init: A name in `jmtl.nn.INITIALISERS`.
        dtype: What it computes in; None takes the wider of inputs and parameters.
        axis_name: pmap's axis.
    """

    features: int
    hidden: Sequence[int] = ()
    activation: str = "relu"
    dropout: float = 0.0
    kernel_init: str = "lecun_normal"
    dtype: Any = None
    axis_name: str | None = None

    @nn.compact
    def __call__(self, representation: Float[Array, "B F"], train: bool) -> Float[Array, "B D"]:
        """Answer `[B, features]` for `[B, F]`."""
        x, init = representation, initialiser(self.kernel_init)
        for width in self.hidden:
            x = activation(self.activation)(nn.Dense(width, dtype=self.dtype, kernel_init=init)(x))
            if self.dropout:
                x = Dropout(self.dropout, axis_name=self.axis_name)(x, train)
        x = nn.Dense(self.features, dtype=self.dtype, kernel_init=init)(x)
        return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def classification(num_classes: int, **options: Any) -> DenseHead:
    """A head that answers logits `[B, num_classes]`; options are `DenseHead`'s."""
    return DenseHead(num_classes, **options)


def regression(dim: int = 1, **options: Any) -> DenseHead:
    """A head that answers numbers `[B, dim]`; options are `DenseHead`'s."""
    return DenseHead(dim, **options)


HEADS: Mapping[str, Callable[..., nn.Module]] = MappingProxyType(
    {"classification": classification, "regression": regression}
)


def make_head(head: tasks.Head, **options: Any) -> nn.Module:
    """Build the module that a task's head describes.

    Args:
        head: Its kind, a name in `HEADS`, and its size.
        **options: Passed to the constructor: `hidden`, `dropout`, `kernel_init`, …

    Returns:
        The module.

    Raises:
        ValueError: If there is no such kind.
    """
    if head.kind not in HEADS:
        raise ValueError(f"unknown head {head.kind!r}; {nearest(head.kind, HEADS)}")
    return HEADS[head.kind](head.features, **options)


def make_heads(given: Sequence[tasks.Task], **options: Any) -> dict[str, nn.Module]:
    """One head a task, all with the same options.

    Args:
        given: K tasks. A task whose head is a flax module keeps it as it is.
        **options: See `make_head`.

    Returns:
        Heads by task name, for `jmtl.nn.model`.

    Raises:
        ValueError: If two tasks share a name, or there is no such kind of head.
    """
    tasks.check_names(given)
    return {
        task.name: task.head
        if isinstance(task.head, nn.Module)
        else make_head(task.head, **options)
        for task in given
    }
