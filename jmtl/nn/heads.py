"""Heads: flax modules from the representation to one task's output.

A representation is a vector `[B, F]`, a map `[B, H, W, C]`, a sequence `[B, T, C]`, or several of
these by name, of which a head is given the one that its attribute `reads` names.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jmtl import tasks
from jmtl.methods import nearest
from jmtl.nn.atrous import AtrousHead
from jmtl.nn.convolution import image_conv
from jmtl.nn.layers import Dropout, activation, initialiser
from jmtl.nn.maps import answered, check_map


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
        reads: The part of a representation that has several.
    """

    features: int
    hidden: Sequence[int] = ()
    activation: str = "relu"
    dropout: float = 0.0
    kernel_init: str = "lecun_normal"
    dtype: Any = None
    axis_name: str | None = None
    reads: str = "vector"

    @nn.compact
    def __call__(
        self, representation: Float[Array, "B *d F"], train: bool
    ) -> Float[Array, "B *d D"]:
        """Answer `[B, ..., features]` for `[B, ..., F]`."""
        x, init = representation, initialiser(self.kernel_init)
        for width in self.hidden:
            x = activation(self.activation)(nn.Dense(width, dtype=self.dtype, kernel_init=init)(x))
            if self.dropout:
                x = Dropout(self.dropout, axis_name=self.axis_name)(x, train)
        x = nn.Dense(self.features, dtype=self.dtype, kernel_init=init)(x)
        return x.astype(jnp.promote_types(x.dtype, jnp.float32))


class MapHead(nn.Module):
    """A 1×1 convolution, after hidden 3×3 ones if any, resized. Its output is at least float32.

    Attributes:
        features: The size of the output's last dimension.
        size: Height and width that the output is resized to, linearly; None keeps the
            representation's.
        bias: What the output's bias begins at, one number a feature. Default: all 0.
        hidden: The channels of the hidden convolutions.
        activation: A name in `jmtl.nn.ACTIVATIONS`, after every hidden convolution.
        dropout: The rate of whole channels after every hidden convolution.
        kernel_init: A name in `jmtl.nn.INITIALISERS`.
        dtype: What it computes in; None takes the wider of inputs and parameters.
        axis_name: pmap's axis.
        reads: The part of a representation that has several.
    """

    features: int
    size: tuple[int, int] | None = None
    bias: Sequence[float] = ()
    hidden: Sequence[int] = ()
    activation: str = "relu"
    dropout: float = 0.0
    kernel_init: str = "lecun_normal"
    dtype: Any = None
    axis_name: str | None = None
    reads: str = "map"

    @nn.compact
    def __call__(
        self, representation: Float[Array, "B h w C"], train: bool
    ) -> Float[Array, "B H W D"]:
        """Answer `[B, H, W, features]` for `[B, h, w, C]`.

        Raises:
            ValueError: If the representation is no map.
        """
        x, init = representation, initialiser(self.kernel_init)
        check_map(x)
        for width in self.hidden:
            x = image_conv(width, (3, 3), dtype=self.dtype, kernel_init=init)(x)
            x = activation(self.activation)(x)
            if self.dropout:
                x = Dropout(self.dropout, channels=True, axis_name=self.axis_name)(x, train)
        start = jnp.array(self.bias or (0.0,) * self.features)
        x = image_conv(
            self.features,
            (1, 1),
            dtype=self.dtype,
            kernel_init=init,
            bias_init=lambda key, shape, dtype=jnp.float32: start.astype(dtype).reshape(shape),
        )(x)
        return answered(x, self.size)


class PresenceHead(nn.Module):
    """Whether things are anywhere in an image: the soft maximum of their logits at every place.

    That is log mean exp over the places: their mean where all are alike, and near the largest, less
    the logarithm of its share of the image, where that stands out. Of a mean of features, what
    covers a part of the image is that part.

    Attributes:
        features: The size of the output's last dimension.
        hidden: As the following, `MapHead`'s.
        activation: A name in `jmtl.nn.ACTIVATIONS`.
        dropout: The rate of whole channels after every hidden convolution.
        kernel_init: A name in `jmtl.nn.INITIALISERS`.
        dtype: What it computes in; None takes the wider of inputs and parameters.
        axis_name: pmap's axis.
        reads: The part of a representation that has several.
    """

    features: int
    hidden: Sequence[int] = ()
    activation: str = "relu"
    dropout: float = 0.0
    kernel_init: str = "lecun_normal"
    dtype: Any = None
    axis_name: str | None = None
    reads: str = "map"

    @nn.compact
    def __call__(self, representation: Float[Array, "B h w C"], train: bool) -> Float[Array, "B D"]:
        """Answer `[B, features]` for `[B, h, w, C]`.

        Raises:
            ValueError: If the representation is no map.
        """
        options = {name: getattr(self, name) for name in _OF_MAPS}
        logits = MapHead(self.features, **options)(representation, train)
        places = logits.shape[1] * logits.shape[2]
        return jax.nn.logsumexp(logits, axis=(1, 2)) - math.log(places)


_OF_MAPS = ("hidden", "activation", "dropout", "kernel_init", "dtype", "axis_name", "reads")


def classification(num_classes: int, **options: Any) -> DenseHead:
    """A head that answers logits `[B, num_classes]`; options are `DenseHead`'s."""
    return DenseHead(num_classes, **options)


def regression(dim: int = 1, **options: Any) -> DenseHead:
    """A head that answers numbers `[B, dim]`; options are `DenseHead`'s."""
    return DenseHead(dim, **options)


def tagging(num_tags: int, **options: Any) -> DenseHead:
    """A head that answers logits `[B, T, num_tags]` of a sequence; options are `DenseHead`'s."""
    return DenseHead(num_tags, reads="sequence", **options)


def dense(
    features: int, size: tuple[int, int] | None = None, atrous: Sequence[int] = (), **options: Any
) -> MapHead | AtrousHead:
    """A head that answers a map `[B, H, W, features]`.

    Args:
        features: the size of the output's last dimension.
        size: height and width of the map. Default: the representation's.
        atrous: the dilations of a spatial pyramid, DeepLab's; none: no pyramid.
        **options: `AtrousHead`'s where there is one, else `MapHead`'s.
    """
    if atrous:
        return AtrousHead(features, size, tuple(atrous), **options)
    return MapHead(features, size, **options)


def detection(features: int, size: tuple[int, int] | None = None, **options: Any) -> MapHead:
    """A head that answers a map `[B, h, w, C + 4]` as `jmtl.objects` reads it.

    The centres' logits begin at a probability of 0.1: begun at a half, the many cells without a
    centre would outweigh all else (Lin et al., ICCV 2017, section 4.1; the number is Zhou et al.'s,
    2019).

    Args:
        features: C + 4, of C classes.
        size: Height and width of the map. Default: the representation's.
        **options: `MapHead`'s.
    """
    centre = math.log(0.1 / 0.9)
    return MapHead(features, size, bias=(centre,) * (features - 4) + (0.0,) * 4, **options)


def presence(num_labels: int, **options: Any) -> PresenceHead:
    """A head that answers logits `[B, num_labels]` of a map; options are `PresenceHead`'s."""
    return PresenceHead(num_labels, **options)


HEADS: Mapping[str, Callable[..., nn.Module]] = MappingProxyType(
    {
        "classification": classification,
        "regression": regression,
        "tagging": tagging,
        "dense": dense,
        "detection": detection,
        "presence": presence,
    }
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
    if head.size is not None:
        options = {"size": head.size, **options}
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
