"""Metrics of a model on a whole split, exact over uneven batches."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jmtl.nn import Model
from jmtl.tasks import Batch, Task, task_counts, task_losses
from jmtl.train import leaves

Sums = Callable[[Any, Any, Mapping[str, Any], Any], Any]
Batches = Iterable[tuple[Mapping[str, np.ndarray], np.ndarray]]
Evaluator = Callable[[Any, Any, Batches], dict[str, dict[str, float]]]


def evaluation_sums(
    model: Model, tasks: Sequence[Task], to_batch: Callable[[Mapping[str, Any]], Batch]
) -> Sums:
    """What a batch adds to the metrics: to be jitted, vmapped over models, summed over batches.

    Args:
        model: built without `axis_name`.
        tasks: K tasks.
        to_batch: a raw batch to what the model reads.

    Returns:
        `(params, model_state, raw batch [B, ...], weights [B])` to, by task, (statistics of its
        metric, sum of its losses, what that is divided by). Rows of weight 0 are padding. Of
        several data sets, raw batch and weights are by name.
    """

    def sums(params: Any, model_state: Any, raw: Mapping[str, Any], weight: Any) -> Any:
        batch = to_batch(raw)
        weights = {task.label: weight[task.source] if task.source else weight for task in tasks}
        present = {
            label: mask & (weights[label] > 0)
            for label, mask in batch.present.items()
            if label in weights
        }
        batch = batch._replace(present=present)
        outputs, _ = model.apply(params, model_state, batch.inputs)
        losses = task_losses(tasks, outputs, batch, [jnp.ones(())] * len(tasks))
        return {
            task.name: (
                task.metric.update(
                    outputs[task.name], batch.labels[task.label], present[task.label]
                ),
                loss,
                count,
            )
            for task, loss, count in zip(tasks, losses, task_counts(tasks, batch), strict=True)
        }

    return sums


def evaluate(
    model: Model,
    tasks: Sequence[Task],
    to_batch: Callable[[Mapping[str, Any]], Batch],
    params: Any,
    model_state: Any,
    batches: Batches,
) -> dict[str, dict[str, float]]:
    """Evaluate with running statistics and without dropout; `evaluator` for more than once.

    Args:
        model: built without `axis_name`.
        tasks: K tasks.
        to_batch: a raw batch to what the model reads.
        params: of one device, or split as `jmtl.train.sharding` does it.
        model_state: likewise.
        batches: (raw batch `[B, ...]`, weights `[B]`), all of one size; rows of weight 0 are
            padding. Of several data sets, both by name.

    Returns:
        By task, its metrics and its mean `loss`.
    """
    return evaluator(model, tasks, to_batch)(params, model_state, batches)


def evaluator(
    model: Model, tasks: Sequence[Task], to_batch: Callable[[Mapping[str, Any]], Batch]
) -> Evaluator:
    """`evaluate` of one model: `(params, model_state, batches)` to scores, compiled once."""
    sums = jax.jit(evaluation_sums(model, tasks, to_batch))

    def scores_of(params: Any, model_state: Any, batches: Batches) -> dict[str, dict[str, float]]:
        totals: Any = None
        for raw, weight in batches:
            part = jax.tree.map(_wide, leaves.on_host(sums(params, model_state, raw, weight)))
            totals = part if totals is None else jax.tree.map(np.add, totals, part)
        results = {}
        for task in tasks:
            stats, loss, count = totals[task.name]
            scores = {name: float(value) for name, value in task.metric.compute(stats).items()}
            results[task.name] = {**scores, "loss": float(loss / count) if count else float("nan")}
        return results

    return scores_of


def _wide(x: np.ndarray) -> np.ndarray:
    """Sums over batches are kept in 64 bits, on the host."""
    return x.astype(np.float64 if np.issubdtype(x.dtype, np.floating) else np.int64)
