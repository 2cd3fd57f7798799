"""Data sets made from another one: their splits, what is converted, what is stored how."""

from typing import ClassVar

import numpy as np
import pytest
import tensorflow_datasets as tfds

from jmtl.data import source
from jmtl.data.derived import Derived
from jmtl.data.errors import DataUnavailable

COUNT = 50


class Pictures(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """What TFDS's data sets have: names as text, pictures as PNG, labels in a dictionary."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        return tfds.core.DatasetInfo(
            builder=self,
            features=tfds.features.FeaturesDict(
                {
                    "id": tfds.features.Text(),
                    "image": tfds.features.Image(shape=(5, 4, 3)),
                    "labels": {"even": np.bool_, "number": np.int64},
                }
            ),
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(COUNT), "test": self._generate_examples(10)}

    def _generate_examples(self, count):
        for i in range(count):
            labels = {"even": i % 2 == 0, "number": i}
            yield i, {"id": f"a{i}", "image": np.full((5, 4, 3), i, np.uint8), "labels": labels}


class Named(Pictures, skip_registration=True):
    """Names and pictures alone."""

    def _info(self):
        kept = dict(super()._info().features)
        del kept["labels"]
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(kept))

    def _generate_examples(self, count):
        for key, example in super()._generate_examples(count):
            yield key, {name: example[name] for name in ("id", "image")}


class Windows(Derived, skip_registration=True):
    """Windows of them."""

    SOURCE = Pictures
    SPLITS: ClassVar = {"train": "train[:80%]", "validation": "train[80%:]", "test": "test"}
    FEATURES: ClassVar = {
        "window": ((2, 2, 3), np.uint8),
        "flags": ((2,), np.bool_),
        "number": ((), np.int64),
    }

    def convert(self, example):
        labels = example["labels"]
        assert example["id"] == f"a{labels['number']}".encode()
        flags = [labels["even"], not labels["even"]]
        return {
            "window": example["image"][1:3, 1:3],
            "flags": np.array(flags),
            "number": labels["number"],
        }


class Evens(Windows, skip_registration=True):
    """Those of even numbers, to train; the others, to validate."""

    SPLITS: ClassVar = {"train": "train", "validation": "train"}

    def belongs(self, split, example):
        return bool(example["labels"]["even"]) == (split == "train")


def numbers(builder, split):
    return source.as_arrays(source.load(builder, split))["number"].tolist()


def test_splits_divide_the_source_and_examples_are_what_convert_gives(tmp_path, monkeypatch):
    monkeypatch.setattr("jmtl.data.derived._CHUNK", 16)
    builder = source.prepare(Windows, tmp_path)
    found = {split: numbers(builder, split) for split in Windows.SPLITS}
    assert {split: len(rows) for split, rows in found.items()} == {
        "train": 40,
        "validation": 10,
        "test": 10,
    }
    assert sorted(found["train"] + found["validation"]) == list(range(COUNT))
    assert found["train"] != sorted(found["train"])  # a random part of the source
    train = source.load(builder, "train")
    arrays = source.as_arrays(train)
    assert {name: (a.dtype, a.shape[1:]) for name, a in arrays.items()} == {
        "window": ("u1", (2, 2, 3)),
        "flags": ("?", (2,)),
        "number": ("i4", ()),
    }
    assert source.nbytes(train) == sum(a.nbytes for a in arrays.values())
    number = arrays["number"]
    np.testing.assert_array_equal(
        arrays["window"], np.broadcast_to(number[:, None, None, None], (40, 2, 2, 3))
    )
    np.testing.assert_array_equal(arrays["flags"][:, 0], number % 2 == 0)
    # The source lies beside it, and its order is that of the slice.
    original = source.load(source.prepare(Pictures, tmp_path), "train[:80%]")
    assert [example["labels"]["number"] for example in original] == found["train"]


def test_examples_of_a_slice_may_belong_to_other_splits(tmp_path):
    builder = source.prepare(Evens, tmp_path)
    assert sorted(numbers(builder, "train")) == list(range(0, COUNT, 2))
    assert sorted(numbers(builder, "validation")) == list(range(1, COUNT, 2))


def test_what_the_source_lacks_is_said_of_the_source(tmp_path, monkeypatch):
    def unavailable(*args):
        raise DataUnavailable("pictures: put a.zip into b")

    monkeypatch.setattr(Pictures, "_split_generators", unavailable)
    with pytest.raises(DataUnavailable, match=r"^pictures: put a\.zip into b$"):
        source.prepare(Windows, tmp_path)


def test_text_is_not_read_into_arrays(tmp_path):
    part = source.load(source.prepare(Named, tmp_path), "train[90%:]")
    arrays = source.as_arrays(part)
    assert {name: a.shape for name, a in arrays.items()} == {"image": (5, 5, 4, 3)}
    assert source.nbytes(part) == arrays["image"].nbytes
    assert part[0]["id"] == b"a%d" % arrays["image"][0, 0, 0, 0]
