"""A task of every kind, and small batches of them whose labels are missing and partly invalid."""

import numpy as np

from jmtl import tasks
from jmtl.tasks import batch

B, SIDE, N, T = 4, 4, 3, 5
CLASSES = 3

TASKS = (
    tasks.classification("kind", CLASSES),
    tasks.binary("yes"),
    tasks.multi_label("attributes", 3),
    tasks.regression("size"),
    tasks.regression("place", dim=2),
    tasks.segmentation("pixels", CLASSES),
    tasks.depth("depth"),
    tasks.normals("normals"),
    tasks.detection("boxes", 2),
    tasks.tracking("moves"),
    tasks.tagging("tags", CLASSES),
)

OUTPUTS = {
    "kind": (CLASSES,),
    "yes": (1,),
    "attributes": (3,),
    "size": (1,),
    "place": (2,),
    "pixels": (SIDE, SIDE, CLASSES),
    "depth": (SIDE, SIDE, 1),
    "normals": (SIDE, SIDE, 3),
    "boxes": (SIDE, SIDE, 6),
    "moves": (SIDE, SIDE, 2),
    "tags": (T, CLASSES),
}


def labels(rng: np.random.Generator, n: int = B) -> dict[str, np.ndarray]:
    """Labels of every kind; ever more of an example's elements are invalid along the batch."""
    square = (n, SIDE, SIDE)
    left = np.linspace(1, 0.1, n)
    there = lambda *tail: rng.random((n, *tail)) < left.reshape(-1, *[1] * len(tail))
    corner, sides = rng.uniform(0, 0.5, (n, N, 2)), rng.uniform(0.2, 0.5, (n, N, 2))
    found = there(N)[..., None]
    boxes = np.concatenate([corner, corner + sides, rng.integers(0, 2, (n, N, 1))], axis=-1)
    moves = np.concatenate([corner, rng.normal(size=(n, N, 2)) / 10, np.ones((n, N, 1))], axis=-1)
    given = {
        "kind": rng.integers(0, CLASSES, n).astype(np.int32),
        "yes": rng.random(n) < 0.5,
        "attributes": np.where(there(3), rng.integers(0, 2, (n, 3)), -1).astype(np.int8),
        "size": rng.normal(size=n),
        "place": rng.normal(size=(n, 2)),
        "pixels": np.where(there(SIDE, SIDE), rng.integers(0, CLASSES, square), 255),
        "depth": np.where(there(SIDE, SIDE), rng.uniform(1, 5, square), 0),
        "normals": np.where(there(SIDE, SIDE)[..., None], rng.normal(size=(*square, 3)), 0),
        "boxes": np.where(found, boxes, -1),
        "moves": np.where(found, moves, 0),
        "tags": np.where(there(T), rng.integers(0, CLASSES, (n, T)), -1).astype(np.int32),
    }
    given["pixels"] = given["pixels"].astype(np.uint8)
    return {k: v.astype(np.float32) if v.dtype == float else v for k, v in given.items()}


def example(seed: int, n: int = B):
    """Outputs `[n, ...]`, and a batch in NumPy in which each task lacks one label."""
    rng = np.random.default_rng(seed)
    outputs = {k: rng.normal(size=(n, *tail)).astype(np.float32) for k, tail in OUTPUTS.items()}
    present = {task.name: np.arange(n) != i % n for i, task in enumerate(TASKS)}
    return outputs, batch(np.zeros((n, 1), np.float32), labels(rng, n), present)


VALID = {
    "attributes": lambda label: label >= 0,
    "pixels": lambda label: label < CLASSES,
    "depth": lambda label: label > 0,
    "normals": lambda label: (label != 0).any(-1),
    "tags": lambda label: label >= 0,
}
"""By task whose elements are weighed: which of them are valid."""
