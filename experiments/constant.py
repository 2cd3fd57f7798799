"""The one answer to every example that fits a task's labels best: what knows no inputs."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.parts import batches_of, open_splits
from experiments.problem import Problem
from jmtl.nn import Model
from jmtl.tasks import Task
from jmtl.train.evaluate import evaluate

_UNSEEN = 1e-6  # of a class that has no label: its logarithm is a number


def answer(task: Task, label: np.ndarray, present: np.ndarray) -> np.ndarray:
    """What a task's head would best answer at every place of every example, `[D]`.

    Log shares of classes, means of numbers, directions and displacements, the mean box of an object
    at every place; for depth, whose loss and main metric are absolute errors, the median.

    Args:
        task: one of `jmtl.tasks`.
        label: `[N, ...]` of the training split.
        present: `[N]` which labels are there.
    """
    kind, d, size = task.head
    label = label[present]
    if kind == "detection":
        real = label[label[..., 4] >= 0]
        sides = (real[:, 2:4] - real[:, :2]).mean(axis=0) * size
        counts = np.bincount(real[:, 4].astype(int), minlength=d - 4)
        return np.concatenate([np.log(counts / len(label) + _UNSEEN), sides, (0.5, 0.5)])
    if task.main == "tracking_error":
        moves: np.ndarray = label[label[..., 4] > 0][:, 2:4].mean(axis=0) * size
        return moves
    if kind == "presence" or (kind == "classification" and (label.ndim == 2 or d == 1)):
        # Yes or no, to d questions.
        label = label.reshape(-1, d)
        known = label >= 0
        share = (label * known).sum(axis=0) / known.sum(axis=0)
        return np.log(share + _UNSEEN) - np.log(1 - share + _UNSEEN)
    if np.issubdtype(label.dtype, np.integer):
        return np.log(np.bincount(label[label >= 0], minlength=d) + _UNSEEN)
    values = label.reshape(-1, d)
    if kind != "dense":
        return values.mean(axis=0)
    values = values[(values != 0).any(axis=1)]
    return np.median(values, axis=0) if d == 1 else values.mean(axis=0)


def scores(problem: Problem, data_dir: Path, split: str) -> dict[str, dict[str, float]]:
    """The metrics of the constant answers, found on the training split, on another, by task.

    Args:
        problem: any whose tasks have heads of `jmtl.tasks`.
        data_dir: of all data sets.
        split: a name.
    """
    splits = open_splits(problem, data_dir)

    @jax.jit
    def labels(raw: Any) -> Any:
        batch = problem.to_batch(raw)
        return batch.labels, batch.present

    parts = [
        (*jax.device_get(labels(raw)), jax.tree.map(lambda x: x > 0, weight))
        for raw, weight in batches_of(splits("train"), problem.evaluation_rows)
    ]
    answers = {}
    for task in problem.tasks:
        label, present = [], []
        for values, there, real in parts:
            label.append(values[task.label])
            rows = real[task.source] if task.source else real
            present.append(np.asarray(there[task.label]) & np.asarray(rows))
        found = answer(task, np.concatenate(label), np.concatenate(present))
        answers[task.name] = found.astype(np.float32)

    def apply(params: Any, model_state: Any, inputs: Any) -> tuple[dict[str, jax.Array], Any]:
        outputs = {}
        for task in problem.tasks:
            kind, d, size = task.head
            given = inputs[task.source] if task.source else inputs
            first = jax.tree.leaves(given)[0].shape
            places = first[1:2] if kind == "tagging" else size or ()
            outputs[task.name] = jnp.broadcast_to(params[task.name], (first[0], *places, d))
        return outputs, model_state

    blind = Model(*(apply,) * 4, encoder=None, heads={})  # type: ignore[arg-type]
    batches = batches_of(splits(split), problem.evaluation_rows)
    # As parameters: XLA would compute with constants of this size while it compiles.
    return evaluate(blind, problem.tasks, problem.to_batch, answers, None, batches)
