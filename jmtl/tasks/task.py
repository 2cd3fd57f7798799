"""What a task is, batches with missing labels, and the K losses of a batch."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Num

from jmtl import losses
from jmtl.methods import nearest
from jmtl.metrics import Metric


class Head(NamedTuple):
    """What a task's head answers; `jmtl.nn.make_head` builds the layers.

    Attributes:
        kind: A name in `jmtl.nn.HEADS`.
        features: The size of the output's last dimension.
        size: Height and width of the output of a head that answers maps, where they are not the
            representation's.
    """

    kind: str
    features: int
    size: tuple[int, int] | None = None


class Task(NamedTuple):
    """One objective.

    Attributes:
        name: Unique among the tasks of a problem.
        head: A `Head`, or any module that maps the representation to the output.
        loss: `(output [B, ...], label [B, ...])` -> one value an example, `[B]`: the mean over the
            elements of its label that are valid, 0 where none is.
        metric: Statistics of outputs and labels.
        label: The key of its label in the batch.
        main: The metric that stands for the task where one number is wanted.
        weight: `(label [B, ...])` -> `[B]`, how much an example counts in the mean over examples;
            None: all alike. Given the number of an example's valid elements, every valid element of
            a batch (a pixel, a token, an attribute) counts alike, however they lie on examples,
            microbatches and devices.
        check: `(label [n, ...], present [n])`, both NumPy -> what is wrong with the label, None if
            nothing is; see `check_labels`.
        source: The data set that it reads, where a batch holds several (`jmtl.data.several`): its
            inputs are those of that name, and its labels have as many rows.
    """

    name: str
    head: Any
    loss: Callable[[Array, Array], Array]
    metric: Metric
    label: str
    main: str
    weight: Callable[[Array], Array] | None = None
    check: Callable[[np.ndarray, np.ndarray], str | None] | None = None
    source: str | None = None


class Batch(NamedTuple):
    """Examples, their labels, and which labels are there.

    Attributes:
        inputs: A pytree with leaves `[B, ...]`. Of several data sets, these by name, each with its
            own B.
        labels: By key, `[B, ...]`; rows that are absent may hold anything.
        present: By the same keys, `[B]` booleans.
    """

    inputs: Any
    labels: Mapping[str, Array]
    present: Mapping[str, Bool[Array, " B"]]


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
    """Each task's mean loss over the examples that carry its label, by the task's weights.

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
            K, or a loss refuses its output and label or does not give `[B]`.
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
        label, present = _known(task, batch)
        try:
            value = task.loss(outputs[task.name], label)
        except ValueError as error:
            raise ValueError(f"task {task.name!r}: {error}") from error
        if value.shape != present.shape:
            raise ValueError(
                f"task {task.name!r}: a loss gives one value an example, {present.shape}, "
                f"got {value.shape}; leave out its mean over the batch"
            )
        count = None if counts is None else counts[i]
        values.append(losses.masked_mean(value, present, count, _weight(task, label)))
    return tuple(values)


def task_counts(tasks: Sequence[Task], batch: Batch) -> tuple[Num[Array, ""], ...]:
    """What each task's sum of losses is divided by: its labels in the batch, by their weights.

    Args:
        tasks: K tasks.
        batch: The examples.

    Returns:
        K scalars in the tasks' order, integers where the weights are: the examples that carry the
        label, or what `task.weight` gives for them, summed.

    Raises:
        ValueError: If two tasks share a name, a label is not in the batch, or a weight is not
            `[B]`.
    """
    _check(tasks, batch)
    counts = []
    for task in tasks:
        label, present = _known(task, batch)
        weight = _weight(task, label)
        counts.append(present.sum() if weight is None else jnp.where(present, weight, 0).sum())
    return tuple(n.astype(jnp.int32) if jnp.issubdtype(n.dtype, jnp.integer) else n for n in counts)


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


def check_labels(tasks: Sequence[Task], batch: Batch) -> None:
    """Refuse labels that are not what their tasks take: for data as it is loaded, on the host.

    Under a trace only shapes and dtypes are known, and losses refuse those; a value out of range
    there gives a loss of NaN.

    Args:
        tasks: K tasks. One without a `check` takes any label.
        batch: Labels and masks in NumPy; rows that are absent are not looked at.

    Raises:
        ValueError: If two tasks share a name, a label is not there, or one is of another shape,
            dtype or range.
    """
    _check(tasks, batch)
    for task in tasks:
        if task.check is None:
            continue
        label, present = batch.labels[task.label], batch.present[task.label]
        if wrong := task.check(np.asarray(label), np.asarray(present)):
            raise ValueError(f"task {task.name!r}: label {task.label!r}: {wrong}")


def _known(task: Task, batch: Batch) -> tuple[Array, Bool[Array, " B"]]:
    """A task's labels, 0 in the rows that are absent, and which are there."""
    present = jnp.asarray(batch.present[task.label])
    return losses.present_only(batch.labels[task.label], present), present


def _weight(task: Task, label: Array) -> Num[Array, " B"] | None:
    if task.weight is None:
        return None
    weight = task.weight(label)
    if weight.shape != label.shape[:1]:
        raise ValueError(
            f"task {task.name!r}: a weight is one number an example, {label.shape[:1]}, "
            f"got {weight.shape}"
        )
    return weight


def _check(tasks: Sequence[Task], batch: Batch) -> None:
    check_names(tasks)
    for task in tasks:
        if task.label not in batch.labels:
            raise ValueError(
                f"task {task.name!r}: the batch has no label {task.label!r}; "
                f"{nearest(task.label, batch.labels)}"
            )
