"""What constructors refuse, each in one line: the option, what was expected, what was given."""

import numbers
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


def check_count(name: str, option: str, value: Any, least: int) -> int:
    """`value` itself, refused unless it is a whole number of at least `least`."""
    whole = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not whole or value < least:
        raise ValueError(f"{name}: {option} must be a whole number >= {least}, got {value!r}")
    return int(value)


def check_tasks(name: str, num_tasks: int) -> int:
    """`num_tasks` itself, refused unless it is a positive whole number."""
    return check_count(name, "num_tasks", num_tasks, 1)


def check_key(name: str, key: Any) -> None:
    """Refuse what is not a JAX key."""
    if not isinstance(key, jax.Array):
        raise ValueError(f"{name}: key must be one of jax.random.key(seed), got {key!r}")


def check_choice(name: str, option: str, value: Any, choices: tuple[str, ...]) -> None:
    """Refuse a value that is not among `choices`."""
    if value not in choices:
        raise ValueError(f"{name}: {option} must be one of {', '.join(choices)}; got {value!r}")


def check_number(
    name: str,
    option: str,
    value: Any,
    *,
    above: float | None = None,
    least: float | None = None,
    below: float | None = None,
    most: float | None = None,
) -> None:
    """Refuse an option that is not one finite number in its range.

    Args:
        name: of the method.
        option: of the number.
        value: as given; a traced value is checked for its shape alone.
        above: the value must be > this.
        least: the value must be >= this.
        below: the value must be < this.
        most: the value must be <= this.

    Raises:
        ValueError: the value is not a scalar, not finite, or out of range.
    """
    limits = {">": above, ">=": least, "<": below, "<=": most}
    words = " and ".join(f"{sign} {limit:g}" for sign, limit in limits.items() if limit is not None)
    wanted = f"{name}: {option} must be a finite number {words}".rstrip()
    if isinstance(value, jax.core.Tracer):
        if value.shape != ():
            raise ValueError(f"{wanted}, got an array of shape {value.shape}")
        return
    try:
        number = np.asarray(value, float)
    except (TypeError, ValueError):
        raise ValueError(f"{wanted}, got {value!r}") from None
    fits = (
        number.shape == ()
        and bool(np.isfinite(number))
        and (above is None or bool(number > above))
        and (least is None or bool(number >= least))
        and (below is None or bool(number < below))
        and (most is None or bool(number <= most))
    )
    if not fits:
        raise ValueError(f"{wanted}, got {value!r}")


def per_task(
    name: str, option: str, value: Any, num_tasks: int, *, least: float | None = None
) -> Float[Array, " K"]:
    """An option as one value a task: a number is given to every task.

    Args:
        name: of the method.
        option: of the values.
        value: a number or `[K]`; may be traced, and its values are then not checked.
        num_tasks: K.
        least: every value must be >= this.

    Raises:
        ValueError: the shape is neither `[]` nor `[K]`, or a value is not finite or below `least`.
    """
    limit = "" if least is None else f" >= {least:g}"
    wanted = f"{name}: {option} must be a finite number{limit}, or {num_tasks} of them"
    traced = isinstance(value, jax.core.Tracer)
    try:
        # NumPy where the values are known: under a trace, JAX's operations on them are traced too.
        values = value.astype(float) if traced else np.asarray(value, float)
    except (TypeError, ValueError):
        raise ValueError(f"{wanted}, got {value!r}") from None
    if values.shape not in ((), (num_tasks,)):
        raise ValueError(f"{wanted}, got shape {values.shape}")
    if not traced and not (
        np.isfinite(values).all() and (least is None or bool((values >= least).all()))
    ):
        raise ValueError(f"{wanted}, got {values.tolist()}")
    return jnp.broadcast_to(jnp.asarray(values, float), (num_tasks,))
