"""Tasks that predict numbers."""

import numpy as np

from jmtl import losses, metrics
from jmtl.tasks import labels
from jmtl.tasks.task import Head, Task


def regression(name: str, dim: int = 1, label: str | None = None) -> Task:
    """A task that predicts numbers: squared error, and mean absolute error as its main metric.

    Args:
        name: The task's name.
        dim: D, the numbers an example has, at least 1.
        label: The key of its label, `[B, D]`, or `[B]` where D is 1. Default: the name.

    Returns:
        The task; its head answers `[B, D]`. Another loss: `task._replace(loss=losses.huber)`.
        Metrics: `mae`, `rmse`.

    Raises:
        ValueError: If `dim` is below 1.
    """
    if dim < 1:
        raise ValueError(f"task {name!r}: a regression has at least 1 dimension, got dim={dim}")

    return Task(
        name,
        Head("regression", dim),
        losses.squared_error,
        metrics.regression(),
        label or name,
        main="mae",
        check=labels.numbers(tail=(dim,)) if dim > 1 else _one_number,
    )


def _one_number(label: np.ndarray, present: np.ndarray) -> str | None:
    tail = (1,) if label.ndim == 2 else ()
    return labels.numbers(tail=tail)(label, present)
