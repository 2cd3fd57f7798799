"""Losses and task gradients of any function, and the cheapest way to a method's update.

How K gradients are computed is a *strategy*:

- ``"unroll"``: K backward passes written out in one program; stacked for methods that see them.
- ``"vmap"``: one backward pass batched over K cotangents, stacked.
- ``"recompute"`` (Gramian methods in `value_and_grads`): K backward passes, contracted leaf by leaf
  into the Gramian and let go, then one backward pass weighted by the method's answer.
- ``"auto"``: "recompute" for a Gramian method whose stack would pass `STACK_BYTES`, else "unroll".

Measured by `python -m experiments speed` on 2 CPU cores with jax 0.10.2, medians of interleaved
repeats; a whole PCGrad step as a multiple of the equal-weights step, and MB of temporaries and
outputs, the new state among them. No GPU was measured.

| model, batch        | K | equal weights   | unroll         | vmap           | recompute      |
|---------------------|---|-----------------|----------------|----------------|----------------|
| MLP 128-64, 128     | 2 | 0.25 ms, 0.7 MB | 1.86,   0.8 MB | 2.75,   1.0 MB | 2.06,   0.8 MB |
|                     | 8 | 0.31 ms, 0.9 MB | 2.57,   1.4 MB | 4.65,   3.5 MB | 3.14,   1.5 MB |
| LeNet 28×28, 256    | 2 |   10 ms,  24 MB | 1.72,    29 MB | 3.58,    42 MB | 2.44,    35 MB |
|                     | 8 |   13 ms,  24 MB | 5.13,    67 MB | 11.6,   131 MB | 4.96,    73 MB |
| MLP of 12 × 512, 64 | 2 |   15 ms,  77 MB | 1.59,    82 MB | 2.17,    82 MB | 1.49,    77 MB |
|                     | 3 |   13 ms,  77 MB | 2.00,    82 MB | 2.87,    82 MB | 1.96,    77 MB |
|                     | 8 |   14 ms,  77 MB | 4.13,   141 MB | 6.16,   148 MB | 3.67,    77 MB |
| ResNet-18 32×32, 16 | 3 |  510 ms, 569 MB | 1.94,   581 MB | 4.59,   650 MB | 2.20,   574 MB |
|                     | 8 |  501 ms, 570 MB | 3.89,   828 MB |       1,050 MB | 4.35,   632 MB |

Recomputing costs one more backward pass and keeps no gradient of a task. The times of the MLP
128-64, LeNet and ResNet-18 are from before their steps were made faster; newer ones of some of them
are in experiments/results/speed.
"""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.interpreters import ad
from jaxtyping import Array, Float

from jmtl.checks import check_choice
from jmtl.gramian import (
    Gramian,
    TaskGrads,
    combine,
    combine_rows,
    cross_products,
    row_gramian,
)
from jmtl.gramian import gramian as gramian_of
from jmtl.method import Answer, Method, Seen, State, check_losses, respond
from jmtl.products import compute_dtype

Strategy = Literal["auto", "vmap", "unroll", "recompute"]
At = Literal["parameters", "representation"]
STRATEGIES: tuple[Strategy, ...] = ("auto", "vmap", "unroll", "recompute")

STACK_BYTES = 2**24
"""The largest stack of task gradients that "auto" stores for a Gramian method."""


class Encoded(NamedTuple):
    """A function of losses in two stages, so that gradients can be taken at what lies between.

    Called as a whole it is `(shared, tasks, *args) -> losses`.

    Attributes:
        encode: `(shared, *args) -> (representation, carried)`: a pytree of arrays that the tasks'
            losses are differentiated at, and anything else that they need (new batch statistics).
        losses: `(tasks, representation, carried, *args) -> losses`, or `(losses, aux)`.
    """

    encode: Callable[..., tuple[Any, Any]]
    losses: Callable[..., Any]

    def __call__(self, shared: Any, tasks: Any, *args: Any) -> Any:
        """The losses, as `losses` returns them."""
        representation, carried = self.encode(shared, *args)
        return self.losses(tasks, representation, carried, *args)


