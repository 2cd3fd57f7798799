import io
import sys
import wave

import numpy as np
import pytest
import requests

from experiments.problems.spoken_digit import PROBLEM, to_batch
from jmtl.data import source
from jmtl.data.errors import DataUnavailable
from jmtl.data.spoken_digit import LENGTH, SPEAKERS, SpokenDigit, read_wav
from jmtl.tasks import check_labels
from tests.data import originals

(URL,) = SpokenDigit.url_infos
ROOT = "free-spoken-digit-dataset-1.0.10"
NAMES = [(d, s, i) for d in (0, 7) for s in ("theo", "george") for i in (0, 4, 5, 9, 10, 49)]
NUMBERS = np.random.default_rng(0)
SOUNDS = {
    name: NUMBERS.integers(-(2**15), 2**15, n).astype(np.int16)
    for name, n in zip(NAMES, NUMBERS.integers(900, LENGTH + 2_000, len(NAMES)), strict=True)
}


def wav(samples, rate=8_000):
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(samples.astype("<i2").tobytes())
    return buffer.getvalue()


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    recordings = {
        f"{ROOT}/recordings/{d}_{speaker}_{i}.wav": wav(samples)
        for (d, speaker, i), samples in SOUNDS.items()
    }
    files = {f"{ROOT}/README.md": b"words", **recordings}
    originals.put(monkeypatch, tmp_path, SpokenDigit, {f"{ROOT}.tar.gz": originals.tar(files)})
    return tmp_path


def test_recordings_and_their_labels(tiny):
    builder = source.prepare("spoken_digit", tiny)
    for split, indices in {"test": (0, 4), "validation": (5, 9), "train": (10, 49)}.items():
        arrays = source.as_arrays(source.load(builder, split))
        names = [name for name in NAMES if name[2] in indices]
        assert len(arrays["digit"]) == len(names)
        found = {}
        for audio, length, digit, speaker in zip(
            *(arrays[key] for key in ("audio", "length", "digit", "speaker")), strict=True
        ):
            assert not audio[length:].any()
            found[audio[:length].tobytes()] = (digit, SPEAKERS[speaker])
        wanted = {SOUNDS[name][:LENGTH].tobytes(): name[:2] for name in names}
        assert found == wanted
        batch = to_batch(arrays)
        assert batch.inputs.shape == (len(names), 64, 40)
        assert np.isfinite(batch.inputs).all()
        check_labels(PROBLEM.tasks, batch)
    assert "tensorflow" not in sys.modules


def test_another_form_of_sound_is_refused(tmp_path):
    (tmp_path / "0_theo_0.wav").write_bytes(wav(np.zeros(9), rate=16_000))
    with pytest.raises(ValueError, match=r"\(1, 16, 16000\); expected \(1, 16, 8000\)"):
        read_wav(tmp_path / "0_theo_0.wav")


def test_without_network_says_what_to_download_and_under_which_name(tmp_path, monkeypatch):
    monkeypatch.setattr(requests.Session, "get", originals.refuse)
    with pytest.raises(DataUnavailable) as caught:
        source.prepare("spoken_digit", tmp_path)
    assert f"download v1.0.10.tar.gz as {ROOT}.tar.gz from {URL.rpartition('/')[0]}/" in str(
        caught.value
    )
    assert "\n" not in str(caught.value)
