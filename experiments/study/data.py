"""A problem's splits on the devices."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from experiments.across import place
from experiments.labels import check_split
from experiments.parts import example_of, open_splits
from experiments.problem import Problem
from experiments.study import training
from jmtl.data import source


class Data(NamedTuple):
    """A problem's splits on the devices.

    Attributes:
        example: one raw example `[1, ...]` by feature.
        rows: examples by split.
        training: `[n, ...]` by feature.
        validation: batches `[N, B, ...]` by feature, and weights `[N, B]`.
        test: likewise.
    """

    example: Mapping[str, Any]
    rows: Mapping[str, int]
    training: Any
    validation: Any
    test: Any


def open_data(problem: Problem, data_dir: Path, devices: int) -> Data:
    """A problem's splits, put on the devices.

    Raises:
        UserError: the data cannot be had, it has no validation split, or labels that its tasks do
            not take.
    """
    splits = open_splits(problem, data_dir)
    found = {name: splits(name) for name in ("train", "validation", "test")}
    for name, split in found.items():
        check_split(problem, split, name)

    rows = problem.evaluation_rows

    def placed(tree: Any) -> Any:
        return place(tree, devices, shared=True)

    return Data(
        example_of(found["train"]),
        {name: len(split) for name, split in found.items()},
        placed(source.as_arrays(found["train"])),
        placed(training.evaluation_arrays(found["validation"], rows)),
        placed(training.evaluation_arrays(found["test"], rows)),
    )
