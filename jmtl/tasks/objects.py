"""Tasks about objects in images. Labels and outputs are described in `jmtl.objects`."""

from jmtl import metrics
from jmtl.checks import check_count
from jmtl.objects import detection_loss, object_count, tracked_count, tracking_loss
from jmtl.tasks import labels
from jmtl.tasks.dense import Size
from jmtl.tasks.task import Head, Task


def detection(
    name: str,
    num_classes: int,
    size: Size | None = None,
    top_k: int = 100,
    label: str | None = None,
) -> Task:
    """A task that finds objects by their centres, without anchors; mAP@.5 is its main metric.

    Every object counts alike, and an image without any as one object.

    Args:
        name: The task's name.
        num_classes: C, at least 1.
        size: Height and width of the map of centres. Default: those of the representation.
        top_k: The detections of an image that count in the metric.
        label: The key of its label, `[B, N, 5]`: top, left, bottom, right as shares of the image;
            class, -1 for padding. Default: the name.

    Returns:
        The task; its head answers `[B, h, w, C + 4]`, which `jmtl.objects.detections` reads.
        Metric: `map50`.

    Raises:
        ValueError: If `num_classes` or `top_k` is below 1.
    """
    check_count(f"task {name!r}", "top_k", top_k, 1)
    return Task(
        name,
        Head("detection", check_count(f"task {name!r}", "num_classes", num_classes, 1) + 4, size),
        detection_loss,
        metrics.detection(num_classes, top_k),
        label or name,
        main="map50",
        weight=object_count,
        check=labels.boxes(num_classes),
    )


def tracking(name: str, size: Size | None = None, label: str | None = None) -> Task:
    """A task that says how far each object moves until the next frame.

    Every object that is seen in both frames counts alike. The model's inputs hold both frames.

    Args:
        name: The task's name.
        size: Height and width of the map of displacements. Default: those of the representation.
        label: The key of its label, `[B, N, 5]`: the centre's y and x as shares of the image; its
            displacement, likewise; 1, or 0 for padding. Default: the name.

    Returns:
        The task; its head answers `[B, h, w, 2]`, which `jmtl.objects.displacements` reads.
        Metric: `tracking_error`, the mean distance.
    """
    return Task(
        name,
        Head("dense", 2, size),
        tracking_loss,
        metrics.tracking(),
        label or name,
        main="tracking_error",
        weight=tracked_count,
        check=labels.tracks,
    )
