"""Cross-stitch networks: a network a task, whose features are mixed linearly after every stage."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from jmtl.checks import check_number
from jmtl.nn.encoders.staged import features, with_features
from jmtl.nn.sharing.parts import Sharing, finish, staged


class CrossStitch(nn.Module):
    """The networks up to the last unit, and the units between their stages.

    Attributes:
        encoder: What every network is a copy of.
        tasks: Names of the K tasks.
        same: What α_kk begins at.
        per_channel: Whether every channel has its own α.
    """

    encoder: nn.Module
    tasks: tuple[str, ...]
    same: float
    per_channel: bool

    @nn.compact
    def __call__(self, inputs: Any, train: bool) -> tuple[Any, ...]:
        """What the last stage of each task's network reads."""
        encoder, stages, _ = staged(self.encoder, "cross_stitch")
        networks = [encoder.copy(name=f"network_{task}") for task in self.tasks]
        xs = [inputs] * len(networks)
        for i, stage in enumerate(stages[:-1]):
            xs = [network(x, train, stage) for network, x in zip(networks, xs, strict=True)]
            xs = self._stitched(f"unit_{i}", xs)
        return tuple(xs)

    def _stitched(self, name: str, xs: list[Any]) -> list[Any]:
        given = [features(x) for x in xs]
        k, rank = len(xs), given[0].ndim
        other = (1 - self.same) / max(k - 1, 1)
        channels = given[0].shape[-1:] if self.per_channel else (1,)

        def start(key: PRNGKeyArray) -> Float[Array, "K K C"]:
            del key
            alpha = other + (self.same - other) * jnp.eye(k)
            return jnp.broadcast_to(alpha[..., None], (k, k, *channels))

        alpha = self.param(name, start).astype(given[0].dtype)
        shape = (1,) * (rank - 1) + channels
        return [
            with_features(
                x, jnp.asarray(sum(alpha[i, j].reshape(shape) * given[j] for j in range(k)))
            )
            for i, x in enumerate(xs)
        ]


class Rest(nn.Module):
    """A task's network after the last unit, and its head.

    Attributes:
        index: The task's place among all.
        encoder: What every network is a copy of.
        head: From the representation to the output.
    """

    index: int
    encoder: nn.Module
    head: nn.Module

    @nn.compact
    def __call__(self, given: tuple[Any, ...], train: bool) -> Array:
        """The task's output."""
        encoder, stages, neck = staged(self.encoder, "cross_stitch")
        network, blocks = encoder.copy(name="network"), range(stages[-1].start, neck.stop)
        return finish(self.head, network(given[self.index], train, blocks), train)


def cross_stitch(
    encoder: nn.Module,
    heads: Mapping[str, nn.Module],
    *,
    same: float = 0.9,
    per_channel: bool = False,
) -> Sharing:
    """A network a task, mixed after every stage but the last: `x̃_k = Σ_j α_kj x_j` (eq. 1).

    Shared: the units `unit_i` (α, `[K, K, 1 or C]`) and all stages of all networks but the last,
    because every task's loss reaches them through the units. A task's own: the last stage of its
    network, which no other loss reaches, and its head. With α = I, or one stage, the networks are
    independent. An encoder with stages. What a stage passes on beside its features (a mask, a
    pool's choices) stays in its own network.

    The paper gives the units a learning rate 100 to 1000 times the networks', and begins the
    networks at single-task ones. A public implementation of it mixes alike for all tasks (one row
    of α), which makes the networks one.

    Args:
        encoder: What every network is a copy of.
        heads: by task.
        same: α_kk at the start; the others share the rest alike. 1 starts with independent
            networks.
        per_channel: Whether every channel has its own α.

    References:
        Misra et al., *Cross-stitch Networks for Multi-task Learning*, CVPR 2016.
    """
    check_number("cross_stitch", "same", same)
    staged(encoder, "cross_stitch")
    own: dict[str, nn.Module] = {
        name: Rest(i, encoder, head) for i, (name, head) in enumerate(heads.items())
    }
    return Sharing(CrossStitch(encoder, tuple(heads), same, per_channel), own)