Losses = Callable[..., Any] | Encoded  # mypy takes no NamedTuple with __call__ for a Callable


class Result(NamedTuple):
    """What `value_and_grads` returns.

    Attributes:
        losses: `[K]` global.
        gradient: like the shared parameters; with `split`, a pair (shared, tasks).
        weights: `[K]` the method's, NaN where it has none.
        residual: `[]` the method's.
        gramian: of the task gradients where the way taken has them, else None.
        state: the method's next state.
        aux: the function's, with `has_aux`; else None.
    """

    losses: Float[Array, " K"]
    gradient: Any
    weights: Float[Array, " K"]
    residual: Float[Array, ""]
    gramian: Gramian | None
    state: State
    aux: Any


class _Pulled(NamedTuple):
    """One linearisation: the losses `[K]` and ways back from them.

    Attributes:
        losses: `[K]`.
        one: `i -> gradients` of loss i with respect to every primal.
        weighted: `weights [K] -> gradients` of their weighted sum.
        batched: `() -> gradients`, leaves `[K, ...]`, of all losses by one batched backward pass.
        aux: the function's.
    """

    losses: Float[Array, " K"]
    one: Callable[[int], Any]
    weighted: Callable[[Array], Any]
    batched: Callable[[], Any]
    aux: Any


def _checked(losses: Any) -> tuple[bool, int]:
    """Whether the losses are one array, and K; anything but K scalars is refused."""
    if isinstance(losses, (tuple, list)):
        shapes = [getattr(loss, "shape", type(loss).__name__) for loss in losses]
        if not shapes or any(shape != () for shape in shapes):
            raise ValueError(
                f"losses: expected K scalars, got a sequence of shapes {shapes} "
                "(for a function that returns (losses, aux), pass has_aux=True)"
            )
        kinds = [jnp.result_type(loss) for loss in losses]
        stacked, k = False, len(shapes)
    elif not isinstance(losses, jax.Array):
        raise ValueError(
            f"losses are a {type(losses).__name__}: expected an array [K] or a tuple of K scalars"
        )
    else:
        if jnp.ndim(losses) != 1 or jnp.size(losses) == 0:
            raise ValueError(
                f"losses have shape {jnp.shape(losses)}: expected [K], one scalar a task "
                "(jnp.stack the tasks' losses, or return a tuple of K scalars)"
            )
        kinds = [jnp.result_type(losses)]
        stacked, k = True, jnp.shape(losses)[0]
    if not all(jnp.issubdtype(kind, jnp.floating) for kind in kinds):
        raise ValueError(f"losses have dtype {kinds[0]}: expected floating point")
    return stacked, k


def _pull(fun: Callable[..., Any], primals: tuple[Any, ...], has_aux: bool) -> _Pulled:
    """Run `fun(*primals) -> losses` (or `(losses, aux)`) and keep its pullback."""

    def with_aux(*primals: Any) -> tuple[Any, Any]:
        out = fun(*primals)
        if has_aux and not (isinstance(out, tuple) and len(out) == 2):
            raise ValueError(
                f"has_aux=True: expected (losses, aux), got a {type(out).__name__} "
                "(a function that returns losses alone takes has_aux=False)"
            )
        losses, aux = out if has_aux else (out, None)
        return (tuple(losses) if isinstance(losses, list) else losses), aux

    losses, pullback, aux = jax.vjp(with_aux, *primals, has_aux=True)
    stacked, k = _checked(losses)
    if stacked:
        dtype = losses.dtype
        eye = jnp.eye(k, dtype=dtype)
        return _Pulled(
            losses,
            one=lambda i: pullback(eye[i]),
            weighted=lambda weights: pullback(weights.astype(dtype)),
            batched=lambda: jax.vmap(pullback)(eye),
            aux=aux,
        )

    def one(i: int) -> Any:
        # Symbolic zeros: the backward pass of loss i does not enter the other tasks' heads.
        return pullback(
            tuple(
                jnp.ones_like(loss) if j == i else ad.Zero(jax.typeof(loss))
                for j, loss in enumerate(losses)
            )
        )

    return _Pulled(
        jnp.stack(losses),
        one=one,
        weighted=lambda weights: pullback(
            tuple(w.astype(loss.dtype) for w, loss in zip(weights, losses, strict=True))
        ),
        batched=lambda: jax.vmap(pullback)(
            tuple(jnp.eye(k, dtype=loss.dtype)[i] for i, loss in enumerate(losses))
        ),
        aux=aux,
    )


