"""A batch in microbatches: the stack of task gradients accumulates, then surgery is done once.

Microbatch i of N has the rows i, i + N, i + 2N, … of the batch, so that a device's rows lie in the
same ones however the batch is spread. One program scans them; its activations are those of one.

- Losses are shares of the whole batch's means (`task_losses` divides by its counts of labels), so
  they and their gradients add up to those of the whole, however labels lie on the microbatches.
- Dropout's rows are numbered in the whole batch: the masks are those of one step on all of it.
- Batch norm takes its statistics over a microbatch, as everywhere in the field: with it the
  gradients are others than those of the whole batch.
- Model state: every microbatch begins with the step's; what is floating point (running statistics,
  penalties) is averaged over them, so it moves once a step.

What is kept is K gradients for a method that sees them, or their Gramian, and one for a method
that weighs losses. A loss method that reads them takes one more forward pass, as their sum must be
known before the first backward pass is weighted.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float

from jmtl.gradients import (
    At,
    Encoded,
    Result,
    Strategy,
    check_unshared,
    device_mean,
    gramian_at_representation,
    no_gramian,
    value_and_task_grads,
)
from jmtl.gradients import value_and_grads as of_whole
from jmtl.gramian import Gramian, TaskGrads, combine, cross_products, from_products, gramian
from jmtl.method import Method, Seen, State, respond
from jmtl.nn import numbered_rows
from jmtl.products import Products, add_products

Arguments = Sequence[Any]
"""(batch, *rest): the leaves of the batch `[B, ...]`; the rest is alike for all microbatches."""


def value_and_grads(
    fun: Encoded,
    method: Method,
    names: Sequence[str],
    microbatches: int,
    *,
    strategy: Strategy = "auto",
    at: At = "parameters",
    axis_name: str | None = None,
) -> Callable[..., Result]:
    """`jmtl.value_and_grads` with `split` and `has_aux`, of a batch in microbatches.

    Args:
        fun: `(shared, tasks, batch, *rest) -> (losses, aux)` of a microbatch: a tuple of K losses
            that add up over microbatches to those of the batch, and the model state.
        method: any method.
        names: K names, the keys of `tasks`; what lies there is reached by that loss alone.
        microbatches: N; it divides B.
        strategy: as there, but for "recompute".
        at: as there. Examples are not shared between microbatches, so their Gramians at the
            representation add up.
        axis_name: as there.

    Returns:
        `(method_state, shared, tasks, batch, *rest) -> Result`.

    Raises:
        ValueError: as there; "recompute" for a method that sees task gradients.
    """
    if strategy == "recompute" and method.needs != "losses" and at == "parameters":
        raise ValueError(
            "strategy='recompute' keeps no task gradients, and microbatches add theirs up before "
            "they are contracted (Gramians do not add): use 'auto', 'unroll' or 'vmap'"
        )
    options: Any = {"has_aux": True, "split": True, "strategy": strategy, "at": at}
    of_whole(fun, method, **options)  # refuses what does not fit

    def run(state: State, shared: Any, tasks: Any, *args: Any) -> Result:
        def share(i: int) -> Arguments:
            return tuple(jax.tree.map(lambda x: x[i], args))

        def stack(args: Arguments) -> Any:
            return task_grads(fun, microbatches, shared, tasks, args, strategy, axis_name)

        last = args if method.batches == 1 else share(method.batches - 1)
        values: Any = None
        gram: Any = None
        cross: Any = None
        grads: Any = None
        if not jax.tree.leaves(shared):
            check_unshared(method)
            gram = None if method.needs == "losses" else no_gramian(len(names))
        elif method.batches > 1:
            (_, first, _), _ = stack(share(0))
            (_, second, _), _ = stack(share(1))
            gram, cross = gramian(first), cross_products(first, second)
        elif method.needs != "losses" and at == "representation":
            gram = _at_representation(fun, microbatches, shared, tasks, args, axis_name)
        elif method.needs != "losses":
            (values, grads, own), aux = stack(args)
            gram = gramian(grads)
        if values is None and method.uses_losses:
            values = losses(fun, microbatches, shared, tasks, last, axis_name)
        seen = jnp.full(len(names), jnp.nan) if values is None else values
        answer, state = respond(method, Seen(seen, gram, cross, grads), state)

        if grads is None:
            weigh = (answer.weights, answer.heads)
            (values, gradient), aux = _weighted(
                fun, microbatches, shared, tasks, last, weigh, axis_name
            )
        else:
            whole = answer.gradient
            whole = combine(grads, answer.weights) if whole is None else whole
            gradient = whole, _scaled(own, names, answer.heads)
        return Result(values, gradient, answer.weights, answer.residual, gram, state, aux)

    return run


def losses(
    fun: Encoded,
    microbatches: int,
    shared: Any,
    tasks: Any,
    args: Arguments,
    axis_name: str | None = None,
) -> Float[Array, " K"]:
    """The losses of a batch `[K]`, over all devices; arguments as of `value_and_grads`."""

    def one(*args: Any) -> tuple[Any, Any]:
        values, _ = fun(shared, tasks, *args)
        return jnp.stack(values), None

    total, _ = one(*args) if microbatches == 1 else _scanned(one, args, microbatches)
    return device_mean(total, axis_name)


def gramian_of(
    fun: Encoded,
    microbatches: int,
    shared: Any,
    tasks: Any,
    args: Arguments,
    axis_name: str | None = None,
) -> Gramian:
    """The Gramian of a batch's task gradients; arguments as of `value_and_grads`."""
    (values, grads, _), _ = task_grads(fun, microbatches, shared, tasks, args, axis_name=axis_name)
    return gramian(grads) if jax.tree.leaves(grads) else no_gramian(len(values))


