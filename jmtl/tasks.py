"""Tasks, batches with missing labels, and the K losses of a batch."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from jmtl import losses, metrics
from jmtl.methods import nearest


class Head(NamedTuple):
    """What a task's head answers; `jmtl.nn.make_head` builds the layers.

    Attributes:
        kind: A name in `jmtl.nn.HEADS`.
        features: The size of the output's last dimension.
    """

    kind: str
    features: int


class Task(NamedTuple):
    """One objective.

    Attributes:
        name: Unique among the tasks of a problem.
        head: A `Head`, or any module that maps the representation to the output.
        loss: `(output [B, ...], label [B, ...])` -> one value an example, `[B]`.
        metric: Statistics of outputs and labels.
        label: The key of its label in the batch.
        main: The metric that stands for the task where one number is wanted.
    """

    name: str
    head: Any
    loss: Callable[[Array, Array], Array]
    metric: metrics.Metric
    label: str
    main: str


class Batch(NamedTuple):
    """Examples, their labels, and which labels are there.

    Attributes:
        inputs: A pytree with leaves `[B, ...]`.
        labels: By key, `[B, ...]`; rows that are absent may hold anything.
        present: By the same keys, `[B]` booleans.
    """

    inputs: Any
    labels: Mapping[str, Array]
    present: Mapping[str, Bool[Array, " B"]]


def classification(name: str, num_classes: int, label: str | None = None) -> Task:
    """A task that tells C classes apart: cross entropy, and accuracy as its main metric.

    Args:
        name: The task's name.
        num_classes: C, at least 2.
        label: The key of its label, `[B, ...]` integers in 0 .. C - 1. Default: the name.

    Returns:
        The task; its head answers `[B, ..., C]` logits.

    Raises:
        ValueError: If `num_classes` is below 2.
    """
    metric = metrics.classification(num_classes)
    head = Head("classification", num_classes)
    return Task(name, head, losses.cross_entropy, metric, label or name, "accuracy")


def regression(name: str, dim: int = 1, label: str | None = None) -> Task:
    """A task that predicts numbers: squared error, and mean absolute error as its main metric.

    Args:
        name: The task's name.
        dim: D, the numbers an example has, at least 1.
        label: The key of its label, `[B, D]`, or `[B]` where D is 1. Default: the name.

    Returns:
        The task; its head answers `[B, D]`. Another loss: `task._replace(loss=losses.huber)`.

    Raises:
        ValueError: If `dim` is below 1.
    """
    if dim < 1:
        raise ValueError(f"task {name!r}: a regression has at least 1 dimension, got dim={dim}")
    head = Head("regression", dim)
    return Task(name, head, losses.squared_error, metrics.regression(), label or name, "mae")


def batch(
    inputs: Any, labels: Mapping[str, Any], present: Mapping[str, Any] | None = None
) -> Batch:
    """A batch whose labels are all there, but for those that a mask says are missing.

    Args:
        inputs: A pytree with leaves `[B, ...]`.
        labels: By key, `[B, ...]`.
        present: By label key, `[B]` booleans; a label without a mask is there for every example.

    Returns:
        The batch, its arrays as given (masks that are filled in are NumPy's, so that a process
        that loads data puts nothing on a device).

    Raises:
        ValueError: If a mask belongs to no label or is not `[B]` booleans.
    """
    masks = {}
    for key in present or {}:
        if key not in labels:
            raise ValueError(f"a mask for {key!r}, which is no label; {nearest(key, labels)}")
    for key, label in labels.items():
        rows = np.shape(label)[:1]
        masks[key] = (present or {}).get(key, np.ones(rows, bool))
        if np.shape(masks[key]) != rows or masks[key].dtype != bool:
            raise ValueError(
                f"label {key!r}: its mask is {rows} booleans, "
                f"got {masks[key].dtype} {np.shape(masks[key])}"
            )
    return Batch(inputs, dict(labels), masks)


def task_losses(
    tasks: Sequence[Task],
    outputs: Mapping[str, Array],
    batch: Batch,
    counts: Sequence[Any] | None = None,
) -> tuple[Float[Array, ""], ...]:
    """Each task's mean loss over the examples that carry its label.

    Args:
        tasks: K tasks.
        outputs: By task name, `[B, ...]`.
        batch: The examples. Labels of absent rows are replaced by 0 before a loss sees them, so
            garbage there reaches neither the value nor the gradient.
        counts: K numbers to divide by instead of the counts in this batch, where it is one part of
            a larger one (`task_counts`, summed over devices and microbatches): the losses of the
            parts then add to those of the whole, and so do their gradients.

    Returns:
        K scalars in the tasks' order, 0 for a task with no label here. A tuple: the gradient of
        one leaves the other tasks' heads alone.

    Raises:
        ValueError: If two tasks share a name, a label or an output is not there, `counts` are not
            K, or a loss does not give `[B]`.
    """
    _check(tasks, batch)
    if counts is not None and len(counts) != len(tasks):
        raise ValueError(f"{len(tasks)} tasks take {len(tasks)} counts, got {len(counts)}")
    values = []
    for i, task in enumerate(tasks):
        if task.name not in outputs:
            raise ValueError(
                f"task {task.name!r}: the model gave no output of that name; "
                f"{nearest(task.name, outputs)}"
            )
        present = jnp.asarray(batch.present[task.label])
        label = losses.present_only(batch.labels[task.label], present)
        value = task.loss(outputs[task.name], label)
        if value.shape != present.shape:
            raise ValueError(
                f"task {task.name!r}: a loss gives one value an example, {present.shape}, "
                f"got {value.shape}; leave out its mean over the batch"
            )
        values.append(losses.masked_mean(value, present, None if counts is None else counts[i]))
    return tuple(values)


def task_counts(tasks: Sequence[Task], batch: Batch) -> tuple[Int[Array, ""], ...]:
    """The number of examples in the batch that carry each task's label.

    Args:
        tasks: K tasks.
        batch: The examples.

    Returns:
        K integer scalars in the tasks' order.

    Raises:
        ValueError: If two tasks share a name or a label is not in the batch.
    """
    _check(tasks, batch)
    return tuple(jnp.asarray(batch.present[t.label]).sum(dtype=jnp.int32) for t in tasks)


def check_names(tasks: Sequence[Task]) -> None:
    """Refuse tasks that share a name.

    Raises:
        ValueError: If two do.
    """
    names = [task.name for task in tasks]
    for name in names:
        if names.count(name) > 1:
            raise ValueError(
                f"{names.count(name)} tasks are named {name!r}; give each its own name"
            )


def _check(tasks: Sequence[Task], batch: Batch) -> None:
    check_names(tasks)
    for task in tasks:
        if task.label not in batch.labels:
            raise ValueError(
                f"task {task.name!r}: the batch has no label {task.label!r}; "
                f"{nearest(task.label, batch.labels)}"
            )
