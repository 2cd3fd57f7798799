"""What an encoder is, and the stages between which a way of sharing may exchange features."""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Features = Any
"""What a stage passes on: an array, or a tuple whose first entry is the array of features and whose
others are what later stages need to know beside it (which tokens are padding, where a pool found
its maxima)."""

Block = Callable[[Features, bool], Features]


class Staged(nn.Module):
    """An encoder made of stages: the one class to write for an encoder of your own.

    A stage is a sequence of blocks, functions `(x, train) -> x` that make the flax layers they
    need. The layers' names are given and differ across the whole encoder: the parameters lie flat
    in its tree, and a stage alone has those it would have in the whole. The first block reads the
    inputs. Ways of sharing exchange features after a stage; attention (`mtan`) also reads the
    features before a stage's last block, so these have the shape of the stage's result, or another
    resolution of it. The neck makes the last features the representation; its layers are named in
    the same way.

    A representation is a vector `[B, F]`, a dense map `[B, H, W, C]`, a sequence `[B, T, C]`, or
    several of these as `{"vector": ..., "map": ..., "sequence": ...}`: a head reads the part that
    its attribute `reads` names, "vector" where it has none.

    In one file, and one line of `jmtl.nn.ENCODERS`:

        class Twice(Staged):
            width: int = 8
            axis_name: str | None = None     # pmap's axis, if it has batch norm or dropout

            def stages(self):
                return [[self.first], [self.second]]

            def first(self, x, train):
                return nn.relu(nn.Dense(self.width, name="first")(x))

            def second(self, x, train):
                return nn.relu(nn.Dense(self.width, name="second")(x))

    Dropout is `jmtl.nn.Dropout` and batch norm `jmtl.nn.layers.batch_norm`, both with the
    `axis_name`: N devices then give what one gives.

    Attributes:
        remat: Whether the backward pass computes the activations inside each block again from the
            block's input, instead of keeping them: memory for one more forward pass (for each task
            under the strategy "unroll").
    """

    remat: bool = dataclasses.field(default=False, kw_only=True)

    def stages(self) -> Sequence[Sequence[Block]]:
        """The stages, each a sequence of blocks."""
        raise NotImplementedError(f"{type(self).__name__} does not say what its stages are")

    def neck(self, x: Features, train: bool) -> Any:
        """The representation from the last stage's features: themselves, unless overridden."""
        del train
        return features(x)

    def gate_inputs(self, inputs: Any) -> Float[Array, "B D"]:
        """What a gate that chooses between experts reads of an example: its numbers, in a row."""
        return flat(inputs)

    def gate_features(self, x: Features) -> Float[Array, "B F"]:
        """What a gate reads of a stage's features: their mean over positions."""
        x = features(x)
        return x.mean(axis=tuple(range(1, x.ndim - 1)))

    @nn.compact
    def __call__(self, inputs: Any, train: bool, blocks: range | None = None) -> Any:
        """Encode a batch, or run some of the blocks.

        Args:
            inputs: leaves `[B, ...]`, or the features before the first of `blocks`.
            train: whether dropout drops and batch norm takes the batch's statistics.
            blocks: those of a stage or the neck, from `spans`; None is all.

        Returns:
            The representation, or the features after the last of `blocks`.
        """
        chosen = range(len(self._blocks())) if blocks is None else blocks
        x = inputs
        for i in chosen:

            def block(encoder: Staged, x: Any, i: int = i) -> Any:
                return encoder._blocks()[i](x, train)

            x = nn.remat(block)(self, x) if self.remat else block(self, x)
        return x

    def _blocks(self) -> tuple[Any, ...]:
        return (*itertools.chain(*self.stages()), self.neck)


def spans(encoder: Staged) -> tuple[list[range], range]:
    """The blocks of each stage, and those of the neck."""
    ends = [0, *itertools.accumulate(len(stage) for stage in encoder.stages())]
    return [range(a, b) for a, b in itertools.pairwise(ends)], range(ends[-1], ends[-1] + 1)


def features(x: Features) -> Array:
    """The array of features of what a stage passes on."""
    return x[0] if isinstance(x, tuple) else x


def with_features(x: Features, new: Array) -> Features:
    """What a stage passes on, with other features."""
    return (new, *x[1:]) if isinstance(x, tuple) else new


def flat(inputs: Any) -> Float[Array, "B D"]:
    """Every number of an example in one row.

    Raises:
        ValueError: The inputs are no floating-point numbers, which have no order to be weighed by.
    """
    leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(inputs)]
    if not all(jnp.issubdtype(leaf.dtype, jnp.floating) for leaf in leaves):
        kinds = ", ".join(str(leaf.dtype) for leaf in leaves)
        raise ValueError(
            f"a gate reads floating-point inputs, got {kinds}: "
            "give the encoder a method gate_inputs(inputs) -> [B, D]"
        )
    return jnp.concatenate([leaf.reshape(leaf.shape[0], -1) for leaf in leaves], axis=-1)


def images(x: Float[Array, "B H W *C"], name: str, smallest: int = 1) -> Float[Array, "B H W C"]:
    """`x` with a channel dimension.

    Raises:
        ValueError: It is no batch of images, or they are below `smallest` pixels.
    """
    if x.ndim not in (3, 4) or min(x.shape[1:3]) < smallest:
        size = f" of at least {smallest}×{smallest}" if smallest > 1 else ""
        raise ValueError(f"{name} takes images [B, H, W] or [B, H, W, C]{size}, got {x.shape}")
    return x if x.ndim == 4 else x[..., None]