def task_grads(
    fun: Encoded,
    microbatches: int,
    shared: Any,
    tasks: Any,
    args: Arguments,
    strategy: Strategy = "auto",
    axis_name: str | None = None,
) -> tuple[tuple[Float[Array, " K"], TaskGrads, Any], Any]:
    """((losses `[K]`, leaves `[K, ...]`, gradients of Σ L_i for `tasks`), model state) of a batch.

    Arguments are those of `value_and_grads`, and so is the mean over devices.
    """
    of_part = value_and_task_grads(fun, has_aux=True, split=True, strategy=strategy)

    def one(*args: Any) -> tuple[Any, Any]:
        (values, aux), (grads, own) = of_part(shared, tasks, *args)
        return ((values, grads, own), aux), None

    (sums, aux), _ = _scanned(one, args, microbatches)
    return device_mean(sums, axis_name), _averaged(aux, microbatches)


def _weighted(
    fun: Encoded,
    microbatches: int,
    shared: Any,
    tasks: Any,
    args: Arguments,
    weigh: tuple[Array, Array],
    axis_name: str | None,
) -> tuple[tuple[Any, tuple[Any, Any]], Any]:
    """((losses, gradients), model state): weights of losses for `shared`, and for `tasks`."""

    def one(*args: Any) -> tuple[Any, Any]:
        values, pullback, aux = jax.vjp(lambda *p: fun(*p, *args), shared, tasks, has_aux=True)
        along = [
            pullback(tuple(w.astype(x.dtype) for w, x in zip(weights, values, strict=True)))
            for weights in weigh
        ]
        return ((jnp.stack(values), (along[0][0], along[1][1])), aux), None

    (sums, aux), _ = _scanned(one, args, microbatches)
    return device_mean(sums, axis_name), _averaged(aux, microbatches)


def _at_representation(
    fun: Encoded,
    microbatches: int,
    shared: Any,
    tasks: Any,
    args: Arguments,
    axis_name: str | None,
) -> Gramian:
    def one(*args: Any) -> tuple[Any, Gramian]:
        return (), gramian_at_representation(fun, (shared, tasks), args, True, axis_name)

    _, (cosine, norms) = _scanned(one, args, microbatches)
    return from_products(add_products([Products(cosine, norms, norms)]))


def _scanned(
    one: Callable[..., tuple[Any, Any]], args: Arguments, microbatches: int
) -> tuple[Any, Any]:
    """The sum over microbatches of the first thing that `one` gives, and the others, stacked.

    What is no floating point is not summed: the last microbatch's counts.
    """
    batch, *rest = args
    for rows in {x.shape[0] for x in jax.tree.leaves(batch)}:
        if rows % microbatches:
            raise ValueError(f"{rows} rows do not divide into {microbatches} microbatches")

    def part(batch: Any, i: Any) -> tuple[Any, Any]:
        with numbered_rows(lambda rows: rows * microbatches + i):
            return one(batch, *rest)

    def body(total: Any, given: Any) -> tuple[Any, Any]:
        added, kept = part(*given)
        return jax.tree.map(_plus, total, added), kept

    cut = jax.tree.map(
        lambda x: jnp.moveaxis(x.reshape(-1, microbatches, *x.shape[1:]), 1, 0), batch
    )
    like, _ = jax.eval_shape(part, jax.tree.map(lambda x: x[0], cut), jnp.int32(0))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), like)
    return lax.scan(body, zeros, (cut, jnp.arange(microbatches)))


def _plus(total: Array, added: Array) -> Array:
    floating = jnp.issubdtype(total.dtype, jnp.floating)
    return total + added if floating else jnp.asarray(added, total.dtype)


def _averaged(sums: Any, microbatches: int) -> Any:
    return jax.tree.map(
        lambda x: x / microbatches if jnp.issubdtype(x.dtype, jnp.floating) else x, sums
    )


def _scaled(own: Any, names: Sequence[str], heads: Float[Array, " K"]) -> Any:
    """The gradient of each task's own parameters, times what the method multiplies it by."""
    factors: Mapping[str, Array] = dict(zip(names, heads, strict=True))
    return {
        name: jax.tree.map(lambda x, name=name: x * factors[name].astype(x.dtype), grads)
        for name, grads in own.items()
    }
