"""Encoders of token ids: recurrent, and attentive."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from jmtl.checks import check_choice
from jmtl.nn.encoders.attention import attend, transform
from jmtl.nn.encoders.staged import Block, Features, Staged
from jmtl.nn.layers import Dropout, initialiser


def tokens_and_mask(
    inputs: Int[Array, "B T"] | Mapping[str, Array],
) -> tuple[Int[Array, "B T"], Bool[Array, "B T"]]:
    """Token ids, and which of them are there.

    Args:
        inputs: `{"tokens": [B, T] integers, "mask": [B, T] booleans}`, or the tokens alone, 0 being
            padding.

    Raises:
        ValueError: It is neither, or a size or type differs.
    """
    tokens = inputs["tokens"] if isinstance(inputs, Mapping) else inputs
    tokens = jnp.asarray(tokens)
    mask = jnp.asarray(inputs["mask"]) if isinstance(inputs, Mapping) else tokens != 0
    if tokens.ndim != 2 or not jnp.issubdtype(tokens.dtype, jnp.integer):
        raise ValueError(f"token ids are integers [B, T], got {tokens.dtype} {tokens.shape}")
    if mask.shape != tokens.shape or mask.dtype != bool:
        raise ValueError(
            f"the mask of token ids {tokens.shape} is booleans {tokens.shape}, "
            f"got {mask.dtype} {mask.shape}"
        )
    return tokens, mask


def _mean(x: Float[Array, "B T F"], mask: Bool[Array, "B T 1"]) -> Float[Array, "B F"]:
    count = jnp.maximum(mask.sum(axis=1), 1).astype(x.dtype)
    return jnp.where(mask, x, 0).sum(axis=1) / count


def _max(x: Float[Array, "B T F"], mask: Bool[Array, "B T 1"]) -> Float[Array, "B F"]:
    largest = jnp.where(mask, x, -jnp.inf).max(axis=1)
    return jnp.where(mask.any(axis=1), largest, 0)  # no token: no largest


def _first(x: Float[Array, "B T F"], mask: Bool[Array, "B T 1"]) -> Float[Array, "B F"]:
    del mask
    return x[:, 0]


def _last(x: Float[Array, "B T F"], mask: Bool[Array, "B T 1"]) -> Float[Array, "B F"]:
    place = jnp.maximum(mask.sum(axis=1, keepdims=True) - 1, 0)
    return jnp.take_along_axis(x, place, axis=1)[:, 0]


POOLS: Mapping[str, Callable[[Array, Array], Array]] = MappingProxyType(
    {"mean": _mean, "max": _max, "first": _first, "last": _last}
)
"""From a sequence to one vector, over the tokens that are there."""


class Text(Staged):
    """What encoders of token ids have in common.

    They read `{"tokens": [B, T], "mask": [B, T]}`, or tokens with 0 for padding, and answer
    `{"sequence": [B, T, F], "vector": [B, F]}`; the sequence is 0 where there is padding.
    """

    def gate_inputs(self, inputs: Any) -> Float[Array, "B V"]:
        """How often each word of the vocabulary is among an example's tokens, over their number."""
        tokens, mask = tokens_and_mask(inputs)
        rows = jnp.arange(len(tokens))[:, None]
        counts = jnp.zeros((len(tokens), self.vocabulary)).at[rows, tokens].add(mask * 1.0)  # type: ignore[attr-defined]
        return counts / jnp.maximum(mask.sum(axis=1, keepdims=True), 1)

    def gate_features(self, x: Features) -> Float[Array, "B F"]:
        """The mean over the tokens that are there."""
        sequence, mask = x
        return _mean(sequence, mask[..., None])

    def neck(self, x: Features, train: bool) -> dict[str, Array]:
        """The sequence, and the vector that `pool` makes of it."""
        del train
        sequence, mask = x
        pool: str = self.pool  # type: ignore[attr-defined]
        check_choice(type(self).__name__.lower(), "pool", pool, tuple(POOLS))
        there = mask[..., None]
        return {
            "sequence": jnp.where(there, sequence, 0),
            "vector": POOLS[pool](sequence, there),
        }


