"""Krum: the gradient closest to its neighbours. Blanchard et al., NeurIPS 2017, section 4."""

import jax.numpy as jnp
from jaxtyping import Array, Float

from jmtl.checks import check_count, check_tasks
from jmtl.gramian import Gramian
from jmtl.method import Answer, Method, Seen, State, stateless


def distances(gramian: Gramian) -> Float[Array, "K K"]:
    """‖g_i − g_j‖, from ‖g_i − g_j‖² = (d_i − d_j)² + 2 d_i d_j (1 − c_ij).

    The two terms are not negative, so they cannot cancel, and no norm is squared or multiplied by
    another, so none under- or overflows.
    """
    cosine, norms = gramian
    gap = jnp.abs(norms[:, None] - norms[None, :])
    root = jnp.sqrt(norms)
    turn = root[:, None] * root[None, :] * jnp.sqrt(2 * (1 - cosine))
    return jnp.hypot(gap, turn)


def scores(gramian: Gramian, neighbours: int) -> Float[Array, " K"]:
    """The root of the sum of squared distances to the nearest `neighbours` other rows."""
    others = jnp.where(jnp.eye(len(gramian.norms), dtype=bool), jnp.inf, distances(gramian))
    nearest = jnp.sort(others, axis=1)[:, :neighbours]
    # Divided by the largest first: squares vanish in float32 below 1e-23.
    largest = nearest[:, -1:]
    ratio = nearest / jnp.where(largest == 0, 1, largest)
    return largest[:, 0] * jnp.sqrt(jnp.sum(ratio**2, axis=1))


def krum(num_tasks: int, byzantine: int = 0, selected: int = 1) -> Method:
    """Krum: the task gradient with the least sum of squared distances to its nearest ones.

    A robust mean from distributed learning: the score of row i sums the squared distances to its
    K − `byzantine` − 2 nearest others; the update is the mean of the `selected` rows of least score
    (multi-Krum), ties going to the lower index. K backward passes. Invariant to a scale of all
    gradients, discontinuous in them. The paper's guarantee needs K ≥ 2 `byzantine` + 3; public
    implementations count the row itself among its neighbours, or sum distances without squares.

    Args:
        num_tasks: K, at least `byzantine` + 3, so that there is a neighbour.
        byzantine: how many gradients may be arbitrary.
        selected: how many rows to average, 1 to K.

    Returns:
        A Gramian method.

    Raises:
        ValueError: K is too small, or an option outside its range.
    """
    k = check_tasks("krum", num_tasks)
    byzantine = check_count("krum", "byzantine", byzantine, 0)
    if k < byzantine + 3:
        raise ValueError(
            f"krum: byzantine={byzantine} needs num_tasks >= {byzantine + 3}, got {k}: a row is "
            "scored by its num_tasks - byzantine - 2 nearest others"
        )
    selected = check_count("krum", "selected", selected, 1)
    if selected > k:
        raise ValueError(f"krum: selected={selected} of num_tasks={k} rows: give at most {k}")

    def update(seen: Seen, state: State) -> tuple[Answer, State]:
        gram = seen.gramian
        chosen = jnp.argsort(scores(gram, k - byzantine - 2))[:selected]
        weights = jnp.zeros_like(gram.norms).at[chosen].set(1 / selected)
        # A row of NaN is nobody's neighbour and would pass unseen.
        broken = jnp.any(jnp.isnan(gram.norms)) | jnp.any(jnp.isnan(gram.cosine))
        return Answer(jnp.where(broken, jnp.nan, weights)), state

    return Method("krum", k, stateless, update, needs="gramian")
