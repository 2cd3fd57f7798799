"""Tabular: three tables that scikit-learn ships, which have nothing in common but their form.

- `tabular/breast_cancer`: 569 tumours, 30 measures of their cells; malignant (0) or benign (1).
- `tabular/wine`: 178 wines, 13 chemical measures; which of 3 growers (0 to 2) they are from.
- `tabular/diabetes`: 442 patients, 10 measures; how far the disease went in a year, in 25 to 346.

Rows are divided 60/20/20, classes in equal shares. Measures, and the numbers to be predicted, are
given in standard deviations from their mean, both those of the training rows.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Float32, Float64
from sklearn import datasets
from sklearn.model_selection import train_test_split

TABLES: dict[str, Callable[..., Any]] = {
    "breast_cancer": datasets.load_breast_cancer,
    "wine": datasets.load_wine,
    "diabetes": datasets.load_diabetes,
}
"""By configuration, who loads it."""

CLASSES = {"breast_cancer": 2, "wine": 3}
"""The classes of what is predicted; it is a number where there are none."""

_SEED = 2024


class Tabular(tfds.core.GeneratorBasedBuilder):
    """TFDS builder of Tabular; needs no download. Its configurations are the tables.

    An example has `measures` `[D]` float32, `target` `[]` int64, a class, or float32, and `row`
    `[]` int64, its row in scikit-learn's table.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "60, 20 and 20 % of the rows."}  # noqa: RUF012
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=name) for name in TABLES]  # noqa: RUF012

    def _info(self) -> tfds.core.DatasetInfo:
        name = self.builder_config.name
        table = TABLES[name]()
        classes = CLASSES.get(name)
        return tfds.core.DatasetInfo(
            builder=self,
            description=__doc__,
            features=tfds.features.FeaturesDict(
                {
                    "measures": tfds.features.Tensor(
                        shape=(table.data.shape[1],), dtype=np.float32
                    ),
                    "target": tfds.features.ClassLabel(num_classes=classes)
                    if classes
                    else tfds.features.Scalar(dtype=np.float32),
                    "row": tfds.features.Scalar(dtype=np.int64),
                }
            ),
            homepage="https://scikit-learn.org/stable/datasets/toy_dataset.html",
            disable_shuffling=True,  # the rows are divided at random
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {
            split: self._generate_examples(*arrays)
            for split, arrays in divide(self.builder_config.name).items()
        }

    def _generate_examples(
        self, measures: np.ndarray, targets: np.ndarray, rows: np.ndarray
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        for key, (x, y, row) in enumerate(zip(measures, targets, rows, strict=True)):
            yield key, {"measures": x, "target": y, "row": row}


def divide(name: str) -> dict[str, tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """The splits of a table.

    Args:
        name: in `TABLES`.

    Returns:
        By split: measures `[n, D]` float32, targets `[n]` (int64 classes, or float32), and rows
        `[n]` of scikit-learn's table. The rows of all splits are disjoint, and together all.
    """
    measures, targets = TABLES[name](return_X_y=True)
    classes = targets if name in CLASSES else None
    rows = np.arange(len(targets))
    train, rest = train_test_split(rows, train_size=0.6, stratify=classes, random_state=_SEED)
    validation, test = train_test_split(
        rest,
        train_size=0.5,
        stratify=None if classes is None else classes[rest],
        random_state=_SEED,
    )
    x = standard(measures, train)
    y = targets.astype(np.int64) if name in CLASSES else standard(targets, train)
    splits = {"train": train, "validation": validation, "test": test}
    return {split: (x[chosen], y[chosen], chosen) for split, chosen in splits.items()}


def standard(x: Float64[np.ndarray, "N *D"], rows: np.ndarray) -> Float32[np.ndarray, "N *D"]:
    """`x` in standard deviations from its mean, both those of some rows."""
    return ((x - x[rows].mean(0)) / x[rows].std(0)).astype(np.float32)
