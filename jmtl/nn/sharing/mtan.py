"""Multi-task attention network: soft masks of each task on one network's features."""

import math
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray

from jmtl.checks import check_count
from jmtl.nn.convolution import image_conv
from jmtl.nn.encoders.staged import Staged, features, with_features
from jmtl.nn.layers import batch_norm, initialiser
from jmtl.nn.pooling import max_pool
from jmtl.nn.sharing.parts import Sharing, borrowed, finish, staged


class Attended(NamedTuple):
    """What the tasks read of the shared network.

    Attributes:
        before: u of each stage: its features before its last block.
        after: p of each stage: what it passes on.
        passing: Parameters of the convolution f between each two stages.
        encoder: The network's parameters, for its neck.
    """

    before: tuple[Array, ...]
    after: tuple[Any, ...]
    passing: tuple[Any, ...]
    encoder: Any


class Norm(nn.Module):
    """Batch norm of a map; layer norm of a vector or a sequence, which may be padded."""

    momentum: float
    axis_name: str | None

    @nn.compact
    def __call__(self, x: Float[Array, "B *d C"], train: bool) -> Float[Array, "B *d C"]:
        """Normalised features."""
        if x.ndim == 4:
            return batch_norm(train, self.momentum, x.dtype, self.axis_name, "norm")(x)
        return nn.LayerNorm(dtype=x.dtype, name="norm")(x)


class Passing(nn.Module):
    """f: a 3×3 convolution from one stage's attended features to the next stage's width.

    A dense layer where the features are no map.

    Attributes:
        width: Channels of the next stage.
        momentum: Of batch norm.
        axis_name: pmap's axis.
    """

    width: int
    momentum: float
    axis_name: str | None

    @nn.compact
    def __call__(self, x: Float[Array, "B *d C"], train: bool) -> Float[Array, "B *d C2"]:
        """What the next stage's attention reads, before it is resized."""
        if x.ndim == 4:
            x = image_conv(self.width, (3, 3), dtype=x.dtype, name="conv")(x)
        else:
            x = nn.Dense(self.width, dtype=x.dtype, name="conv")(x)
        return nn.relu(Norm(self.momentum, self.axis_name, name="norm")(x, train))


class Trunk(nn.Module):
    """The shared network, and the convolutions that tasks share between their attentions.

    Attributes:
        encoder: The network.
        momentum: Of batch norm.
        axis_name: pmap's axis.
    """

    encoder: nn.Module
    momentum: float
    axis_name: str | None = None

    @nn.compact
    def __call__(self, inputs: Any, train: bool) -> Attended:
        """The features of every stage, and the parameters that the tasks' parts run on."""
        encoder, stages, neck = staged(self.encoder, "mtan")
        x = inputs
        before, after = [], []
        for stage in stages:
            parts = [range(stage.start, stage.stop - 1), range(stage.stop - 1, stage.stop)]
            if parts[0]:
                x = encoder(x, train, parts[0])
                before.append(features(x))
                x = encoder(x, train, parts[1])
            else:
                x = encoder(x, train, parts[1])
                before.append(features(x))
            after.append(x)
        if self.is_initializing():
            encoder(x, train, neck)
        passing = []
        for i, (p, u) in enumerate(zip(after[:-1], before[1:], strict=True)):
            between = Passing(u.shape[-1], self.momentum, self.axis_name)
            start = partial(_params, between, features(p))
            passing.append(self.param(f"passing_{i}", start))
        params = encoder.variables.get("params", {})
        return Attended(tuple(before), tuple(after), tuple(passing), params)


