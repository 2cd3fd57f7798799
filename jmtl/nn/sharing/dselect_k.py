"""DSelect-k: gates that choose at most k of the experts, and are smooth."""

import math
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from jmtl.checks import check_count, check_number
from jmtl.nn.layers import add_penalty
from jmtl.nn.sharing.parts import Experts, Sharing, finish, mixed


def smooth_step(t: Float[Array, "*d"], gamma: float) -> Float[Array, "*d"]:
    """0 below -γ/2, 1 above γ/2, the cubic between that is smooth at both."""
    t = jnp.clip(t / gamma, -0.5, 0.5)
    return 0.5 + t * (1.5 - 2 * t * t)


def selected(z: Float[Array, "*B k m"], experts: int, gamma: float) -> Float[Array, "*B k n"]:
    """How much each of k selectors chooses of each expert, the paper's `r(z)`.

    Expert i is chosen by the digits of i in base 2, digit j being `S(z_j)`.

    Args:
        z: digits of each selector, before the smooth step.
        experts: n, at most 2^m.
        gamma: width of the smooth step.
    """
    digits = smooth_step(z, gamma)
    m = z.shape[-1]
    codes = (np.arange(experts)[:, None] >> np.arange(m)) & 1  # [n, m]
    chosen = jnp.ones((*z.shape[:-1], experts), z.dtype)
    for j in range(m):
        digit = digits[..., j, None]
        code = codes[:, j].reshape((1,) * (z.ndim - 1) + (experts,))
        chosen = chosen * jnp.where(code == 1, digit, 1 - digit)
    return chosen


def entropy(r: Float[Array, "*B k n"]) -> Float[Array, "*B"]:
    """`−Σ r log r` over selectors and experts; 0 log 0 is 0, and so is its gradient."""
    inside = jnp.where(r > 0, r, 1)
    return -(inside * jnp.log(inside)).sum(axis=(-2, -1))


def unreachable(r: Float[Array, "*B k n"]) -> Float[Array, "*B"]:
    """`Σ 1 / Σ_n r` over selectors: what codes that no expert has take away; at most 1000 each."""
    return (1 / jnp.maximum(r.sum(axis=-1), 1e-3)).sum(axis=-1)


class Selecting(nn.Module):
    """A task's selectors and head.

    Attributes:
        experts: n, how many there are.
        k: How many are chosen at most.
        gamma: Width of the smooth step.
        entropy: λ.
        per_example: Whether each example chooses for itself.
        head: From the mixture to the output.
        axis_name: pmap's axis.
    """

    experts: int
    k: int
    gamma: float
    entropy: float
    per_example: bool
    head: nn.Module
    axis_name: str | None = None

    @nn.compact
    def __call__(self, given: tuple[Any, Array], train: bool) -> Array:
        """The task's output, and the penalty."""
        experts, read = given
        digits = math.ceil(math.log2(self.experts))
        alpha = self._logits("alpha", read, (self.k,), 0.05)
        z = self._logits("z", read, (self.k, digits), self.gamma / 100)
        r = selected(z, self.experts, self.gamma)
        weights = (nn.softmax(alpha)[..., None] * r).sum(axis=-2)
        penalty = self.entropy * entropy(r)
        if self.experts < 2**digits:
            penalty = penalty + unreachable(r)
        add_penalty(self, "selection", penalty, train, self.axis_name)
        return finish(self.head, mixed(weights, experts), train)

    def _logits(
        self, name: str, read: Float[Array, "B D"], shape: tuple[int, ...], width: float
    ) -> Float[Array, "..."]:
        def uniform(key: PRNGKeyArray, shape: Any, dtype: Any = jnp.float32) -> Array:
            return jax.random.uniform(key, shape, dtype, -width, width)

        if not self.per_example:
            return self.param(name, uniform, shape)
        size = math.prod(shape)
        dense = nn.Dense(size, kernel_init=uniform, bias_init=uniform, name=name)
        return dense(read).reshape(-1, *shape) if size else jnp.zeros((len(read), *shape))


def dselect_k(
    encoder: nn.Module,
    heads: Mapping[str, nn.Module],
    *,
    experts: int = 4,
    k: int = 2,
    entropy: float = 0.01,
    gamma: float = 1.0,
    per_example: bool = True,
) -> Sharing:
    """A sparse mixture of experts: `y = h(Σ_i q_i f_i(x))`, `q = Σ_j softmax(α)_j r(z_j)`.

    Each of k selectors writes an expert's number in base 2 with digits `S(z)`, a smooth step that
    reaches 0 and 1 (`smooth_step`, `selected`). Per example, α and z are affine in what `mmoe`'s
    gate reads; else they are parameters.

    Each task's loss in training is larger by `λ Ω`, the mean over examples of the selectors'
    entropy, and, where the number of experts is no power of 2, by the mean of
    `Σ_j 1 / Σ_i r(z_j)_i`, which keeps selectors from codes that no expert has. Both reach the
    gradient through `add_penalty` and are in the losses that the training step reports. (A public
    implementation clears the entropy's gradient before the step, and computes it for the last task
    alone; the authors' code sums over the examples of a batch where the paper takes the mean, and
    starts from λ = 1e-6.)

    Shared: the experts. A task's own: its selectors and head. Any encoder.

    Args:
        encoder: What every expert f_i is a copy of.
        heads: h by task.
        experts: How many there are, at least 1.
        k: How many are chosen at most, at least 1.
        entropy: λ, at least 0.
        gamma: The width of the smooth step, positive. z begins in ±γ/100.
        per_example: Whether each example chooses for itself.

    References:
        Hazimeh et al., *DSelect-k: Differentiable Selection in the Mixture of Experts with
        Applications to Multi-Task Learning*, NeurIPS 2021.
    """
    check_count("dselect_k", "experts", experts, 1)
    check_count("dselect_k", "k", k, 1)
    check_number("dselect_k", "entropy", entropy, least=0)
    check_number("dselect_k", "gamma", gamma, above=0)
    own: dict[str, nn.Module] = {
        name: Selecting(experts, k, gamma, entropy, per_example, head)
        for name, head in heads.items()
    }
    return Sharing(Experts(encoder, experts), own)
