"""What a method is; `chain`, which composes methods; `aggregator`, their optax face."""

import zlib
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, PRNGKeyArray

from jmtl.gramian import Gramian, TaskGrads, check_num_tasks, combine, like, scale_rows
from jmtl.gramian import gramian as gramian_of
from jmtl.products import Products, compute_dtype

State = Any
Needs = Literal["losses", "gramian", "gradients"]


# Fields that may be absent are typed as what whoever asks for them finds there.
_ABSENT: Any = None


class Seen(NamedTuple):
    """What a method sees at a step: all of it global, over devices and microbatches.

    Attributes:
        losses: `[K]` the raw losses; None where the caller of `aggregator` gave none.
        gramian: of the task gradients (of the first batch, where the method takes several); None
            for loss methods.
        cross: J₁ J₂ᵀ between the first two batches, `inner [K, K] · left[:, None] · right`, whose
            product may under- or overflow; None unless `batches` is 3.
        gradients: leaves `[K, ...]`; None unless the method needs them.
    """

    losses: Float[Array, " K"]
    gramian: Gramian = _ABSENT
    cross: Products = _ABSENT
    gradients: TaskGrads = None


class Answer(NamedTuple):
    """What a method answers.

    Attributes:
        weights: `[K]`, the update is `weightsᵀ J`; NaN where the method has none.
        gradient: leaves `[...]`, the update itself, from methods without weights; else None.
        residual: `[]` the relative violation of the optimality condition that the method's solver
            stopped at; None, read as 0, where the answer is closed-form.
        heads: `[K]` what multiplies each task's gradient for its own parameters; None for the rule
            of the method's kind: `weights` for loss methods and where `scales_heads`, else ones.
    """

    weights: Float[Array, " K"]
    gradient: Any = None
    residual: Float[Array, ""] = _ABSENT
    heads: Float[Array, " K"] = _ABSENT


class Method(NamedTuple):
    """How K losses or task gradients become one update: a pair of pure functions and what they see.

    Attributes:
        name: as in `METHODS`.
        num_tasks: K.
        init: `(shared_params) -> State`.
        update: `(Seen, State) -> (Answer, State)`.
        needs: the most that `update` reads: "losses" (one weighted backward pass serves),
            "gramian" (K backward passes, no stack) or "gradients" (the stack `[K, ...]`).
        uses_losses: whether `update` reads `Seen.losses`.
        batches: independent batches a step: 1, or 3 where `Seen.cross` comes from the first two and
            the weights act on the third.
        observe: `(losses_before [K], losses_after [K], State) -> State`, called after the
            optimiser's update with the losses of the same batch on both sides of it; or None.
        scales_heads: whether `weights` multiply the gradients of the tasks' own parameters too,
            as they always do for loss methods.
    """

    name: str
    num_tasks: int
    init: Callable[[Any], State]
    update: Callable[[Seen, State], tuple[Answer, State]]
    needs: Needs
    uses_losses: bool = False
    batches: int = 1
    observe: Callable[[Array, Array, State], State] | None = None
    scales_heads: bool = False


def stateless(params: Any) -> tuple[()]:
    """The `init` of a method that remembers nothing."""
    del params
    return ()


def named_key(key: PRNGKeyArray, name: str) -> PRNGKeyArray:
    """A key of its own for a part: the same key and name give the same bits.

    The result shares no buffer with `key`, so a donated state does not kill the caller's key.
    """
    return jax.random.fold_in(key, zlib.crc32(name.encode()))


def check_losses(method: Method, losses: Float[Array, " K"] | None) -> None:
    """Refuse losses that are not `[K]`, and their absence where the method reads them."""
    if losses is None:
        if method.uses_losses:
            raise ValueError(
                f"{method.name} reads the losses, and was given none: pass "
                "update(task_grads, state, params, losses=values)"
            )
    elif jnp.shape(losses) != (method.num_tasks,):
        raise ValueError(
            f"losses have shape {jnp.shape(losses)}, but {method.name} was made for "
            f"num_tasks={method.num_tasks}: expected ({method.num_tasks},)"
        )


def respond(method: Method, seen: Seen, state: State) -> tuple[Answer, State]:
    """The method's answer with `residual` and `heads` filled in by their rules."""
    answer, state = method.update(seen, state)
    dtype = answer.weights.dtype
    residual = jnp.zeros((), dtype) if answer.residual is None else answer.residual.astype(dtype)
    heads = answer.heads
    if heads is None:
        weighs_heads = method.needs == "losses" or method.scales_heads
        heads = answer.weights if weighs_heads else jnp.ones_like(answer.weights)
    return answer._replace(residual=residual, heads=heads), state


def _scaled(seen: Seen, weights: Float[Array, " K"]) -> Seen:
    """What is seen when row i of J is multiplied by weights[i]; the losses stay raw."""
    gram, cross, grads = seen.gramian, seen.cross, seen.gradients
    if gram is not None:
        sign = jnp.sign(weights)  # 0 makes a zero row, as Gramian defines it
        gram = Gramian(gram.cosine * sign[:, None] * sign[None, :], gram.norms * jnp.abs(weights))
    if cross is not None:
        cross = cross._replace(left=cross.left * weights, right=cross.right * weights)
    if grads is not None:
        grads = scale_rows(grads, weights)
    return seen._replace(gramian=gram, cross=cross, gradients=grads)