class Attention(nn.Module):
    """A task's masks over the shared features, and its head.

    Attributes:
        encoder: The shared network's architecture, whose neck ends it.
        head: From the attended representation to the output.
        reduction: How many times narrower the mask's hidden layer is than the stage.
        momentum: Of batch norm.
        kernel_init: Of the masks' layers.
        axis_name: pmap's axis.
    """

    encoder: Staged
    head: nn.Module
    reduction: int
    momentum: float
    kernel_init: str = "lecun_normal"
    axis_name: str | None = None

    @nn.compact
    def __call__(self, given: Attended, train: bool) -> Array:
        """The task's output."""
        _, _, neck = staged(self.encoder, "mtan")
        attended: Any = None
        for i, (u, p) in enumerate(zip(given.before, given.after, strict=True)):
            read = fitted(u, features(p))
            if i > 0:
                passing = Passing(u.shape[-1], self.momentum, self.axis_name)
                if _smaller(attended, u):
                    attended = fitted(attended, u)
                attended = borrowed(
                    self, f"passing_{i - 1}", passing, given.passing[i - 1], attended, train
                )
                read = jnp.concatenate([read, fitted(attended, features(p))], axis=-1)
            attended = self._mask(i, read, features(p).shape[-1], train) * features(p)
        x = with_features(given.after[-1], attended)
        representation = borrowed(self, "neck", self.encoder, given.encoder, x, train, neck)
        return finish(self.head, representation, train)

    def _mask(
        self, i: int, read: Float[Array, "B *d C"], width: int, train: bool
    ) -> Float[Array, "B *d C2"]:
        """h(g(read)): two 1×1 convolutions, between 0 and 1."""
        hidden = max(width // self.reduction, 1)
        init = initialiser(self.kernel_init)
        x = nn.Dense(hidden, dtype=read.dtype, kernel_init=init, name=f"attend_{i}_g")(read)
        x = nn.relu(Norm(self.momentum, self.axis_name, name=f"attend_{i}_g_norm")(x, train))
        x = nn.Dense(width, dtype=read.dtype, kernel_init=init, name=f"attend_{i}_h")(x)
        x = Norm(self.momentum, self.axis_name, name=f"attend_{i}_h_norm")(x, train)
        return nn.sigmoid(x)


def _params(module: nn.Module, x: Any, key: PRNGKeyArray) -> Any:
    return module.init(key, x, False)["params"]


def _smaller(x: Array, like: Array) -> bool:
    """Whether `x` has fewer positions, so that f comes after it is interpolated."""
    return math.prod(x.shape[1:-1]) < math.prod(like.shape[1:-1])


def fitted(x: Float[Array, "B *d C"], like: Float[Array, "B *e D"]) -> Float[Array, "B *e C"]:
    """`x` at the resolution of `like`: pooled to its largest, interpolated, or averaged away.

    Args:
        x: features.
        like: features at the resolution wanted; a vector has none.
    """
    here, there = x.shape[1:-1], like.shape[1:-1]
    if here == there:
        return x
    if not there:
        return x.mean(axis=tuple(range(1, x.ndim - 1)))
    if all(a % b == 0 for a, b in zip(here, there, strict=True)):
        window = tuple(a // b for a, b in zip(here, there, strict=True))
        if len(window) == 1:  # a sequence is a map of one row
            return max_pool(x[:, None], (1, window[0]))[:, 0]
        return max_pool(x, (window[0], window[1]))
    return jax.image.resize(x, (x.shape[0], *there, x.shape[-1]), "linear")


def mtan(
    encoder: nn.Module,
    heads: Mapping[str, nn.Module],
    *,
    reduction: int = 1,
    momentum: float = 0.9,
) -> Sharing:
    """One network, and soft masks of each task on its features: `â_j = a_j ⊙ p_j` (eq. 1).

    With u the features of stage j before its last block and p those after it,
    `a_j = h(g([u_j; f(â_{j−1})]))` (eq. 2): g and h are 1×1 convolutions of the task, followed by a
    norm and a ReLU, and by a norm and a sigmoid; f is a 3×3 convolution that all tasks share, with
    norm and ReLU, before a max pool where the next stage is smaller and after an interpolation
    where it is larger. The first stage has u alone. The task's head reads what the encoder's neck
    makes of the last â. Norms are batch norms for maps, and layer norms for vectors and sequences,
    which the paper does not treat.

    Shared: the network and every f. A task's own: its masks and head, and the running statistics of
    f on what it passes. An encoder with stages.

    In the authors' ResNet f is a bottleneck block, and in their SegNet there are two f at the
    bottom. A public implementation has one mask module for all tasks.

    Args:
        encoder: The shared network.
        heads: by task.
        reduction: How many times narrower the layer between g and h is than the stage: 1 in the
            authors' SegNet, 4 in their ResNet.
        momentum: The share of the running statistics kept at a step, in [0, 1].

    References:
        Liu et al., *End-to-End Multi-Task Learning with Attention*, CVPR 2019.
    """
    check_count("mtan", "reduction", reduction, 1)
    known, _, _ = staged(encoder, "mtan")
    own: dict[str, nn.Module] = {
        name: Attention(known, head, reduction, momentum) for name, head in heads.items()
    }
    return Sharing(Trunk(encoder, momentum), own)
