"""Encoders of molecules: atoms that pass messages to one another."""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jmtl.nn.encoders.staged import Block, Features, Staged
from jmtl.nn.layers import Dropout, initialiser


def charges_and_positions(
    inputs: Mapping[str, Array],
) -> tuple[Int[Array, "B A"], Float[Array, "B A 3"]]:
    """What an encoder of molecules reads.

    Args:
        inputs: `{"charges": [B, A] integers, 0 for padding, "positions": [B, A, 3] numbers}`.

    Raises:
        ValueError: It is something else.
    """
    if not isinstance(inputs, Mapping) or not {"charges", "positions"} <= inputs.keys():
        raise ValueError("molecules are {'charges': [B, A], 'positions': [B, A, 3]}")
    charges, positions = jnp.asarray(inputs["charges"]), jnp.asarray(inputs["positions"])
    if charges.ndim != 2 or not jnp.issubdtype(charges.dtype, jnp.integer):
        raise ValueError(f"charges are integers [B, A], got {charges.dtype} {charges.shape}")
    if positions.shape != (*charges.shape, 3):
        raise ValueError(f"positions are {(*charges.shape, 3)}, got {positions.shape}")
    return charges, positions


def shifted_softplus(x: Float[Array, "*d"]) -> Float[Array, "*d"]:
    """ln(½ eˣ + ½): a softplus that is 0 at 0."""
    return jax.nn.softplus(x) - math.log(2)


class SchNet(Staged):
    """Continuous-filter convolutions: messages weighed by the distance; a layer is a stage.

    An atom's features begin as its element's. A layer adds to them, through two dense layers, the
    sum over the other atoms of what these send, times filters that two dense layers compute of the
    distance, in Gaussians around evenly spaced ones; they fade as a cosine to 0 at the cutoff.
    Turning, moving and mirroring a molecule change nothing, nor does the order of its atoms.

    It answers `{"sequence": [B, A, F], "vector": [B, 2F]}`: features of atoms, 0 where there is
    padding; and after a dense layer their mean over a molecule beside their sum, for what is a
    property of all of it and what grows with it. The sum is divided by `typical_atoms`, so that
    both are of one size.

    Attributes:
        width: F.
        layers: Of messages.
        gaussians: In which a distance is written.
        cutoff: The distance beyond which no message is passed, in the positions' unit.
        elements: Charges are in 0 .. elements - 1.
        typical_atoms: Of a molecule.
        dropout: The rate on what a layer adds.
        kernel_init: A name in `jmtl.nn.INITIALISERS`.
        dtype: What it computes in (distances: the positions'); None takes the parameters'.
        axis_name: pmap's axis.

    References:
        Schütt et al., *SchNet: A continuous-filter convolutional neural network for modeling
        quantum interactions*, NeurIPS 2017. A neural message passing network in the sense of
        Gilmer et al., *Neural Message Passing for Quantum Chemistry*, ICML 2017. The cosine is
        Behler & Parrinello's, 2007, as in SchNetPack.
    """

    width: int = 64
    layers: int = 3
    gaussians: int = 50
    cutoff: float = 10.0
    elements: int = 10
    typical_atoms: float = 18.0
    dropout: float = 0.0
    kernel_init: str = "glorot_uniform"
    dtype: Any = None
    axis_name: str | None = None

    def stages(self) -> Sequence[Sequence[Block]]:
        """From molecules to features of atoms `[B, A, F]`; the embedding is in the first stage."""
        layers: list[list[Block]] = [[partial(self._layer, i)] for i in range(self.layers)]
        return [[self._embed, *layers[0]], *layers[1:]]

    def gate_inputs(self, inputs: Any) -> Float[Array, "B E"]:
        """The share of each element among a molecule's atoms."""
        charges, _ = charges_and_positions(inputs)
        there = (charges != 0)[..., None]
        return _mean(jax.nn.one_hot(charges, self.elements), there)

    def gate_features(self, x: Features) -> Float[Array, "B F"]:
        """The mean over a molecule's atoms."""
        return _mean(x[0], x[1])

    def _embed(self, inputs: Any, train: bool) -> Features:
        """Features, which atoms are there `[B, A, 1]`, and the distances `[B, A, A]`."""
        del train
        charges, positions = charges_and_positions(inputs)
        embedding = nn.Embed(self.elements, self.width, dtype=self.dtype, name="embedding")
        between = positions[:, :, None] - positions[:, None]
        squares = (between**2).sum(axis=-1)
        # The root has no slope at 0, where an atom meets itself.
        distances = jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1)), 0)
        return embedding(charges), (charges != 0)[..., None], distances

    def _layer(self, i: int, x: Features, train: bool) -> Features:
        x, there, distances = x
        dense = partial(self._dense, f"layer{i}")
        others = there & jnp.swapaxes(there, 1, 2) & ~np.eye(there.shape[1], dtype=bool)[None]
        fade = 0.5 * (jnp.cos(distances * (math.pi / self.cutoff)) + 1)
        fade = jnp.where(others & (distances < self.cutoff), fade, 0).astype(x.dtype)
        centres = np.linspace(0, self.cutoff, self.gaussians, dtype=np.float32)
        far = (distances[..., None] - centres[None, None, None]) / (centres[1] - centres[0])
        written = jnp.exp(-0.5 * far**2).astype(x.dtype)
        filters = dense("filter_1", shifted_softplus(dense("filter_0", written)))
        sent = dense("send", x, use_bias=False)
        y = jnp.einsum("bijf,bij,bjf->bif", filters, fade, sent)
        y = dense("receive_1", shifted_softplus(dense("receive_0", y)))
        if self.dropout:
            y = Dropout(self.dropout, axis_name=self.axis_name, name=f"layer{i}_dropout")(y, train)
        return x + y, there, distances

    def neck(self, x: Features, train: bool) -> dict[str, Array]:
        """Features of atoms, and the vector that is the molecule's."""
        del train
        x, there, _ = x
        y = shifted_softplus(self._dense("neck", "dense", x))
        total = jnp.where(there, y, 0).sum(axis=1) / self.typical_atoms
        return {
            "sequence": jnp.where(there, x, 0),
            "vector": jnp.concatenate([_mean(y, there), total], axis=-1),
        }

    def _dense(self, layer: str, name: str, x: Array, use_bias: bool = True) -> Array:
        return nn.Dense(
            self.width,
            use_bias,
            dtype=self.dtype,
            kernel_init=initialiser(self.kernel_init),
            name=f"{layer}_{name}",
        )(x)


def _mean(x: Float[Array, "B A F"], there: Array) -> Float[Array, "B F"]:
    count = jnp.maximum(there.sum(axis=1), 1).astype(x.dtype)
    return jnp.where(there, x, 0).sum(axis=1) / count
