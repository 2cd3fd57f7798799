"""Dense tasks: an answer for every pixel, of which some may have no label.

Every pixel with a label counts alike in losses and metrics, whichever image, microbatch or device
it lies on. That is what the published losses for NYUv2 and Cityscapes divide by, for one device.
"""

from collections.abc import Collection
from functools import partial

from jmtl import losses, metrics
from jmtl.tasks import labels
from jmtl.tasks.task import Head, Task

Size = tuple[int, int]


def segmentation(
    name: str,
    num_classes: int,
    size: Size | None = None,
    ignore: Collection[int] | None = None,
    label: str | None = None,
) -> Task:
    """A task that gives each pixel one of C classes: cross entropy, and mIoU as its main metric.

    Args:
        name: The task's name.
        num_classes: C, at least 2.
        size: Height and width of the label, which the head's answer is resized to. Default: those
            of the representation.
        ignore: Labels of pixels that do not count. Default: -1 and, where it is no class, 255.
        label: The key of its label, `[B, H, W]` integers in 0 .. C - 1 or among `ignore`. Default:
            the name.

    Returns:
        The task; its head answers `[B, H, W, C]` logits. Metrics: `miou`, `pixel_accuracy`.

    Raises:
        ValueError: If `num_classes` is below 2.
    """
    if ignore is None:
        ignore = (-1, 255) if num_classes <= 255 else (-1,)
    counted = partial(losses.outside, values=tuple(ignore))
    return Task(
        name,
        Head("dense", num_classes, size),
        partial(losses.cross_entropy, valid=counted),
        metrics.segmentation(num_classes, counted),
        label or name,
        main="miou",
        weight=partial(losses.elements, valid=counted),
        check=labels.integers(0, num_classes - 1, ignore, size or (None, None)),
    )


def depth(name: str, size: Size | None = None, label: str | None = None) -> Task:
    """A task that gives each pixel its depth: absolute error, also as its main metric.

    Args:
        name: The task's name.
        size: See `segmentation`.
        label: The key of its label, `[B, H, W]`, at least 0; pixels of 0 do not count. Default:
            the name.

    Returns:
        The task; its head answers `[B, H, W, 1]`. Another loss:
        `task._replace(loss=partial(losses.huber, valid=losses.positive))`. Metrics: `abs_error`,
        `rel_error`.
    """
    return Task(
        name,
        Head("dense", 1, size),
        partial(losses.absolute_error, valid=losses.positive),
        metrics.depth(),
        label or name,
        main="abs_error",
        weight=partial(losses.elements, valid=losses.positive),
        check=labels.numbers(0, size or (None, None)),
    )


def normals(name: str, size: Size | None = None, label: str | None = None) -> Task:
    """A task that gives each pixel its surface's normal: `1 - cos`, and the mean angle as main.

    Args:
        name: The task's name.
        size: See `segmentation`.
        label: The key of its label, `[B, H, W, 3]`, of any length; pixels of zeros do not count.
            Default: the name.

    Returns:
        The task; its head answers `[B, H, W, 3]`, of any length. Metrics: `mean_angle`,
        `median_angle`, `within_11.25`, `within_22.5`, `within_30`.
    """
    return Task(
        name,
        Head("dense", 3, size),
        partial(losses.cosine, valid=losses.directed),
        metrics.normals(),
        label or name,
        main="mean_angle",
        weight=partial(losses.elements, valid=losses.directed),
        check=labels.numbers(tail=(*(size or (None, None)), 3)),
    )
