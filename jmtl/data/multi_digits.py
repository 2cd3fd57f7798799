"""MultiDigits: two handwritten digits on one canvas, from the digits that scikit-learn ships.

The 1,797 source digits (8x8, values 0 to 16) are divided into splits first and paired within
their split, so that no source image is in two splits. Digit A lies at [0:8, 0:8] and B at
[2:10, 2:10] of a 10x10 canvas; where they overlap the larger value stays.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Int, UInt8
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

PAIRS = {"train": 20_000, "validation": 4_000, "test": 4_000}
"""Pairs of each split."""

MAX_PIXEL = 16
"""The largest pixel value."""

_SEED = 2024
_CITATION = """\
@misc{alpaydin1998digits,
  title={Optical Recognition of Handwritten Digits},
  author={Alpaydin, E. and Kaynak, C.},
  year={1998},
  publisher={UCI Machine Learning Repository},
  doi={10.24432/C50P49}
}
"""


class MultiDigits(tfds.core.GeneratorBasedBuilder):
    """TFDS builder of MultiDigits; needs no download.

    An example has `image` `[10, 10]` uint8 in [0, 16], the classes `left` (A) and `right` (B) `[]`
    int64 in [0, 10), and `left_source`, `right_source` `[]` int64, their rows in `load_digits()`.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "20,000, 4,000 and 4,000 pairs of 60, 20 and 20 % of the digits."}  # noqa: RUF012

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=__doc__,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Tensor(shape=(10, 10), dtype=np.uint8),
                    "left": tfds.features.ClassLabel(num_classes=10),
                    "right": tfds.features.ClassLabel(num_classes=10),
                    "left_source": tfds.features.Scalar(dtype=np.int64),
                    "right_source": tfds.features.Scalar(dtype=np.int64),
                }
            ),
            homepage="https://archive.ics.uci.edu/dataset/80",
            citation=_CITATION,
            disable_shuffling=True,  # the pairs are already in random order
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        digits, labels = load_digits(return_X_y=True)
        digits = digits.reshape(-1, 8, 8).astype(np.uint8)
        rows = source_rows(labels)
        return {
            name: self._generate_examples(
                digits, labels, draw_pairs(rows[name], count, seed=_SEED + i)
            )
            for i, (name, count) in enumerate(PAIRS.items())
        }

    def _generate_examples(
        self, digits: np.ndarray, labels: np.ndarray, pairs: np.ndarray
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        images = overlay(digits[pairs[:, 0]], digits[pairs[:, 1]])
        for key, (image, (left, right)) in enumerate(zip(images, pairs, strict=True)):
            yield (
                key,
                {
                    "image": image,
                    "left": labels[left],
                    "right": labels[right],
                    "left_source": left,
                    "right_source": right,
                },
            )


def source_rows(labels: Int[np.ndarray, " N"]) -> dict[str, Int[np.ndarray, " n"]]:
    """Divides the source digits 60/20/20, with the classes in equal shares.

    Args:
        labels: `[N]` their classes.

    Returns:
        The rows of `train`, `validation` and `test`, disjoint and together all N.
    """
    rows = np.arange(len(labels))
    train, rest = train_test_split(rows, train_size=0.6, stratify=labels, random_state=_SEED)
    validation, test = train_test_split(
        rest, train_size=0.5, stratify=labels[rest], random_state=_SEED
    )
    return {"train": train, "validation": validation, "test": test}


def draw_pairs(rows: Int[np.ndarray, " n"], count: int, seed: int) -> Int[np.ndarray, "count 2"]:
    """Draws pairs (left, right) of rows uniformly, with replacement.

    Args:
        rows: `[n]` the rows to draw from.
        count: pairs to draw.
        seed: >= 0.

    Returns:
        `[count, 2]` entries of `rows`.
    """
    return np.random.default_rng(seed).choice(rows, size=(count, 2))


def overlay(
    left: UInt8[np.ndarray, "n side side"], right: UInt8[np.ndarray, "n side side"], shift: int = 2
) -> UInt8[np.ndarray, "n canvas canvas"]:
    """Lays two images on one canvas by the larger value.

    Args:
        left: `[n, side, side]`, laid at [0, side) of both axes.
        right: `[n, side, side]`, laid at [shift, shift + side).
        shift: pixels between the two along each axis, >= 0.

    Returns:
        `[n, side + shift, side + shift]`.
    """
    before, after = (0, shift), (shift, 0)
    return np.maximum(np.pad(left, ((0, 0), before, before)), np.pad(right, ((0, 0), after, after)))
