"""SpokenDigit: the Free Spoken Digit Dataset, digits said by six people.

3,000 recordings at 8 kHz: each of 10 digits, 50 times by each of 6 speakers. Release 1.0.10; TFDS's
builder of the same name has 1.0.9, with 5 speakers, and needs TensorFlow. Recordings 0 to 4 of each
digit and speaker are the test split, as the authors say; 5 to 9 are kept for validation.

References:
    Jackson et al., *Free Spoken Digit Dataset*, github.com/Jakobovski/free-spoken-digit-dataset.
"""

import wave
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Int16
from tensorflow_datasets.core.download.checksums import UrlInfo
from tensorflow_datasets.core.utils import Size

SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")

RATE = 8_000
"""Samples a second."""

LENGTH = 8_320
"""Samples of an example: 1.04 s, 64 frames of 256 every 128. 14 recordings are cut."""

SPLITS = {"test": range(5), "validation": range(5, 10), "train": range(10, 50)}
"""The indices of recordings."""

_FOLDER = "free-spoken-digit-dataset-1.0.10"
_URL = "https://github.com/Jakobovski/free-spoken-digit-dataset/archive/v1.0.10.tar.gz"


class SpokenDigit(tfds.core.GeneratorBasedBuilder, skip_registration=True):  # type: ignore[call-arg]
    """TFDS builder of SpokenDigit.

    An example has `audio` `[LENGTH]` int16, the recording cut or followed by zeros; `length` `[]`
    int64, its samples, at most LENGTH; and the classes `digit` and `speaker` `[]` int64, the latter
    as in `SPEAKERS`.
    """

    VERSION = tfds.core.Version("1.0.10")
    RELEASE_NOTES = {"1.0.10": "2,400, 300 and 300 recordings by 6 speakers."}  # noqa: RUF012
    # The archive that GitHub makes of a tag; TFDS registers that of 1.0.9, made in the same way.
    url_infos: ClassVar = {
        _URL: UrlInfo(
            size=Size(15_602_882),
            checksum="feb479fad3a37883c3d21ed7f982281c2dd1c18d5aefd7e8a5d50f58023392aa",
            filename=f"{_FOLDER}.tar.gz",
        )
    }

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=__doc__,
            features=tfds.features.FeaturesDict(
                {
                    "audio": tfds.features.Tensor(
                        shape=(LENGTH,), dtype=np.int16, encoding="bytes"
                    ),
                    "length": tfds.features.Scalar(dtype=np.int64),
                    "digit": tfds.features.ClassLabel(num_classes=10),
                    "speaker": tfds.features.ClassLabel(names=SPEAKERS),
                }
            ),
            homepage="https://github.com/Jakobovski/free-spoken-digit-dataset",
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        archive = Path(dl_manager.download_and_extract(_URL))
        files = sorted((archive / _FOLDER / "recordings").glob("*.wav"))
        return {
            split: self._generate_examples([file for file in files if _parts(file)[2] in indices])
            for split, indices in SPLITS.items()
        }

    def _generate_examples(self, files: list[Path]) -> Iterator[tuple[int, dict[str, Any]]]:
        for key, file in enumerate(files):
            digit, speaker, _ = _parts(file)
            samples = read_wav(file)[:LENGTH]
            yield (
                key,
                {
                    "audio": np.pad(samples, (0, LENGTH - len(samples))),
                    "length": len(samples),
                    "digit": digit,
                    "speaker": speaker,
                },
            )


def read_wav(path: Path) -> Int16[np.ndarray, " N"]:
    """The samples of a WAV file of one channel, 16 bits and `RATE`.

    Raises:
        ValueError: it has another form.
    """
    with wave.open(str(path)) as file:
        form = file.getnchannels(), 8 * file.getsampwidth(), file.getframerate()
        if form != (1, 16, RATE):
            raise ValueError(f"{path} has channels, bits and rate {form}; expected (1, 16, {RATE})")
        return np.frombuffer(file.readframes(file.getnframes()), "<i2").astype(np.int16)


def _parts(file: Path) -> tuple[int, str, int]:
    """Digit, speaker and index of a recording, from a name like 7_jackson_32.wav."""
    digit, speaker, index = file.stem.split("_")
    return int(digit), speaker, int(index)
