"""DigitAttributes: what can be said of one handwritten digit of those that scikit-learn ships.

Each of the 1,797 images (8x8, values 0 to 16) is one example, with its class, whether that is odd,
how much ink there is and where its centre lies. Splits hold the images that MultiDigits' splits are
drawn from.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Float64
from sklearn.datasets import load_digits

from jmtl.data.multi_digits import source_rows
from jmtl.data.tabular import standard


class DigitAttributes(tfds.core.GeneratorBasedBuilder):
    """TFDS builder of DigitAttributes; needs no download.

    An example has `image` `[8, 8]` uint8 in [0, 16]; `digit` `[]` int64, its class in [0, 10);
    `parity` `[]` int64, 1 where that is odd; `mass` `[]` and `centroid` `[2]` float32, see
    `attributes`, in standard deviations from their mean, both those of the training images; and
    `row` `[]` int64, its row in `load_digits()`.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "60, 20 and 20 % of the digits."}  # noqa: RUF012

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=__doc__,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Tensor(shape=(8, 8), dtype=np.uint8),
                    "digit": tfds.features.ClassLabel(num_classes=10),
                    "parity": tfds.features.ClassLabel(names=["even", "odd"]),
                    "mass": tfds.features.Scalar(dtype=np.float32),
                    "centroid": tfds.features.Tensor(shape=(2,), dtype=np.float32),
                    "row": tfds.features.Scalar(dtype=np.int64),
                }
            ),
            homepage="https://archive.ics.uci.edu/dataset/80",
            disable_shuffling=True,  # the rows are divided at random
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        digits = load_digits()
        rows = source_rows(digits.target)
        mass, centroid = attributes(digits.images)
        examples = (
            digits.images.astype(np.uint8),
            digits.target,
            digits.target % 2,
            standard(mass, rows["train"]),
            standard(centroid, rows["train"]),
        )
        return {
            split: self._generate_examples(chosen, *(values[chosen] for values in examples))
            for split, chosen in rows.items()
        }

    def _generate_examples(
        self, rows: np.ndarray, *examples: np.ndarray
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        for key, (row, *values) in enumerate(zip(rows, *examples, strict=True)):
            names = ("image", "digit", "parity", "mass", "centroid")
            yield key, {**dict(zip(names, values, strict=True)), "row": row}


def attributes(
    images: Float64[np.ndarray, "N H W"],
) -> tuple[Float64[np.ndarray, " N"], Float64[np.ndarray, "N 2"]]:
    """The ink of images, and where its centre lies.

    Args:
        images: `[N, H, W]`, not negative, none of them empty.

    Returns:
        The sum of an image's pixels `[N]`, and the row and column of their centre of mass `[N, 2]`.
    """
    mass = images.sum(axis=(1, 2))
    row = images.sum(axis=2) @ np.arange(images.shape[1]) / mass
    column = images.sum(axis=1) @ np.arange(images.shape[2]) / mass
    return mass, np.stack([row, column], axis=1)