def chain(*methods: Method) -> Method:
    """Weights and surgery composed: loss methods first, then at most one method of another kind.

    The loss methods' weights multiply; row i of J is scaled by w_i (the Gramian becomes
    `diag(w) G diag(w)`), the last method operates on the scaled rows, and its weights multiply on.
    Every method reads the raw losses. The tasks' own parameters are weighted by w, times what the
    last method does to them.

    Args:
        *methods: one or more methods of the same `num_tasks`.

    Raises:
        ValueError: no method, different `num_tasks`, or a method that is not a loss method before
            the last place.
    """
    if not methods:
        raise ValueError("chain: give at least one method")
    *weighers, last = methods
    for method in methods:
        if method.num_tasks != last.num_tasks:
            raise ValueError(
                f"chain: {method.name} has num_tasks={method.num_tasks}, "
                f"{last.name} has num_tasks={last.num_tasks}"
            )
    for method in weighers:
        if method.needs != "losses":
            raise ValueError(
                f"chain: {method.name} needs {method.needs} and can only come last; "
                "methods that weigh losses come before it"
            )

    def init(shared_params: Any) -> State:
        return tuple(method.init(shared_params) for method in methods)

    def update(seen: Seen, state: State) -> tuple[Answer, State]:
        states = []
        weights = None
        for method, own in zip(weighers, state[:-1], strict=True):
            answer, own = respond(method, seen, own)
            weights = answer.weights if weights is None else weights * answer.weights
            states.append(own)
        answer, own = respond(last, seen if weights is None else _scaled(seen, weights), state[-1])
        if weights is not None:
            total = weights * answer.weights
            same = answer.heads is answer.weights  # then one backward pass serves both
            heads = total if same else weights * answer.heads
            gradient = answer.gradient
            if gradient is not None:
                gradient = like(gradient, seen.gradients)
            answer = answer._replace(weights=total, heads=heads, gradient=gradient)
        return answer, (*states, own)

    def observe(before: Array, after: Array, state: State) -> State:
        return tuple(
            own if method.observe is None else method.observe(before, after, own)
            for method, own in zip(methods, state, strict=True)
        )

    return Method(
        name="+".join(method.name for method in methods),
        num_tasks=last.num_tasks,
        init=init,
        update=update,
        needs=last.needs,
        uses_losses=any(method.uses_losses for method in methods),
        batches=last.batches,
        observe=observe if any(method.observe for method in methods) else None,
        scales_heads=last.scales_heads,
    )


class AggregatorState(NamedTuple):
    """The state of `aggregator`.

    Attributes:
        weights: `[K]` of the last update; NaN before the first and where the method has none.
        residual: `[]` the violation of the optimality condition that the solver stopped at.
        method: the method's own state.
    """

    weights: Float[Array, " K"]
    residual: Float[Array, ""]
    method: State


def aggregator(method: Method) -> optax.GradientTransformationExtraArgs:
    """The optax face of a method: stacked task gradients in, one gradient out.

    Comes first in an `optax.chain`. Wrappers that store or branch on updates (`MultiSteps`,
    `apply_if_finite`) go after it; clipping before it would clip the stack as one vector.

    Args:
        method: any method that takes one batch a step.

    Returns:
        A transformation with `init(params)` and
        `update(task_grads, state, params=None, *, losses=None)`: `task_grads` has leaves
        `[K, ...]`, `losses` is `[K]`, updates have leaves `[...]`.

    Raises:
        ValueError: from `aggregator`, the method takes several batches; from `update`, sizes that
            do not fit K, or no losses for a method that reads them.
    """
    if method.batches > 1:
        raise ValueError(
            f"aggregator: {method.name} takes {method.batches} independent batches a step; "
            "use jmtl.value_and_grads"
        )
    k = method.num_tasks

    def init(params: Any) -> AggregatorState:
        dtype = compute_dtype(params)
        return AggregatorState(
            jnp.full((k,), jnp.nan, dtype), jnp.zeros((), dtype), method.init(params)
        )

    def update(
        task_grads: TaskGrads,
        state: AggregatorState,
        params: Any = None,
        *,
        losses: Float[Array, " K"] | None = None,
        **extra: Any,
    ) -> tuple[Any, AggregatorState]:
        del params, extra
        check_num_tasks(task_grads, k)
        check_losses(method, losses)
        seen = Seen(
            losses=_ABSENT if losses is None else jnp.asarray(losses, state.weights.dtype),
            gramian=_ABSENT if method.needs == "losses" else gramian_of(task_grads),
            gradients=task_grads if method.needs == "gradients" else None,
        )
        answer, own = respond(method, seen, state.method)
        gradient = answer.gradient
        if gradient is None:
            gradient = combine(task_grads, answer.weights)
        weights = answer.weights.astype(state.weights.dtype)
        residual = jnp.asarray(answer.residual, state.residual.dtype)
        return gradient, AggregatorState(weights, residual, own)

    return optax.GradientTransformationExtraArgs(init, update)


def info(opt_state: Any) -> AggregatorState:
    """The aggregator's state (`.weights` `[K]`, `.residual` `[]`) inside any optax state.

    Raises:
        ValueError: there is none, or more than one.
    """
    leaves = jax.tree.leaves(opt_state, is_leaf=lambda x: isinstance(x, AggregatorState))
    found = [leaf for leaf in leaves if isinstance(leaf, AggregatorState)]
    if len(found) != 1:
        raise ValueError(
            f"info: expected one aggregator's state in the optimiser state, found {len(found)}"
        )
    return found[0]