class GRU(Text):
    """Gated recurrent layers over embedded tokens; a layer is a stage.

    The tokens that are there come first in a row: padding is at its end.

    Attributes:
        vocabulary: V, tokens are in 0 .. V - 1.
        width: Of the embedding and of each direction; F is twice that where `bidirectional`.
        layers: Recurrent layers.
        bidirectional: Whether a second recurrence reads from the end.
        pool: How the vector comes of the sequence: "mean", "max", "first" or "last" token.
        dropout: The rate after the embedding and every layer.
        kernel_init: A name in `jmtl.nn.INITIALISERS`, of the weights on a layer's inputs.
        dtype: What it computes in; None takes the parameters'.
        axis_name: pmap's axis.

    References:
        Cho et al., *Learning Phrase Representations using RNN Encoder–Decoder*, EMNLP 2014.
    """

    vocabulary: int  # type: ignore[misc]  # mypy does not see that `remat` is keyword-only
    width: int = 64
    layers: int = 1
    bidirectional: bool = True
    pool: str = "mean"
    dropout: float = 0.0
    kernel_init: str = "lecun_normal"
    dtype: Any = None
    axis_name: str | None = None

    def stages(self) -> Sequence[Sequence[Block]]:
        """From token ids to a sequence with its mask; the embedding is in the first stage."""
        layers: list[list[Block]] = [[partial(self._layer, i)] for i in range(self.layers)]
        return [[self._embed, *layers[0]], *layers[1:]]

    def _embed(self, inputs: Any, train: bool) -> Features:
        tokens, mask = tokens_and_mask(inputs)
        x = nn.Embed(self.vocabulary, self.width, dtype=self.dtype, name="embedding")(tokens)
        return self._dropped("embedding_dropout", x, train), mask

    def _layer(self, i: int, x: Features, train: bool) -> Features:
        x, mask = x
        lengths = mask.sum(axis=1)

        def run(name: str, backward: bool) -> Array:
            cell = nn.GRUCell(
                self.width,
                dtype=self.dtype,
                kernel_init=initialiser(self.kernel_init),
                name=f"layer{i}_{name}",
            )
            rnn = nn.RNN(cell, reverse=backward, keep_order=True, name=f"layer{i}_{name}_scan")
            start = jnp.zeros((len(x), self.width), x.dtype)  # its own would be float32
            return jnp.asarray(rnn(x, initial_carry=start, seq_lengths=lengths))

        y = run("forward", False)
        if self.bidirectional:
            y = jnp.concatenate([y, run("backward", True)], axis=-1)
        return self._dropped(f"layer{i}_dropout", y, train), mask

    def _dropped(self, name: str, x: Array, train: bool) -> Array:
        if not self.dropout:
            return x
        return Dropout(self.dropout, axis_name=self.axis_name, name=name)(x, train)


class Transformer(Text):
    """Self-attention over embedded tokens, norms before each part; a layer is a stage.

    Attributes:
        vocabulary: V, tokens are in 0 .. V - 1.
        width: F.
        layers: Of attention and two dense layers each.
        heads: Of the attention; they divide the width.
        hidden: Width between the dense layers; None is 4 F.
        max_length: The largest T: positions are learned.
        pool: How the vector comes of the sequence: "mean", "max", "first" or "last" token.
        dropout: The rate after the embedding, attention and dense layers.
        kernel_init: A name in `jmtl.nn.INITIALISERS`.
        dtype: What it computes in; None takes the parameters'.
        axis_name: pmap's axis.

    References:
        Vaswani et al., *Attention Is All You Need*, NeurIPS 2017; norms first: Xiong et al., ICML
        2020.
    """

    vocabulary: int  # type: ignore[misc]  # mypy does not see that `remat` is keyword-only
    width: int = 64
    layers: int = 2
    heads: int = 4
    hidden: int | None = None
    max_length: int = 64
    pool: str = "mean"
    dropout: float = 0.0
    kernel_init: str = "glorot_uniform"
    dtype: Any = None
    axis_name: str | None = None

    def stages(self) -> Sequence[Sequence[Block]]:
        """From token ids to a sequence with its mask; the embedding is in the first stage."""
        layers: list[list[Block]] = [
            [partial(self._attend, i), partial(self._transform, i)] for i in range(self.layers)
        ]
        return [[self._embed, *layers[0]], *layers[1:]]

    def _embed(self, inputs: Any, train: bool) -> Features:
        tokens, mask = tokens_and_mask(inputs)
        length = tokens.shape[1]
        if length > self.max_length:
            raise ValueError(
                f"transformer: a sequence has {length} tokens, and max_length is {self.max_length}"
            )
        x = nn.Embed(self.vocabulary, self.width, dtype=self.dtype, name="embedding")(tokens)
        shape = (self.max_length, self.width)
        positions = self.param("positions", nn.initializers.normal(0.02), shape)
        x = x + positions[None, :length].astype(x.dtype)
        if self.dropout:
            drop = Dropout(self.dropout, axis_name=self.axis_name, name="embedding_dropout")
            x = drop(x, train)
        return x, mask

    def _attend(self, i: int, x: Features, train: bool) -> Features:
        x, mask = x
        options = (self.dropout, self.kernel_init, self.dtype, self.axis_name)
        return attend(f"layer{i}_attention", self.heads, *options, x, mask, train), mask

    def _transform(self, i: int, x: Features, train: bool) -> Features:
        x, mask = x
        options = (self.dropout, self.kernel_init, self.dtype, self.axis_name)
        hidden = self.hidden or 4 * self.width
        return transform(f"layer{i}_dense", hidden, *options, x, train), mask

    def neck(self, x: Features, train: bool) -> dict[str, Array]:
        """The sequence after a last norm, and the vector that `pool` makes of it."""
        sequence, mask = x
        sequence = nn.LayerNorm(dtype=self.dtype, name="norm")(sequence)
        return super().neck((sequence, mask), train)
