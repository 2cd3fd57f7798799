import gzip
import logging
import struct
import sys

import numpy as np
import pytest
import requests
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core.download import checksums, extractor
from tensorflow_datasets.core.features import image_feature
from tensorflow_datasets.core.utils import tqdm_utils
from tensorflow_datasets.image_classification import mnist

from jmtl.data import multi_mnist, source
from jmtl.data.errors import DataUnavailable
from jmtl.data.tfds_compat import without_tensorflow

TRAIN, TEST = 60, 20
FILES = {
    "train-images-idx3-ubyte.gz": TRAIN,
    "train-labels-idx1-ubyte.gz": TRAIN,
    "t10k-images-idx3-ubyte.gz": TEST,
    "t10k-labels-idx1-ubyte.gz": TEST,
}
URL = "https://storage.googleapis.com/cvdf-datasets/mnist/"


def write_idx(path, values):
    """Writes uint8 values in the IDX format: magic number, sizes (big-endian), bytes."""
    header = struct.pack(f">{1 + values.ndim}I", 0x800 + values.ndim, *values.shape)
    path.write_bytes(gzip.compress(header + values.tobytes(), mtime=0))


def make_digits(count, seed):
    random = np.random.default_rng(seed)
    return {
        "images": random.integers(0, 256, (count, 28, 28), np.uint8),
        "labels": random.integers(0, 10, count, np.uint8),
    }


DIGITS = {"train": make_digits(TRAIN, 0), "t10k": make_digits(TEST, 1)}


def put_files(folder):
    folder.mkdir(parents=True)
    for name in FILES:
        split, kind = name.split("-")[:2]
        write_idx(folder / name, DIGITS[split][kind])


def refuse(*args, **kwargs):
    raise requests.ConnectionError("no network in the tests")


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    monkeypatch.setattr(requests.Session, "get", refuse)


@pytest.fixture
def tiny(monkeypatch, tmp_path):
    """A data folder with tiny files by hand; TFDS's mnist told their number and checksums."""
    manual = tmp_path / "downloads" / "manual" / "mnist"
    put_files(manual)
    monkeypatch.setattr(mnist, "_TRAIN_EXAMPLES", TRAIN)
    monkeypatch.setattr(mnist, "_TEST_EXAMPLES", TEST)
    for known in (mnist.MNIST.url_infos, checksums.get_all_url_infos()):
        for name in FILES:
            monkeypatch.setitem(known, URL + name, checksums.compute_url_info(manual / name))
    return tmp_path


def test_tfds_mnist_reads_the_files(tiny):
    builder = source.prepare("mnist", tiny)
    assert type(builder) is mnist.MNIST
    extracted = {p.name for p in (tiny / "downloads" / "extracted" / "mnist").iterdir()}
    assert extracted == {f"GZIP.{name}" for name in FILES}
    for split, digits in zip(("train", "test"), DIGITS.values(), strict=True):
        arrays = source.as_arrays(source.load(builder, split))
        # TFDS shuffles by a hash of the key.
        found = {
            (i.tobytes(), int(y)) for i, y in zip(arrays["image"], arrays["label"], strict=True)
        }
        wanted = zip(digits["images"], digits["labels"], strict=True)
        assert found == {(image.tobytes(), int(label)) for image, label in wanted}
    assert "tensorflow" not in sys.modules


def test_pairs(tiny):
    builder = source.prepare("multi_mnist", tiny)
    digits = source.prepare("mnist", tiny)
    digits = {split: source.as_arrays(source.load(digits, split)) for split in ("train", "test")}
    arrays = {
        split: source.as_arrays(source.load(builder, split))
        for split in ("train", "validation", "test")
    }
    assert {split: len(a["image"]) for split, a in arrays.items()} == {
        "train": 50,
        "validation": 10,
        "test": 20,
    }
    for split, pairs in arrays.items():
        sources = digits["test" if split == "test" else "train"]
        left, right = pairs["left_source"], pairs["right_source"]
        np.testing.assert_array_equal(np.sort(left), np.sort(right))
        assert len(set(left.tolist())) == len(left)
        assert (left != right).any()
        np.testing.assert_array_equal(pairs["left"], sources["label"][left])
        np.testing.assert_array_equal(pairs["right"], sources["label"][right])
        for image, a, b in zip(pairs["image"], left, right, strict=True):
            expected = by_pillow(sources["image"][a, ..., 0], sources["image"][b, ..., 0])
            np.testing.assert_array_equal(image, expected)
    assert not set(arrays["train"]["left_source"]) & set(arrays["validation"]["left_source"])


