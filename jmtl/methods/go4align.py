"""Group optimisation for task alignment. Shen et al., GO4Align, NeurIPS 2024."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from jmtl.checks import check_number, check_tasks
from jmtl.method import Answer, Method, Seen, State
from jmtl.products import compute_dtype


class GO4AlignState(NamedTuple):
    """`log_p` `[K]`, normalised: Σ e^{log p} = 1."""

    log_p: Float[Array, " K"]


def cluster_centres(
    values: Float[Array, " K"], clusters: int, present: Bool[Array, " K"]
) -> Float[Array, " K"]:
    """Each value replaced by the centre of its cluster: k-means on a line, exactly.

    On a line clusters are runs of the sorted values, so the least sum of squared distances comes
    from a recurrence over where the last run starts, instead of from a random start and iterations.
    O(clusters K³) operations.

    Args:
        values: `[K]` finite; a value that is not makes all results NaN.
        clusters: how many, >= 1; as many as there are distinct values at most are used.
        present: `[K]` which values count; the others come out as 0.

    Returns:
        `[K]` in the order of `values`.
    """
    k = len(values)
    values = jnp.where(present, values, 0)
    order = jnp.argsort(values)
    largest = jnp.max(jnp.abs(values))
    scale = jnp.where(largest == 0, 1, largest)  # squares stay within the range of the dtype
    ordered = values[order] / scale
    starts, ends, at = np.ogrid[: k + 1, : k + 1, :k]
    inside = (starts <= at) & (at < ends)
    counted = inside & jnp.broadcast_to(present[order], inside.shape)
    size = jnp.maximum(jnp.sum(counted, axis=-1), 1)
    # Of the run of sorted values start … end − 1: its mean, the sum of squared distances to it.
    members = jnp.broadcast_to(ordered, inside.shape)
    mean = jnp.sum(jnp.where(counted, members, 0), axis=-1) / size.astype(values.dtype)
    spread = jnp.sum(jnp.where(counted, members - mean[..., None], 0) ** 2, axis=-1)
    spread = jnp.where(starts[..., 0] <= ends[..., 0], spread, jnp.inf)
    # cost[j], centres[j]: the best that one run, then one more, makes of the first j values.
    cost, centres = spread[0], jnp.broadcast_to(mean[0][:, None], (k + 1, k))
    for _ in range(clusters - 1):
        total = cost[:, None] + spread
        last = jnp.argmin(total, axis=0)
        cost = jnp.min(total, axis=0)
        own = mean[last, np.arange(k + 1)]
        centres = jnp.where(at[0] >= last[:, None], own[:, None], centres[last])
    return jnp.where(present, jnp.zeros_like(values).at[order].set(scale * centres[k]), 0)


def go4align(num_tasks: int, eta: float = 1e-4, clusters: int | None = None) -> Method:
    """GO4Align: p ← norm(p e^{−ηL}); w_i = p_i ΣL / L_i; w_i ← the centre of its cluster.

    p starts at 1/K, and moves before it is used, as in the authors' code. Tasks of one cluster
    share a weight. One backward pass. The authors' code clusters by k-means from a random start;
    here the optimum is found, see `cluster_centres`.

    A loss of 0, of a task without labels in the batch or with nothing left to learn, has no weight
    in this formula: it gets 0 and belongs to no cluster (p treats it as any loss). Losses of mixed
    sign give weights of mixed sign. A single task has weight 1.

    Args:
        num_tasks: K.
        eta: η, the step of log p, in the inverse units of the losses; >= 0.
        clusters: in 1 … K; min(2, K) where None.

    Returns:
        A loss method.

    Raises:
        ValueError: an option out of its range, `num_tasks` below 1.
    """
    k = check_tasks("go4align", num_tasks)
    check_number("go4align", "eta", eta, least=0)
    count = min(2, k) if clusters is None else clusters
    if isinstance(count, bool) or not isinstance(count, int) or not 1 <= count <= k:
        raise ValueError(f"go4align: clusters must be a whole number in 1 … {k}, got {clusters!r}")

    def init(shared_params: State) -> GO4AlignState:
        dtype = compute_dtype(shared_params)
        return GO4AlignState(jax.nn.log_softmax(jnp.zeros(k, dtype)))

    def update(seen: Seen, state: GO4AlignState) -> tuple[Answer, GO4AlignState]:
        dtype = state.log_p.dtype
        losses = seen.losses.astype(dtype)
        log_p = jax.nn.log_softmax(state.log_p - eta * losses).astype(dtype)
        if k == 1:
            return Answer(jnp.ones_like(losses)), GO4AlignState(log_p)
        present = losses != 0
        weights = jnp.exp(log_p) * (jnp.sum(losses) / jnp.where(present, losses, 1))
        return Answer(cluster_centres(weights, count, present)), GO4AlignState(log_p)

    return Method("go4align", k, init, update, needs="losses", uses_losses=True)
