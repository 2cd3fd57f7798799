"""What encoders and heads have in common: initialisers, activations, batch norm and dropout."""

import contextlib
import contextvars
import math
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jmtl.methods import nearest

INITIALISERS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {
        name: getattr(nn.initializers, name)
        for name in (
            "glorot_normal",
            "glorot_uniform",
            "he_normal",
            "he_uniform",
            "lecun_normal",
            "lecun_uniform",
            "orthogonal",
        )
    }
)

ACTIVATIONS: Mapping[str, Callable[[Array], Array]] = MappingProxyType(
    {name: getattr(nn, name) for name in ("elu", "gelu", "leaky_relu", "relu", "silu", "tanh")}
)


def initialiser(name: str) -> Callable[..., Any]:
    """The kernel initialiser of that name in `INITIALISERS`.

    Raises:
        ValueError: If there is none.
    """
    if name not in INITIALISERS:
        raise ValueError(f"unknown initialiser {name!r}; {nearest(name, INITIALISERS)}")
    return INITIALISERS[name]()


def activation(name: str) -> Callable[[Array], Array]:
    """The activation of that name in `ACTIVATIONS`.

    Raises:
        ValueError: If there is none.
    """
    if name not in ACTIVATIONS:
        raise ValueError(f"unknown activation {name!r}; {nearest(name, ACTIVATIONS)}")
    return ACTIVATIONS[name]


def batch_norm(
    train: bool, momentum: float, dtype: Any, axis_name: str | None, name: str
) -> nn.BatchNorm:
    """Batch norm whose statistics in training are those of the rows of all devices.

    Args:
        train: whether to take the batch's statistics, and move the running ones.
        momentum: the share of the running statistics kept, in [0, 1].
        dtype: what it computes in; statistics stay float32.
        axis_name: pmap's axis.
        name: the layer's.
    """
    return nn.BatchNorm(
        use_running_average=not train,
        momentum=momentum,
        dtype=dtype,
        axis_name=axis_name,
        # E[x²] - E[x]² would lose the digits that N devices and one have in common.
        use_fast_variance=False,
        name=name,
    )


def add_penalty(
    module: nn.Module, name: str, value: Float[Array, "..."], train: bool, axis_name: str | None
) -> None:
    """Add a number to the loss of the task whose module this is, in training.

    To be called in the module's `__call__`, whatever `train` is. The number becomes part of the
    model state, from where the training step adds it (`jmtl.nn.penalties`); metrics and the losses
    of an evaluation are without it.

    Args:
        module: a head, or a task's part of a way of sharing.
        name: of the penalty, unique in the module.
        value: `[]`, or one number an example, of which the mean is taken.
        train: as given to the module.
        axis_name: pmap's axis, over which the mean is taken.
    """
    kept = module.variable("penalties", name, lambda: jnp.zeros((), jnp.float32))
    if train:
        mean = jnp.mean(value).astype(jnp.float32)
        kept.value = mean if axis_name is None else jax.lax.pmean(mean, axis_name)


_NUMBERED: contextvars.ContextVar[Callable[[Array], Array] | None] = contextvars.ContextVar(
    "numbered", default=None
)


@contextlib.contextmanager
def numbered_rows(number: Callable[[Array], Array]) -> Iterator[None]:
    """Rows that a module sees while it is traced have these numbers in the global batch.

    Args:
        number: from the rows' numbers in the microbatch, over all devices, `[B]`, to those.
    """
    token = _NUMBERED.set(number)
    try:
        yield
    finally:
        _NUMBERED.reset(token)


class Dropout(nn.Module):
    """Dropout whose mask for an example depends on its row in the global batch alone.

    Row r draws its mask from `fold_in(key, r)`, so that any number of devices, under jit or pmap,
    and of microbatches drops what one would; flax's own draws one mask for the rows that a device
    holds.

    An element takes 16 random bits, half of a word (drawing `uint16` directly costs a word each):
    it is kept with probability q = round((1 - rate)·65536)/65536 exactly, at least 1/65536, and
    divided by q. So the mean is exact, and the rate has a resolution of 1.5e-5.

    Attributes:
        rate: The probability that an element is dropped, in [0, 1). The rest is divided by
            1 - rate, both to the nearest 1/65536.
        channels: Drop whole channels (the last dimension) of an image.
        axis_name: pmap's axis, over which rows are numbered.

    References:
        Srivastava et al., *Dropout*, JMLR 2014; channels: Tompson et al., CVPR 2015.
    """

    rate: float
    channels: bool = False
    axis_name: str | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "B *d"], train: bool) -> Float[Array, "B *d"]:
        """Drop elements of `x` in training, with the key of the `dropout` stream.

        Raises:
            ValueError: If the rate is not in [0, 1), or training has no key.
        """
        if not 0 <= self.rate < 1:
            raise ValueError(f"a dropout rate is at least 0 and below 1, got {self.rate}")
        if not train or self.rate == 0:
            return x
        if not self.has_rng("dropout"):
            raise ValueError("dropout draws random masks in training: pass a key")
        key, kept = self.make_rng("dropout"), max(round((1 - self.rate) * 2**16), 1)
        rows = jnp.arange(x.shape[0])
        if self.axis_name is not None:
            rows = rows + jax.lax.axis_index(self.axis_name) * x.shape[0]
        if (number := _NUMBERED.get()) is not None:
            rows = number(rows)
        shape = (1,) * (x.ndim - 2) + x.shape[-1:] if self.channels else x.shape[1:]
        size = math.prod(shape)

        def draw(row: Array) -> Array:
            words = jax.random.bits(jax.random.fold_in(key, row), ((size + 1) // 2,), jnp.uint32)
            halves = jax.lax.bitcast_convert_type(words, jnp.uint16).reshape(-1)[:size]
            return (halves <= kept - 1).reshape(shape)  # kept itself may be 65536

        return jnp.where(jax.vmap(draw)(rows), x / (kept / 2**16), jnp.zeros_like(x))
