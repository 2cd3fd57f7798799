"""Data sets made from one of TFDS's, which is prepared beside them.

For images that are cropped or reduced once, labels that are put together, examples that are padded
to one shape: so that splits can lie on the device, and stream without decoding. What a TFDS data
set has in fixed shapes already is better read as it is, by slices of its splits
(`experiments.problem.Problem.splits`), than written to the disk twice.
"""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from jmtl.data import source

_CHUNK = 256


class Derived(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """TFDS builder of a data set whose examples are made one by one from another's.

    TFDS shuffles what it writes, by a fixed hash of the examples' keys, so a slice of a split is a
    random part of it, the same everywhere. The order here is the order there.

    Attributes:
        SOURCE: a name of TFDS, or of ours.
        SPLITS: by the name of a split here, the split there or a slice of it: "train[:90%]".
        FEATURES: by name, shape and dtype of what an example has. Arrays are stored as their bytes.
    """

    VERSION = tfds.core.Version("1.0.0")
    SOURCE: ClassVar[str]
    SPLITS: ClassVar[Mapping[str, str]]
    FEATURES: ClassVar[Mapping[str, tuple[tuple[int, ...], Any]]]

    def convert(self, example: Mapping[str, Any]) -> dict[str, Any]:
        """One example of the source, as TFDS decodes it, to what `FEATURES` says."""
        raise NotImplementedError

    def belongs(self, split: str, example: Mapping[str, Any]) -> bool:
        """Whether an example of a split's slice is in that split; all are unless this says so."""
        del split, example
        return True

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=type(self).__doc__,
            features=tfds.features.FeaturesDict(
                {
                    name: tfds.features.Tensor(
                        shape=shape, dtype=dtype, encoding="bytes" if shape else "none"
                    )
                    for name, (shape, dtype) in self.FEATURES.items()
                }
            ),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        original = source.prepare(self.SOURCE, self.data_dir_root)
        return {
            split: self._generate_examples(split, source.load(original, part))
            for split, part in self.SPLITS.items()
        }

    def _generate_examples(
        self, split: str, examples: source.Source
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        n = len(examples)
        for start in range(0, n, _CHUNK):
            rows = range(start, min(start + _CHUNK, n))
            for row, example in zip(rows, examples.__getitems__(rows), strict=True):
                if self.belongs(split, example):
                    yield row, self.convert(example)
