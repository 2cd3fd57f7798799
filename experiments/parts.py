"""What the names in a configuration stand for: the model, the optimiser, the data."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from experiments.errors import UserError
from experiments.problem import Problem
from jmtl.data import source
from jmtl.data.errors import DataUnavailable
from jmtl.nn import Model, make_encoder, make_heads, model


def build_optimizer(name: str, rate: Any, decay: Any) -> optax.GradientTransformation:
    """Adam or SGD, with decoupled weight decay.

    Args:
        name: "adam" or "sgd".
        rate: the learning rate; may be traced.
        decay: of the weights, 0.0 for none; may be traced.
    """
    none = not isinstance(decay, jax.core.Tracer) and decay == 0
    if name == "adam":
        return optax.adam(rate) if none else optax.adamw(rate, weight_decay=decay)
    return optax.chain(optax.add_decayed_weights(decay), optax.sgd(rate))


def build_model(
    encoder: str,
    encoder_options: Mapping[str, Any],
    head_options: Mapping[str, Any],
    problem: Problem,
    axis_name: str | None = None,
) -> Model:
    """A problem's model.

    Raises:
        UserError: an unknown encoder, or an option that it refuses.
    """
    try:
        made = make_encoder(encoder, **encoder_options)
        return model(made, make_heads(problem.tasks, **head_options), axis_name)
    except (ValueError, TypeError) as error:
        raise UserError(str(error)) from error


def open_splits(problem: Problem, data_dir: Path) -> Callable[[str], Any]:
    """Prepare a problem's data unless it is there; opens splits by name."""
    try:
        builder = source.prepare(problem.data, data_dir)
    except DataUnavailable as error:
        raise UserError(str(error)) from error
    except OSError as error:
        raise UserError(
            f"no data can be kept in {data_dir}: {error.strerror or error}; "
            "name another folder with --data-dir"
        ) from error

    def split(name: str) -> Any:
        try:
            return source.load(builder, name)
        except ValueError as error:
            raise UserError(str(error)) from error

    return split


def example_of(split: Any) -> Mapping[str, Any]:
    """One raw example of a split, `[1, ...]`, for shapes."""
    return source.read(split, np.arange(1))
