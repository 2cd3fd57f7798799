"""MultiMNIST: two MNIST digits on one canvas, by the protocol of the multi-task papers.

The left digit lies at [0:28, 0:28] and the right one at [6:34, 6:34] of a 36x36 canvas; where they
overlap the larger value stays; the canvas is reduced to 28x28 by the nearest pixel. MNIST's 60,000
training digits are divided 5 to 1 into train and validation before they are paired, and its
10,000 test digits make the test split: 50,000, 10,000 and 10,000 pairs. Every source digit is the
left one of one pair and the right one of one pair, of the same split.

References:
    Sabour, Frosst, Hinton (2017), Dynamic routing between capsules, section 6 (overlaid digits).
    Sener, Koltun (2018), Multi-task learning as multi-objective optimization, section 5.1.
"""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Int, UInt8

from jmtl.data import source

MEAN, STD = 0.1307, 0.3081
"""Mean and standard deviation of MNIST's pixels on the scale [0, 1], to normalise with."""

_SEED = 2024
_CITATION = """\
@inproceedings{sener2018multi,
  title={Multi-task learning as multi-objective optimization},
  author={Sener, Ozan and Koltun, Vladlen},
  booktitle={Advances in Neural Information Processing Systems},
  year={2018}
}
"""


class MultiMnist(tfds.core.GeneratorBasedBuilder):
    """TFDS builder of MultiMNIST; prepares TFDS's `mnist` beside it.

    An example has `image` `[28, 28]` uint8 in [0, 255], the classes `left` and `right` `[]` int64
    in [0, 10), and `left_source`, `right_source` `[]` int64, their rows in the `train` (for train
    and validation) or `test` split of `mnist`.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "50,000, 10,000 and 10,000 pairs; each digit once on each side."}  # noqa: RUF012

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=__doc__,
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Tensor(shape=(28, 28), dtype=np.uint8),
                    "left": tfds.features.ClassLabel(num_classes=10),
                    "right": tfds.features.ClassLabel(num_classes=10),
                    "left_source": tfds.features.Scalar(dtype=np.int64),
                    "right_source": tfds.features.Scalar(dtype=np.int64),
                }
            ),
            homepage="http://yann.lecun.com/exdb/mnist/",
            citation=_CITATION,
            disable_shuffling=True,  # the pairs are already in random order
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        mnist = source.prepare("mnist", self.data_dir_root)
        digits = {split: source.as_arrays(source.load(mnist, split)) for split in ("train", "test")}
        random = np.random.default_rng(_SEED)
        rows = random.permutation(len(digits["train"]["label"]))
        cut = len(rows) * 5 // 6
        test_rows = random.permutation(len(digits["test"]["label"]))
        return {
            "train": self._generate_examples(digits["train"], pair(rows[:cut], random)),
            "validation": self._generate_examples(digits["train"], pair(rows[cut:], random)),
            "test": self._generate_examples(digits["test"], pair(test_rows, random)),
        }

    def _generate_examples(
        self, digits: dict[str, np.ndarray], pairs: np.ndarray
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        labels = digits["label"].astype(np.int64)
        for key, (left, right) in enumerate(pairs):
            image = overlay(digits["image"][left, ..., 0], digits["image"][right, ..., 0])
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


def pair(rows: Int[np.ndarray, " n"], random: np.random.Generator) -> Int[np.ndarray, "n 2"]:
    """Pairs each row with another draw of the rows, without replacement.

    Args:
        rows: `[n]` the left digits.
        random: the generator that permutes them.

    Returns:
        `[n, 2]`: both columns hold every row once.
    """
    return np.stack([rows, random.permutation(rows)], axis=1)


def overlay(
    left: UInt8[np.ndarray, "28 28"], right: UInt8[np.ndarray, "28 28"]
) -> UInt8[np.ndarray, "28 28"]:
    """Lays two digits on one canvas and reduces it.

    Args:
        left: `[28, 28]`, laid at [0, 28) of both axes of the 36x36 canvas.
        right: `[28, 28]`, laid at [6, 34).

    Returns:
        `[28, 28]`: pixel i is the canvas's pixel floor((i + 1/2) 36 / 28), along both axes.
    """
    canvas = np.zeros((36, 36), np.uint8)
    canvas[:28, :28] = left
    canvas[6:34, 6:34] = np.maximum(canvas[6:34, 6:34], right)
    nearest = (2 * np.arange(28) + 1) * 36 // 56
    return canvas[np.ix_(nearest, nearest)]