def device_mean(tree: Any, axis_name: str | None) -> Any:
    """The mean over the devices of a `pmap`; the tree itself where there is no axis."""
    return tree if axis_name is None else lax.pmean(tree, axis_name)


def _check_strategy(strategy: Strategy, stores: bool) -> None:
    check_choice("value_and_grads", "strategy", strategy, STRATEGIES)
    if strategy == "recompute" and stores:
        raise ValueError(
            "strategy='recompute' keeps no task gradients, and these are asked for: "
            "use 'unroll', 'vmap' or 'auto'"
        )


def _recomputes(strategy: Strategy, params: Any, k: int) -> bool:
    """Whether a Gramian method's gradients are computed twice instead of stored."""
    if strategy != "auto":
        return strategy == "recompute"
    stack = k * sum(jnp.size(x) * jnp.result_type(x).itemsize for x in jax.tree.leaves(params))
    return stack > STACK_BYTES


def _stack(pulled: _Pulled, strategy: Strategy, axis_name: str | None) -> TaskGrads:
    """Task gradients of the first primal, leaves `[K, ...]`, averaged over devices."""
    if strategy == "vmap":
        return device_mean(pulled.batched()[0], axis_name)
    return jax.tree.map(lambda *row: jnp.stack(row), *_rows_of(pulled, axis_name))


def value_and_task_grads(
    fun: Losses,
    has_aux: bool = False,
    split: bool = False,
    strategy: Strategy = "auto",
) -> Callable[..., tuple[Any, Any]]:
    """Like `jax.value_and_grad`, for a function of K losses: all K gradients, stacked.

    Args:
        fun: `(params, *args) -> losses`: K losses as an array `[K]`, or as a tuple of K scalars
            (then the backward pass of one loss skips what only other losses use); with `split`,
            `(shared, tasks, *args) -> losses`.
        has_aux: whether `fun` returns `(losses, aux)`.
        split: whether the first two arguments are shared and task parameters. The gradients are
            then a pair: stacked for the shared parameters, plain (of Σ L_i) for the tasks' own.
        strategy: "unroll", "vmap", or "auto", which is "unroll" here.

    Returns:
        A function of the same arguments that returns `(losses, gradients)`, or
        `((losses, aux), gradients)`: losses `[K]`, gradients with leaves `[K, ...]`.

    Raises:
        ValueError: losses that are not K scalars; `strategy="recompute"`, which keeps no stack.
    """
    _check_strategy(strategy, stores=True)

    def run(*args: Any) -> tuple[Any, Any]:
        primals, rest = (args[:2], args[2:]) if split else (args[:1], args[1:])
        pulled = _pull(lambda *p: fun(*p, *rest), primals, has_aux)
        grads = _stack(pulled, strategy, None)
        if split:
            grads = (grads, pulled.weighted(jnp.ones_like(pulled.losses))[1])
        return ((pulled.losses, pulled.aux) if has_aux else pulled.losses), grads

    return run


def no_gramian(k: int, dtype: Any = jnp.float32) -> Gramian:
    """The Gramian of K task gradients with respect to nothing."""
    return Gramian(jnp.zeros((k, k), dtype), jnp.zeros((k,), dtype))


def _rows_of(pulled: _Pulled, axis_name: str | None) -> list[Any]:
    """K gradients of the first primal, averaged over devices."""
    return [device_mean(pulled.one(i)[0], axis_name) for i in range(len(pulled.losses))]


