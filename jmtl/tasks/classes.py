"""Tasks that tell classes apart."""

from jmtl import losses, metrics
from jmtl.tasks.task import Head, Task


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
