import concurrent.futures
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds

from jmtl.data import source


class Squares(tfds.core.GeneratorBasedBuilder):
    """Twelve examples that are their own check."""

    VERSION = tfds.core.Version("1.0.0")
    delay = 0.0

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "x": tfds.features.Tensor(shape=(2, 3), dtype=np.uint8),
                    "y": tfds.features.Scalar(dtype=np.int64),
                    "z": tfds.features.Scalar(dtype=np.float64),
                }
            ),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(12)}

    def _generate_examples(self, count):
        for i in range(count):
            time.sleep(self.delay)
            yield i, {"x": np.full((2, 3), i, np.uint8), "y": i * i, "z": i / 2}


def check(builder):
    arrays = source.as_arrays(source.load(builder, "train"))
    i = np.arange(12)
    assert {name: a.dtype for name, a in arrays.items()} == {"x": "u1", "y": "i4", "z": "f4"}
    np.testing.assert_array_equal(arrays["x"], np.broadcast_to(i[:, None, None], (12, 2, 3)))
    np.testing.assert_array_equal(arrays["y"], i * i)
    np.testing.assert_array_equal(arrays["z"], i / 2)


def test_prepare_once_and_read_whole(tmp_path, monkeypatch, capfd):
    builder = source.prepare(Squares, tmp_path)
    check(builder)
    written = (tmp_path / "squares" / "1.0.0" / "dataset_info.json").stat().st_mtime_ns
    monkeypatch.setattr(Squares, "_generate_examples", None)
    check(source.prepare(Squares, tmp_path))
    assert (tmp_path / "squares" / "1.0.0" / "dataset_info.json").stat().st_mtime_ns == written
    assert capfd.readouterr() == ("", "")


def test_verbose_lets_tfds_speak(tmp_path, capfd):
    source.prepare(Squares, tmp_path, verbose=True)
    assert "Downloading and preparing" in capfd.readouterr().out


def test_reading_in_chunks(tmp_path, monkeypatch):
    monkeypatch.setattr(source, "_CHUNK", 5)
    check(source.prepare(Squares, tmp_path))


def test_nbytes_without_reading(tmp_path):
    squares = source.load(source.prepare(Squares, tmp_path), "train")
    assert source.nbytes(squares) == 12 * (6 + 4 + 4)
    assert source.nbytes(squares) == sum(a.nbytes for a in source.as_arrays(squares).values())


def test_read_takes_rows_of_sources_and_arrays_alike(tmp_path):
    squares = source.load(source.prepare(Squares, tmp_path), "train")
    rows = np.array([3, 3, 0, 11], np.int32)
    batch = source.read(squares, rows)
    np.testing.assert_array_equal(batch["y"], rows**2)
    for name, values in source.read(source.as_arrays(squares), rows).items():
        assert values.dtype == batch[name].dtype
        np.testing.assert_array_equal(values, batch[name])


def test_what_is_kept_is_decoded_once(tmp_path, monkeypatch):
    builder = source.prepare(Squares, tmp_path)
    squares, again = source.load(builder, "train"), source.load(builder, "train")
    assert not source.keep(squares, 12 * (6 + 4 + 4) - 1)
    assert not source.keep({"one": squares, "other": again}, 12 * 14)
    assert not source.keep([{"y": 1}], 100)
    assert source.keep(squares, 12 * (6 + 4 + 4))
    decoded = []
    own = squares.records
    monkeypatch.setattr(squares, "records", lambda rows: (decoded.extend(rows), own(rows))[1])
    rng = np.random.default_rng(0)

    def check_some(rows):
        found, expected = source.read(squares, rows), source.read(again, rows)
        assert found.keys() == expected.keys()
        for name, values in expected.items():
            assert found[name].dtype == values.dtype
            np.testing.assert_array_equal(found[name], values)
        found["y"][:] = -1  # a batch is a copy

    check_some(np.array([3, 3, 5]))
    assert decoded == [3, 5]
    with concurrent.futures.ThreadPoolExecutor(4) as threads:
        list(threads.map(check_some, [rng.integers(0, 12, 6) for _ in range(40)]))
    done = len(decoded)
    assert set(decoded) == set(range(12))
    check_some(np.arange(12))
    assert len(decoded) == done


def test_refusals(tmp_path):
    builder = source.prepare(Squares, tmp_path)
    with pytest.raises(ValueError, match="squares has no split 'test'; it has"):
        source.load(builder, "test")
    with pytest.raises(ValueError, match="no examples"):
        source.as_arrays([])
    with pytest.raises(
        ValueError, match=r"no data set is named 'multi_digit'; expected .*multi_digits"
    ):
        source.prepare("multi_digit", tmp_path)


def prepare_slowly(folder):
    Squares.delay = 0.1
    check(source.prepare(Squares, folder))


def test_two_processes_prepare_at_once(tmp_path):
    spawn = multiprocessing.get_context("spawn")
    processes = [spawn.Process(target=prepare_slowly, args=(tmp_path,)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0, 0]
    assert [path.name for path in (tmp_path / "squares").iterdir()] == ["1.0.0"]


def test_what_a_killed_preparation_left_is_removed(tmp_path):
    code = (
        "import sys; from tests.data.test_source import Squares, source\n"
        "Squares.delay = 60; source.prepare(Squares, sys.argv[1])"
    )
    root = Path(__file__).parents[2]
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path)], cwd=root)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("squares/incomplete*")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    assert list(tmp_path.glob("squares/incomplete*"))
    check(source.prepare(Squares, tmp_path))
    assert [path.name for path in (tmp_path / "squares").iterdir()] == ["1.0.0"]