def value_and_gramian(
    fun: Losses, has_aux: bool = False, axis_name: str | None = None
) -> Callable[..., tuple[Any, Gramian]]:
    """The losses and the Gramian of their gradients, without a stack of gradients.

    K backward passes, contracted leaf by leaf: what measures of conflict start from.

    Args:
        fun: as for `value_and_task_grads`, differentiated with respect to its first argument.
        has_aux: whether `fun` returns `(losses, aux)`.
        axis_name: as for `value_and_grads`.

    Returns:
        A function of the same arguments: `(losses [K], Gramian)` or `((losses, aux), Gramian)`.
    """

    def run(params: Any, *args: Any) -> tuple[Any, Gramian]:
        pulled = _pull(lambda p: fun(p, *args), (params,), has_aux)
        losses = device_mean(pulled.losses, axis_name)
        rows = _rows_of(pulled, axis_name)
        if jax.tree.leaves(rows):
            gram = row_gramian(rows)
        else:
            gram = no_gramian(len(losses), compute_dtype(losses))
        return ((losses, pulled.aux) if has_aux else losses), gram

    return run


def value_and_grads(
    fun: Losses,
    method: Method,
    *,
    has_aux: bool = False,
    split: bool = False,
    strategy: Strategy = "auto",
    at: At = "parameters",
    axis_name: str | None = None,
) -> Callable[..., Result]:
    """The losses and the method's one gradient, by the cheapest way that the method allows.

    - A loss method takes one forward pass and one weighted backward pass.
    - A Gramian method takes K backward passes for the Gramian; then, with "recompute", one weighted
      backward pass (memory of one gradient), or with "unroll" and "vmap" a combination of the
      stored stack.
    - A method that needs the gradients takes the stack.
    - A method of three batches takes stacks of the first two, and one weighted backward pass of the
      third.
    - Where there are no shared parameters (independent networks), Gramian methods see zeros.

    The tasks' own parameters take one weighted backward pass of their own, whatever K is.

    Args:
        fun: as for `value_and_task_grads`; an `Encoded` where `at="representation"`.
        method: any method.
        has_aux: whether `fun` returns `(losses, aux)`.
        split: whether the first two arguments of `fun` are shared and task parameters; surgery sees
            the shared ones alone.
        strategy: how task gradients are computed, see the module.
        at: "parameters", exact; or "representation": Gramian methods see the Gramian of the
            gradients at what `Encoded.encode` returns, so the encoder takes one backward pass
            (MGDA-UB, Sener & Koltun 2018, §3.3).
        axis_name: the axis of a `pmap` over which each device holds a share of the batch. `fun`
            returns losses whose *mean* over devices is the global loss; losses and gradients are
            averaged before the method sees them (surgery is not linear). Inside `shard_map` with
            replicated parameters leave it None: there JAX has summed the gradients already.

    Returns:
        `(method_state, params, *args) -> Result`, or `(method_state, shared, tasks, *args)` with
        `split`. Where the method takes several batches, every array in `args` has a leading axis
        of `method.batches`.

    Raises:
        ValueError: losses that are not `[num_tasks]`; `at="representation"` without `split`, of a
            function that is not `Encoded`, or of a method that needs the gradients or several
            batches; `strategy="recompute"` for a method that needs the gradients; no shared
            parameters for a method that needs their gradients or whose weights scale the tasks'
            own.
    """
    check_choice("value_and_grads", "at", at, ("parameters", "representation"))
    k = method.num_tasks
    stores = method.needs == "gradients" or method.batches > 1
    _check_strategy(strategy, stores)
    if at == "representation" and method.needs != "losses":
        if not (split and isinstance(fun, Encoded)):
            raise ValueError(
                "at='representation' needs split=True and fun=jmtl.Encoded(encode, losses)"
            )
        if stores:
            raise ValueError(
                f"at='representation' serves methods of one Gramian; {method.name} needs "
                + (f"{method.batches} batches" if method.batches > 1 else "the gradients")
            )

    def run(state: State, *args: Any) -> Result:
        primals, rest = (args[:2], args[2:]) if split else (args[:1], args[1:])

        def pull(batch: Sequence[Any]) -> _Pulled:
            pulled = _pull(lambda *p: fun(*p, *batch), primals, has_aux)
            check_losses(method, pulled.losses)
            return pulled

        def stack(pulled: _Pulled) -> TaskGrads:
            return _stack(pulled, strategy, axis_name)

        def share(i: int) -> tuple[Any, ...]:
            return tuple(jax.tree.map(lambda x: x[i], rest))

        if method.batches > 1:
            _check_batches(method, rest)
        unshared = not jax.tree.leaves(primals[0])
        if unshared:
            check_unshared(method)
        gram: Any = None
        cross: Any = None
        rows: Any = None
        grads: Any = None
        if method.batches == 1:
            pulled = pull(rest)
            if method.needs == "losses":
                pass
            elif at == "representation":
                assert isinstance(fun, Encoded)
                gram = gramian_at_representation(fun, primals, rest, has_aux, axis_name)
            elif unshared:
                gram = no_gramian(k, compute_dtype(pulled.losses))
            elif method.needs == "gramian" and strategy != "vmap":
                rows = _rows_of(pulled, axis_name)
                gram = row_gramian(rows)
                if _recomputes(strategy, primals[0], k):
                    rows = None
            else:
                grads = stack(pulled)
                gram = gramian_of(grads)
        else:
            first, second = (stack(pull(share(i))) for i in range(2))
            gram, cross = gramian_of(first), cross_products(first, second)
            pulled = pull(share(method.batches - 1))

        losses = device_mean(pulled.losses.astype(compute_dtype(pulled.losses)), axis_name)
        answer, state = respond(method, Seen(losses, gram, cross, grads), state)
        gradient = _gradient(pulled, answer, grads, rows, split, axis_name)
        return Result(losses, gradient, answer.weights, answer.residual, gram, state, pulled.aux)

    return run


