"""Multi-gate mixture of experts."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
from jaxtyping import Array

from jmtl.checks import check_count
from jmtl.nn.sharing.parts import Experts, Gate, Sharing, finish, mixed


class Gated(nn.Module):
    """A task's gate and head.

    Attributes:
        experts: How many there are.
        head: From the mixture to the output.
    """

    experts: int
    head: nn.Module

    @nn.compact
    def __call__(self, given: tuple[Any, Array], train: bool) -> Array:
        """The task's output."""
        experts, read = given
        weights = Gate(self.experts, name="gate")(read)
        return finish(self.head, mixed(weights, experts), train)


def mmoe(encoder: nn.Module, heads: Mapping[str, nn.Module], *, experts: int = 3) -> Sharing:
    """A mixture of experts with a gate a task: `y_k = h_k(Σ_i g_k(x)_i f_i(x))` (eq. 6, 7).

    `g_k(x) = softmax(W_k x)` reads the example's numbers in one row, of text how often each word
    occurs; an encoder with a method `gate_inputs` says what it reads.

    Shared: the experts. A task's own: its gate and head. With one expert it is hard sharing. Any
    encoder.

    Args:
        encoder: What every expert f_i is a copy of.
        heads: h_k by task.
        experts: How many there are, at least 1.

    References:
        Ma et al., *Modeling Task Relationships in Multi-task Learning with Multi-gate
        Mixture-of-Experts*, KDD 2018.
    """
    check_count("mmoe", "experts", experts, 1)
    own: dict[str, nn.Module] = {name: Gated(experts, head) for name, head in heads.items()}
    return Sharing(Experts(encoder, experts), own)
