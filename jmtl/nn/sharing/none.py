"""No sharing: a network a task."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
from jaxtyping import Array

from jmtl.nn.sharing.parts import Sharing, finish


class Nothing(nn.Module):
    """No parameters: the inputs, for every task to encode by itself."""

    @nn.compact
    def __call__(self, inputs: Any, train: bool) -> tuple[Any]:
        """The inputs."""
        del train
        return (inputs,)


class Network(nn.Module):
    """A task's encoder and head.

    Attributes:
        encoder: From inputs to the representation.
        head: From the representation to the output.
    """

    encoder: nn.Module
    head: nn.Module

    @nn.compact
    def __call__(self, given: tuple[Any], train: bool) -> Array:
        """The task's output."""
        return finish(self.head, self.encoder(given[0], train), train)


def none(encoder: nn.Module, heads: Mapping[str, nn.Module]) -> Sharing:
    """Independent networks: `y_k = h_k(f_k(x))`.

    Shared: nothing, so surgery has nothing to do and methods that need task gradients refuse;
    Gramian methods see zeros. A task's own: all of its network. Any encoder.

    Args:
        encoder: What every f_k is a copy of.
        heads: h_k by task.
    """
    return Sharing(Nothing(), {name: Network(encoder, head) for name, head in heads.items()})
