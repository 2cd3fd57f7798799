"""What a training run carries from step to step."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Int, PRNGKeyArray

from jmtl.method import Method, named_key
from jmtl.nn import Model
from jmtl.packing import packed


class TrainState(NamedTuple):
    """The state of one run; everything that a checkpoint holds.

    Attributes:
        step: `[]` updates done, and the position in the data: step t reads global batch t.
        params: {"shared": ..., "tasks": {name: ...}}.
        model_state: running statistics, by the same two keys.
        opt_state: optax's, over `params`.
        method_state: the method's.
        key: of the run; step t draws from fold_in(key, t).
        failed: `[2]` (step, task) where something first was not finite, (-1, -1) while all is. From
            there on the step changes nothing. `task` is K where no single task is to blame.
    """

    step: Int[Array, ""]
    params: Any
    model_state: Any
    opt_state: Any
    method_state: Any
    key: PRNGKeyArray
    failed: Int[Array, "2"]


def init_state(
    key: PRNGKeyArray,
    model: Model,
    method: Method,
    optimizer: optax.GradientTransformation,
    inputs: Any,
) -> TrainState:
    """The state before the first step.

    Args:
        key: of the run. Parameters, steps and the method's own constructor key are independent.
        model: the model.
        method: the method.
        optimizer: over {"shared", "tasks"}.
        inputs: `[B, ...]` an example batch, for shapes.

    Returns:
        The state; under `jit` and `vmap` over keys too.
    """
    return fresh_state(key, *init_params(key, model, inputs), method, optimizer)


def init_params(key: PRNGKeyArray, model: Model, inputs: Any) -> tuple[Any, Any]:
    """`init_state`'s parameters and running statistics: the same whatever the method."""
    return model.init(named_key(key, "init"), inputs)


def fresh_state(
    key: PRNGKeyArray,
    params: Any,
    model_state: Any,
    method: Method,
    optimizer: optax.GradientTransformation,
) -> TrainState:
    """`init_state` with parameters at hand."""
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        model_state=model_state,
        opt_state=optimizer.init(params),
        method_state=method.init(params["shared"]),
        key=named_key(key, "steps"),
        failed=jnp.full((2,), -1, jnp.int32),
    )


def all_finite(tree: Any) -> Bool[Array, ""]:
    """`[]` whether every floating-point number in the tree is finite."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(leaf.dtype, jnp.floating)]
    return all_true([jnp.all(jnp.isfinite(leaf)) for leaf in packed(leaves)])


def all_true(flags: Sequence[Bool[Array, ""]]) -> Bool[Array, ""]:
    """`[]` whether all N flags are true; one number to whatever reads it.

    XLA makes `jnp.all` of N scalars a chain of N `and`, and fuses the chain into every consumer.
    Where these are the N leaves of a state, N² instructions were compiled: for attention on six
    tasks (N = 1,660) more than nine minutes, and 52 s of processor this way (jax 0.10).
    """
    # The place of the first False of N + 1.
    return jnp.argmin(jnp.stack([*flags, jnp.asarray(False)])) == len(flags)
