"""Tasks: what they are, a constructor for each kind, and the K losses of a batch."""

from jmtl.tasks.classes import binary, classification, multi_label, tagging
from jmtl.tasks.dense import depth, normals, segmentation
from jmtl.tasks.numbers import regression
from jmtl.tasks.objects import detection, tracking
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
    "binary",
    "check_labels",
    "check_names",
    "classification",
    "depth",
    "detection",
    "multi_label",
    "normals",
    "regression",
    "segmentation",
    "tagging",
    "task_counts",
    "task_losses",
    "tracking",
]
