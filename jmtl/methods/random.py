"""Random loss weighting. Lin, Ye, Zhang, Tsang, TMLR 2022, §3."""

from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Int, PRNGKeyArray

from jmtl.checks import check_choice, check_key, check_tasks
from jmtl.method import Answer, Method, Seen, State, named_key


class RandomState(NamedTuple):
    """`key` draws the weights; `step` `[]` counts updates. The draw is of fold_in(key, step)."""

    key: PRNGKeyArray
    step: Int[Array, ""]


def random(
    num_tasks: int,
    key: PRNGKeyArray | None = None,
    distribution: Literal["normal", "dirichlet"] = "normal",
) -> Method:
    """Random loss weighting (RLW): Σ w_i L_i with w drawn anew each step, Σ w_i = 1.

    w = softmax(z) with z standard normal, or w uniform on the simplex (Dirichlet of ones). One
    backward pass. Some public implementations multiply by K; the paper, TorchJD and this one do
    not.

    Args:
        num_tasks: K.
        key: draws the weights; needed.
        distribution: "normal" or "dirichlet".

    Returns:
        A loss method; it does not read the losses.

    Raises:
        ValueError: no key, an unknown `distribution`, `num_tasks` below 1.
    """
    k = check_tasks("random", num_tasks)
    check_choice("random", "distribution", distribution, ("normal", "dirichlet"))
    if key is None:
        raise ValueError("random needs a key, as key=jax.random.key(0)")
    check_key("random", key)

    def init(shared_params: State) -> RandomState:
        del shared_params
        return RandomState(named_key(key, "random"), jnp.zeros((), jnp.int32))

    def update(seen: Seen, state: RandomState) -> tuple[Answer, RandomState]:
        del seen
        step_key = jax.random.fold_in(state.key, state.step)
        if distribution == "normal":
            weights = jax.nn.softmax(jax.random.normal(step_key, (k,)))
        else:
            weights = jax.random.dirichlet(step_key, jnp.ones(k))
        return Answer(weights), RandomState(state.key, state.step + 1)

    return Method("random", k, init, update, needs="losses")
