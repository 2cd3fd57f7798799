"""What was recorded along the way, as means and bands over seeds."""

import csv
import io
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import jax
import numpy as np
from jaxtyping import Array, Float, Int

from experiments.study.report.seeds import over_seeds
from experiments.study.results import Curves, Results
from experiments.study.statistics import Interval
from jmtl import conflict
from jmtl.gramian import Gramian

RESAMPLES = 500
"""Of bands: they are drawn, and nothing is decided by them."""


RANGES = {"conflict_rate": (0.0, 1.0), "cosine": (-1.0, 1.0), "magnitude": (0.0, 1.0)}
"""What no interval needs to leave."""


class Bands(NamedTuple):
    """An arm's curves, T times: means over its seeds, with intervals.

    Attributes:
        steps: `[T]` updates done.
        losses: `[T, K]`.
        validation: `[T, K]`.
        weights: `[T, K]`.
        conflict_rate: `[T]`.
        cosine: `[T]` mean over pairs of tasks.
        magnitude: `[T]` magnitude similarity, mean over pairs of tasks.
        residual: `[T]`.
    """

    steps: Int[np.ndarray, " T"]
    losses: Interval
    validation: Interval
    weights: Interval
    conflict_rate: Interval
    cosine: Interval
    magnitude: Interval
    residual: Interval


def pairs_mean(x: Float[np.ndarray, "S T K K"]) -> Float[np.ndarray, "S T"]:
    """The mean over pairs of tasks; NaN for one task."""
    k = x.shape[-1]
    if k == 1:
        return np.full(x.shape[:2], np.nan)
    return x[..., *np.triu_indices(k, 1)].mean(axis=-1)


def magnitude_similarity(curves: Curves) -> Float[np.ndarray, "S T K K"]:
    """2ab / (a² + b²) of the norms of every pair of task gradients."""
    found = np.asarray(_similarity(curves.cosine, curves.norms), float)
    missing = ~np.isfinite(curves.norms).all(axis=-1)
    return np.where(missing[..., None, None], np.nan, found)


@jax.jit
@jax.vmap
@jax.vmap
def _similarity(cosine: Float[Array, "K K"], norms: Float[Array, " K"]) -> Float[Array, "K K"]:
    return conflict.magnitude_similarity(Gramian(cosine, norms))


def curves(results: Results) -> dict[str, Bands]:
    """By arm, its curves over seeds. A seed that failed is left out from then on."""
    found = {}
    for name, arm in results.arms.items():
        c = arm.curves
        columns = {
            "losses": c.losses,
            "validation": c.validation,
            "weights": c.weights,
            "conflict_rate": c.conflict_rate,
            "cosine": pairs_mean(c.cosine),
            "magnitude": pairs_mean(magnitude_similarity(c)),
            "residual": c.residual,
        }
        rows = np.concatenate([x.reshape(*x.shape[:2], -1) for x in columns.values()], axis=-1)
        bands = over_seeds(np.moveaxis(rows, 0, -1), resamples=RESAMPLES)
        parts, at = {}, 0
        for field, x in columns.items():
            wide = x.shape[2] if x.ndim == 3 else 1
            cut = [part[:, at : at + wide] for part in bands]
            ends = RANGES.get(field, (-np.inf, np.inf))
            parts[field] = Interval(
                *(np.clip(part if x.ndim == 3 else part[:, 0], *ends) for part in cut)
            )
            at += wide
        found[name] = Bands(steps=c.steps, **parts)
    return found


def curves_csv(found: Mapping[str, Bands], tasks: list[str]) -> str:
    """A row for each arm and time, so that every figure over training can be drawn again."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    first = next(iter(found.values()))
    writer.writerow(["arm", "step", *(name for name, _ in _columns(first, tasks))])
    for name, bands in found.items():
        columns = [values for _, values in _columns(bands, tasks)]
        for t, step in enumerate(bands.steps):
            cells = ("" if not np.isfinite(c[t]) else f"{c[t]:.5g}" for c in columns)
            writer.writerow([name, int(step), *cells])
    return buffer.getvalue()


def _columns(bands: Bands, tasks: list[str]) -> Iterator[tuple[str, Float[np.ndarray, " T"]]]:
    for field in Bands._fields[1:]:
        for part, values in zip(Interval._fields, getattr(bands, field), strict=True):
            end = "" if part == "mean" else f" {part}"
            if values.ndim == 1:
                yield f"{field}{end}", values
            else:
                yield from ((f"{field} {task}{end}", values[:, i]) for i, task in enumerate(tasks))
