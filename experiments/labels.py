"""The labels of a split, looked at before anything is trained with them."""

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax

from experiments.errors import UserError
from experiments.parts import batches_of
from experiments.problem import Problem
from jmtl.tasks import Batch, check_labels

ROWS = 200
"""Examples that are looked at together, and all of a split that is streamed."""


def check_split(
    problem: Problem, split: Any, name: str, whole: bool = True, all_tasks: bool = True
) -> None:
    """Refuse labels that are not what their tasks take.

    Args:
        problem: whose tasks read them.
        split: a source or its arrays; or several by name.
        name: of the split, for the message.
        whole: whether all is read, or the first `ROWS` examples alone.
        all_tasks: whether each task must have a label in a whole split.

    Raises:
        UserError: a label is of another shape, dtype or range, or a task has none.
    """
    labels_of = _labels_of(problem.to_batch)
    missing = {task.name: task for task in problem.tasks}
    for i, (raw, weights) in enumerate(batches_of(split, ROWS)):
        batch = jax.device_get(labels_of(raw))
        read = {
            task.label: weights[task.source] if task.source else weights for task in problem.tasks
        }
        present = {
            label: mask & (read[label] > 0) if label in read else mask
            for label, mask in batch.present.items()
        }
        try:
            check_labels(problem.tasks, batch._replace(present=present))
        except ValueError as error:
            where = f", from example {i * ROWS} on" if i else ""
            raise UserError(f"the {name} split{where}: {error}") from error
        if not whole:
            return
        missing = {k: task for k, task in missing.items() if not present[task.label].any()}
    if missing and all_tasks:
        raise UserError(f"the {name} split has no label for the task {', '.join(missing)}")


@functools.cache
def _labels_of(to_batch: Callable[[Mapping[str, Any]], Batch]) -> Callable[[Any], Batch]:
    """`to_batch` without the inputs, compiled once for all runs of a process."""
    return jax.jit(lambda raw: to_batch(raw)._replace(inputs=None))
