"""What a compiled program would contain: the equations of a jaxpr, nested ones included."""

from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.extend import core
from jax.interpreters import partial_eval


def live_equations(fun: Callable[..., Any], *args: Any) -> list[Any]:
    """The equations of `fun(*args)` that its outputs depend on, nested programs in place."""
    closed = jax.make_jaxpr(fun)(*args)
    used = [True] * len(closed.jaxpr.outvars)
    jaxpr, _ = partial_eval.dce_jaxpr(closed.jaxpr, used)
    return list(_walk(jaxpr))


def _walk(jaxpr: Any) -> Iterator[Any]:
    for equation in jaxpr.eqns:
        yield equation
        for value in equation.params.values():
            for inner in value if isinstance(value, (tuple, list)) else (value,):
                if isinstance(inner, core.ClosedJaxpr):
                    yield from _walk(inner.jaxpr)
                elif isinstance(inner, core.Jaxpr):
                    yield from _walk(inner)


def shapes(equations: list[Any]) -> set[tuple[int, ...]]:
    """The shapes of every value that the equations compute."""
    return {tuple(var.aval.shape) for equation in equations for var in equation.outvars}


def products(equations: list[Any]) -> list[Any]:
    """The matrix products among the equations."""
    return [equation for equation in equations if equation.primitive.name == "dot_general"]


def reading(equations: list[Any], shape: tuple[int, ...]) -> int:
    """How many matrix products have an operand of this shape."""
    return sum(
        any(tuple(var.aval.shape) == shape for var in equation.invars)
        for equation in products(equations)
    )


def making(equations: list[Any], shape: tuple[int, ...]) -> int:
    """How many matrix products have a result of this shape, or its transpose."""
    return sum(
        tuple(equation.outvars[0].aval.shape) in (shape, shape[::-1])
        for equation in products(equations)
    )
