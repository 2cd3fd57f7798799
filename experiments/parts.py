"""What the names in a configuration stand for: the model, the optimiser, the data."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
import numpy as np
import optax

from experiments.config import FLOAT32, value_of
from experiments.errors import UserError
from experiments.problem import Problem, Recipe
from jmtl.data import loading, source
from jmtl.data.errors import DataUnavailable
from jmtl.data.several import batch_sizes, by_source, several
from jmtl.nn import Model, make_encoder, make_heads, make_sharing, with_stems

SAMPLERS = ("proportional", "temperature", "round_robin")
"""How the rows of a batch are dealt out to several data sets; see `jmtl.data.several`."""

_PARTS = 16


def build_optimizer(
    name: str, rate: Any, decay: Any, schedule: Sequence[Sequence[float]] = ()
) -> optax.GradientTransformation:
    """Adam or SGD, with weight decay.

    Args:
        name: "adam" or "sgd", whose decay is decoupled from the gradient, or "adam_l2", which adds
            decay times the weights to the gradient, as torch's Adam does.
        rate: the learning rate before the schedule's first step; may be traced.
        decay: of the weights, 0.0 for none; may be traced.
        schedule: (step, factor): after that many updates the rate is multiplied by the factor.
    """
    none = not isinstance(decay, jax.core.Tracer) and decay == 0
    if schedule:
        rate = optax.piecewise_constant_schedule(rate, {int(at): x for at, x in schedule})
    if name == "adam":
        return optax.adam(rate) if none else optax.adamw(rate, weight_decay=decay)
    inner = optax.adam(rate) if name == "adam_l2" else optax.sgd(rate)
    return optax.chain(optax.add_decayed_weights(decay), inner)


def build_model(
    encoder: str,
    encoder_options: Mapping[str, Any],
    head_options: Mapping[str, Any],
    problem: Problem,
    sharing: str = "hard",
    sharing_options: Mapping[str, Any] = MappingProxyType({}),
    axis_name: str | None = None,
    dtype: str = FLOAT32,
    remat: bool = False,
) -> Model:
    """A problem's model; of several data sets, one with a stem for each.

    With a `dtype` other than float32, encoder, heads and stems compute in it. Parameters, running
    statistics, outputs and the gates of mixtures stay float32, and so do all gradients.

    Raises:
        UserError: an unknown encoder or way of sharing, or an option that it refuses.
    """
    half = {} if dtype == FLOAT32 else {"dtype": dtype}
    again = {"remat": True} if remat else {}
    try:
        made = make_encoder(encoder, **{**encoder_options, **half, **again})
        heads = make_heads(problem.tasks, **{**head_options, **half})
        if isinstance(problem.data, str):
            return make_sharing(sharing, made, heads, axis_name, **sharing_options)
        sources = {task.name: task.source or "" for task in problem.tasks}
        width = problem.stem_width
        return with_stems(
            made, heads, sources, width, axis_name, sharing, **half, **sharing_options
        )
    except (ValueError, TypeError) as error:
        raise UserError(str(error)) from error


def encoder_options_of(recipe: Recipe, encoder: str | None) -> dict[str, Any]:
    """The options of a recipe's encoder, or of another: those that its data sets alone."""
    own = encoder in (None, recipe.encoder)  # another encoder has other options
    return {**(recipe.encoder_options if own else {}), **recipe.data_options}


def sharing_of(given: Sequence[str]) -> tuple[str, dict[str, Any]]:
    """The way of sharing and its options, of a name and items "option=value".

    Raises:
        UserError: an item is no option with a value.
    """
    name, *items = given
    chosen = {}
    for item in items:
        option, equals, text = item.partition("=")
        if not equals:
            raise UserError(f"--sharing takes a name and option=value, as mmoe experts=4: {item!r}")
        chosen[option] = value_of(text)
    return name, chosen


def rows_of(batch_size: int, sampler: str | None, temperature: float | None, n: Any) -> Any:
    """The rows of a batch: of several data sets, what the sampler deals to each.

    They are dealt in units of at least a sixteenth of the batch where that is whole: it lies evenly
    on that many devices, and is the same on any number.

    Args:
        batch_size: B, of all data sets together.
        sampler: in `SAMPLERS`; None where there is one data set.
        temperature: of the sampler "temperature".
        n: examples; of several data sets by name.

    Returns:
        B; of several data sets, rows by name, which add up to B.

    Raises:
        UserError: there are more data sets than rows.
    """
    if not several(n):
        return batch_size
    most = max(batch_size // _PARTS, 1)
    unit = max(unit for unit in range(1, most + 1) if batch_size % unit == 0)
    found = {"proportional": 1.0, "temperature": temperature, "round_robin": math.inf}[str(sampler)]
    try:
        return batch_sizes(n, batch_size, found or 1.0, unit)
    except ValueError as error:
        raise UserError(f"--batch-size {batch_size}: {error}") from error


def open_splits(problem: Problem, data_dir: Path) -> Callable[[str], Any]:
    """Prepare a problem's data unless it is there; opens splits by name.

    A split is a source, or several by the names in `problem.data`; where `problem.splits` has its
    name, it is the slice there.
    """
    try:
        builder = by_source(lambda _, data: source.prepare(data, data_dir), problem.data)
    except DataUnavailable as error:
        raise UserError(str(error)) from error
    except OSError as error:
        raise UserError(
            f"no data can be kept in {data_dir}: {error.strerror or error}; "
            "name another folder with --data-dir"
        ) from error

    def split(name: str) -> Any:
        def load(dataset: str | None, builder: Any) -> source.Source:
            slices = problem.splits if dataset is None else problem.splits.get(dataset, {})
            return source.load(builder, slices.get(name, name))

        try:
            return by_source(load, builder)
        except ValueError as error:
            raise UserError(str(error)) from error

    return split


def batches_of(split: Any, most: int) -> Iterator[tuple[dict[str, Any], Any]]:
    """`jmtl.data.loading.evaluation_batches` of at most so many examples of each data set."""
    rows = by_source(lambda _, n: min(most, n), source.lengths(split))
    return loading.evaluation_batches(split, rows)


def example_of(split: Any) -> Mapping[str, Any]:
    """One raw example of a split, `[1, ...]`, for shapes; of several data sets by name."""
    return first_of(split, 1)


def first_of(split: Any, rows: int) -> Mapping[str, Any]:
    """The first example of a split, `rows` times over; of several data sets by name."""
    return source.read(split, by_source(lambda *_: np.zeros(rows, int), split))