def check_unshared(method: Method) -> None:
    """Refuse a method that acts on the gradients of shared parameters where there are none."""
    acts = method.needs == "gradients" or method.batches > 1 or method.scales_heads
    if acts and method.needs != "losses":
        raise ValueError(
            f"{method.name} acts on the gradients of shared parameters, and there are none: "
            "use a method that weighs losses, as equal"
        )


def _check_batches(method: Method, args: Sequence[Any]) -> None:
    """Refuse arguments whose leading axes are not the method's number of batches."""
    for x in jax.tree.leaves(args):
        if jnp.shape(x)[:1] != (method.batches,):
            given = f"a leading axis of {x.shape[0]}" if jnp.ndim(x) else "none"
            raise ValueError(
                f"{method.name} takes {method.batches} batches a step: every array in its "
                f"arguments needs a leading axis of {method.batches}, one has {given}"
            )


def _gradient(
    pulled: _Pulled,
    answer: Answer,
    grads: TaskGrads | None,
    rows: Sequence[Any] | None,
    split: bool,
    axis_name: str | None,
) -> Any:
    """The update: the answer's own gradient, a combination of those kept, or a weighted pass."""
    if answer.gradient is not None:
        shared = answer.gradient
    elif grads is not None:
        shared = combine(grads, answer.weights)
    elif rows is not None:
        shared = combine_rows(rows, answer.weights)
    else:
        pulled_back = pulled.weighted(answer.weights)
        if split and answer.heads is answer.weights:
            return device_mean(pulled_back, axis_name)
        shared = device_mean(pulled_back[0], axis_name)
    if not split:
        return shared
    # Under jit the part of this pass that only the shared parameters need is dead code.
    return shared, device_mean(pulled.weighted(answer.heads)[1], axis_name)


def gramian_at_representation(
    fun: Encoded,
    primals: tuple[Any, ...],
    rest: Sequence[Any],
    has_aux: bool,
    axis_name: str | None,
) -> Gramian:
    """The Gramian of the losses' gradients at the representation.

    Devices hold different examples, so products of the shares add up: with losses averaged over N
    devices, every share counts 1/N.
    """
    shared, tasks = primals
    representation, carried = fun.encode(shared, *rest)
    pulled = _pull(lambda z: fun.losses(tasks, z, carried, *rest), (representation,), has_aux)
    grads = _stack(pulled, "unroll", None)
    gram = gramian_of(grads, axis_name)
    if axis_name is not None:
        gram = gram._replace(norms=gram.norms / lax.axis_size(axis_name))
    return gram
