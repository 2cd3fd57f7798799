"""Tasks: what they are, a constructor for each kind, and the K losses of a batch."""

from jmtl.tasks.classes import classification
from jmtl.tasks.numbers import regression
from jmtl.tasks.task import (
    Batch,
    Head,
    Task,
    batch,
    check_labels,
    check_names,
    task_counts,
    task_losses,
)

__all__ = [
    "Batch",
    "Head",
    "Task",
    "batch",
    "check_labels",
    "check_names",
    "classification",
    "regression",
    "task_counts",
    "task_losses",
]
