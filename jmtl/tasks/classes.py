"""Tasks that tell classes apart: one of several, several at once, yes or no, one for each token."""

from functools import partial

from jmtl import losses, metrics
from jmtl.checks import check_count
from jmtl.tasks import labels
from jmtl.tasks.task import Head, Task


def classification(name: str, num_classes: int, label: str | None = None) -> Task:
    """A task that tells C classes apart: cross entropy, and accuracy as its main metric.

    Args:
        name: The task's name.
        num_classes: C, at least 2.
        label: The key of its label, `[B, ...]` integers in 0 .. C - 1. Default: the name.

    Returns:
        The task; its head answers `[B, ..., C]` logits. Metrics: `accuracy`, and macro `precision`,
        `recall`, `f1`.

    Raises:
        ValueError: If `num_classes` is below 2.
    """
    return Task(
        name,
        Head("classification", num_classes),
        losses.cross_entropy,
        metrics.classification(num_classes),
        label or name,
        main="accuracy",
        check=labels.integers(0, num_classes - 1),
    )


def binary(name: str, label: str | None = None) -> Task:
    """A yes-or-no task: sigmoid cross entropy, and accuracy as its main metric.

    Args:
        name: The task's name.
        label: The key of its label, `[B]` booleans, or integers 0 and 1. Default: the name.

    Returns:
        The task; its head answers `[B, 1]` logits of yes. Other losses:
        `task._replace(loss=losses.focal)`, `losses.hinge`. Metrics: `accuracy`; `precision`,
        `recall`, `f1` of yes; `average_precision`, `auc`.
    """
    return Task(
        name,
        Head("classification", 1),
        losses.binary_cross_entropy,
        metrics.binary(),
        label or name,
        main="accuracy",
        check=labels.integers(0, 1, tail=()),
    )


def multi_label(name: str, num_labels: int, label: str | None = None) -> Task:
    """L yes-or-no questions, each of which may lack an answer: sigmoid cross entropy, accuracy.

    Every known answer counts alike, however many an example has.

    Args:
        name: The task's name.
        num_labels: L, at least 1.
        label: The key of its label, `[B, L]` booleans, or integers 0, 1 and -1, unknown. Default:
            the name.

    Returns:
        The task; its head answers `[B, L]` logits of yes. Another loss:
        `task._replace(loss=partial(losses.focal, valid=losses.known))`. Metrics: `accuracy`, and
        means over labels of `precision`, `recall`, `f1`, `average_precision`, `auc`.

    Raises:
        ValueError: If `num_labels` is below 1.
    """
    return Task(
        name,
        Head("classification", check_count(f"task {name!r}", "num_labels", num_labels, 1)),
        partial(losses.binary_cross_entropy, valid=losses.known),
        metrics.multi_label(num_labels, losses.known),
        label or name,
        main="accuracy",
        weight=partial(losses.elements, valid=losses.known),
        check=labels.integers(0, 1, (-1,), (num_labels,)),
    )


def tagging(name: str, num_tags: int, label: str | None = None) -> Task:
    """A task that gives each token of a sequence one of C tags: cross entropy, accuracy of tokens.

    Every token counts alike, however long its sequence is.

    Args:
        name: The task's name.
        num_tags: C, at least 2.
        label: The key of its label, `[B, T]` integers in 0 .. C - 1, and -1 where a sequence is
            padded. Default: the name.

    Returns:
        The task; its head answers `[B, T, C]` logits. Metrics: `accuracy`, and macro `precision`,
        `recall`, `f1`, over tokens; `sequence_accuracy`.

    Raises:
        ValueError: If `num_tags` is below 2.
    """
    return Task(
        name,
        Head("tagging", num_tags),
        partial(losses.cross_entropy, valid=losses.known),
        metrics.tagging(num_tags, losses.known),
        label or name,
        main="accuracy",
        weight=partial(losses.elements, valid=losses.known),
        check=labels.integers(0, num_tags - 1, (-1,), (None,)),
    )
