"""Folders of arrays, as the multi-task papers share NYUv2 and Cityscapes after preprocessing.

    train/image/0.npy  train/label/0.npy  train/depth/0.npy  …
    val/image/0.npy    val/label/0.npy    val/depth/0.npy    …

These files come from the authors of MTAN, whose page links to them; LibMTL and the line of papers
after CAGrad and Nash-MTL read the same. They are put by hand into `DATA_DIR/downloads/manual/NAME`.

Two protocols are told apart by the configuration:

- `own`, the default: the last fifth of `train` is kept for validation (neighbours in the file's
  order show the same place, hence no random fifth), and `val` is the test split;
- `published`: all of `train`, and `val` as the test split. There is no validation split, and what
  is chosen on the test split is chosen on the test split.

References:
    Liu, Johns, Davison, *End-to-End Multi-Task Learning with Attention* (MTAN), CVPR 2019.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import tensorflow_datasets as tfds

from jmtl.data.errors import DataUnavailable


class Part(NamedTuple):
    """One folder of arrays.

    Attributes:
        channels: of the file's arrays `[H, W, channels]`; None: they are `[H, W]`, and so are those
            of one channel once they are read.
        dtype: what values become.
        also: another name that the folder may have, "" for none.
    """

    channels: int | None
    dtype: Any
    also: str = ""


class NpyFolders(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """TFDS builder of such folders; subclasses say their size and parts.

    An example has by part `[H, W]` or `[H, W, channels]`.

    Attributes:
        SIZE: height and width.
        PARTS: by the name of a folder.
        SOURCE: where the folders can be had, for the message to those who have not got them.
    """

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS: ClassVar = [
        tfds.core.BuilderConfig(name="own", description="with a validation split"),
        tfds.core.BuilderConfig(name="published", description="as the papers: train and test"),
    ]
    SIZE: ClassVar[tuple[int, int]]
    PARTS: ClassVar[Mapping[str, Part]]
    SOURCE: ClassVar[str]

    def _info(self) -> tfds.core.DatasetInfo:
        def feature(part: Part) -> tfds.features.Tensor:
            shape = self.SIZE if part.channels in (None, 1) else (*self.SIZE, part.channels)
            return tfds.features.Tensor(shape=shape, dtype=part.dtype, encoding="bytes")

        return tfds.core.DatasetInfo(
            builder=self,
            description=type(self).__doc__,
            features=tfds.features.FeaturesDict(
                {name: feature(part) for name, part in self.PARTS.items()}
            ),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        root = Path(self.data_dir_root) / "downloads" / "manual" / self.name
        train, test = (self._count(root, folder) for folder in ("train", "val"))
        kept = train
        if self.builder_config.name == "own":
            kept = train - train // 5
        splits = {"train": ("train", range(kept)), "test": ("val", range(test))}
        if kept < train:
            splits["validation"] = ("train", range(kept, train))
        return {
            split: self._generate_examples(root / folder, rows)
            for split, (folder, rows) in splits.items()
        }

    def _generate_examples(
        self, folder: Path, rows: range
    ) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
        for key, row in enumerate(rows):
            yield (
                key,
                {
                    name: self._read(_folder(folder, name, part) / f"{row}.npy", part)
                    for name, part in self.PARTS.items()
                },
            )

    def _count(self, root: Path, folder: str) -> int:
        """The examples of a folder; each part has as many files, 0.npy to the last."""
        counts = {}
        for name, part in self.PARTS.items():
            inside = _folder(root / folder, name, part)
            files = {path.name for path in inside.glob("*.npy")}
            if not files:
                raise DataUnavailable(
                    f"{self.name} cannot be downloaded by a program: put its folders train and "
                    f"val, each with {', '.join(self.PARTS)}, into {root} ({self.SOURCE}); no "
                    f".npy file is in {inside}"
                )
            for row in range(len(files)):
                if f"{row}.npy" not in files:
                    raise DataUnavailable(f"{inside / f'{row}.npy'} is missing")
            counts[name] = len(files)
        if len(set(counts.values())) > 1:
            found = ", ".join(f"{count:,} of {name}" for name, count in counts.items())
            raise DataUnavailable(f"{root / folder} has {found}: there must be as many of each")
        return next(iter(counts.values()))

    def _read(self, path: Path, part: Part) -> np.ndarray:
        expected = self.SIZE if part.channels is None else (*self.SIZE, part.channels)
        try:
            values = np.load(path, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise DataUnavailable(f"{path} cannot be read as an array: {error}") from error
        if values.shape != expected:
            raise DataUnavailable(f"{path} has the shape {values.shape}; expected {expected}")
        if np.issubdtype(part.dtype, np.integer):
            values = np.rint(values)
        return values.astype(part.dtype).reshape(
            self.SIZE if part.channels in (None, 1) else expected
        )


def _folder(above: Path, name: str, part: Part) -> Path:
    """The folder of a part: under its other name where it has that alone."""
    other = above / (part.also or name)
    return other if other.is_dir() and not (above / name).is_dir() else above / name