def by_pillow(left, right):
    canvas = np.maximum(np.pad(left, (0, 8)), np.pad(right, (6, 2)))
    return Image.fromarray(canvas).resize((28, 28), Image.Resampling.NEAREST)


def test_preparing_again_gives_the_same(tiny, tmp_path_factory):
    other = tmp_path_factory.mktemp("again")
    (other / "downloads" / "manual").mkdir(parents=True)
    (other / "downloads" / "manual" / "mnist").symlink_to(tiny / "downloads" / "manual" / "mnist")
    both = [source.prepare("multi_mnist", folder) for folder in (tiny, other)]
    first, second = (source.as_arrays(source.load(builder, "train")) for builder in both)
    for name, values in first.items():
        np.testing.assert_array_equal(values, second[name])


@pytest.mark.parametrize("name", ["mnist", "multi_mnist"])
def test_without_network_says_what_to_download_and_where_to_put_it(tmp_path, name, capfd, caplog):
    with pytest.raises(DataUnavailable) as caught:
        source.prepare(name, tmp_path)
    message = str(caught.value)
    for file in FILES:
        assert file in message
    assert URL in message
    assert str(tmp_path / "downloads" / "manual" / "mnist") in message
    assert "\n" not in message
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def test_only_missing_files_are_named(tiny):
    (tiny / "downloads" / "manual" / "mnist" / "t10k-labels-idx1-ubyte.gz").unlink()
    with pytest.raises(DataUnavailable, match=r"download t10k-labels-idx1-ubyte.gz from"):
        source.prepare("mnist", tiny)


def test_damaged_file_is_named(tiny):
    file = tiny / "downloads" / "manual" / "mnist" / "train-labels-idx1-ubyte.gz"
    file.write_bytes(file.read_bytes()[:-9])
    with pytest.raises(DataUnavailable, match=r"train-labels-idx1-ubyte.gz in .* wrong checksum"):
        source.prepare("mnist", tiny)


def test_registered_checksums_are_those_of_the_published_files(tmp_path):
    put_files(tmp_path / "downloads" / "manual" / "mnist")
    with pytest.raises(DataUnavailable, match="wrong checksum: download it again"):
        source.prepare("mnist", tmp_path)


def state():
    return (
        extractor.tf,
        mnist.tf,
        image_feature._ImageEncoder._encode_image,
        tqdm_utils._active,
        logging.getLogger("urllib3.connectionpool").level,
        logging.getLogger("absl").level,
    )


def test_patches_are_undone(tiny):
    before = state()
    with without_tensorflow(mnist.MNIST):
        assert extractor.tf is mnist.tf is not before[0]
    assert state() == before
    with pytest.raises(ZeroDivisionError), without_tensorflow(mnist.MNIST):
        1 / 0  # noqa: B018
    assert state() == before
    source.prepare("mnist", tiny)
    assert state() == before


@pytest.mark.parametrize(
    ("shape", "dtype"), [((5, 4, 1), np.uint8), ((5, 4, 3), np.uint8), ((5, 4, 4), np.uint8)]
)
def test_png_encoding_loses_nothing(shape, dtype):
    values = np.random.default_rng(0).integers(0, 256, shape).astype(dtype)
    feature = tfds.features.Image(shape=shape, dtype=dtype)
    with without_tensorflow(mnist.MNIST):
        encoded = feature.encode_example(values)
    np.testing.assert_array_equal(feature.decode_example_np(encoded), values)


def test_nearest_pixels():
    # On a ramp each pixel tells its own place: floor((i + 1/2) 36 / 28).
    ramp = np.tile(np.arange(28, dtype=np.uint8), (28, 1))
    row = multi_mnist.overlay(ramp, np.zeros_like(ramp))[0]
    np.testing.assert_array_equal(row[:5], [0, 1, 3, 4, 5])
