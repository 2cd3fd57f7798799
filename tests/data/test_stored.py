"""Batches read at once are, byte for byte, the examples that TFDS decodes one by one."""

import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds
from tensorflow_datasets.proto import tf_example_pb2

from jmtl.data import multi_digits, scenes, smart_home, source, stored
from jmtl.data import split as splits
from jmtl.data.errors import DataDamaged
from jmtl.data.nyuv2 import Nyuv2
from tests.data.test_derived import Named
from tests.data.test_source import Squares

COUNT = 40
KINDS = ("bool", "int8", "uint8", "int16", "int32", "int64", "float16", "float32", "float64")


class Everything(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """Every dtype as number and array in every encoding, with numbers of one to ten bytes."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        features = {"text": tfds.features.Text(), "label": tfds.features.ClassLabel(num_classes=9)}
        for kind in KINDS:
            dtype = np.dtype(kind)
            features[kind] = tfds.features.Scalar(dtype=dtype)
            for encoding in ("none", "bytes", "zlib"):
                features[f"{kind}_{encoding}"] = tfds.features.Tensor(
                    shape=(3, 2), dtype=dtype, encoding=encoding
                )
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True
        )

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        rng = np.random.default_rng(0)
        for i in range(COUNT):
            example = {"text": "long" * i, "label": i % 9}
            for name, feature in self.info.features.items():
                if name in example:
                    continue
                shape, dtype = feature.shape, feature.np_dtype
                if np.dtype(dtype).kind == "i":
                    most = int(rng.integers(1, 8 * np.dtype(dtype).itemsize))
                    values = rng.integers(-(2**most), 2**most - 1, shape, endpoint=True)
                else:
                    values = rng.normal(size=shape) * 10 if dtype != np.uint8 else i * 6
                example[name] = np.broadcast_to(values, shape).astype(dtype)[()]
            yield i, example


def prepared(name, folder, monkeypatch):
    if name == "nyuv2":
        monkeypatch.setattr(Nyuv2, "SIZE", (4, 6))
        rng = np.random.default_rng(0)
        for part, shape in {"image": (3,), "label": (), "depth": (1,), "normal": (3,)}.items():
            for where in ("train", "val"):
                path = folder / "downloads/manual/nyuv2" / where / part
                path.mkdir(parents=True)
                for i in range(6):
                    np.save(path / f"{i}.npy", rng.normal(size=(4, 6, *shape)).astype(np.float32))
    monkeypatch.setattr(scenes, "COUNTS", dict.fromkeys(scenes.COUNTS, 6))
    monkeypatch.setattr(smart_home, "COUNTS", dict.fromkeys(smart_home.COUNTS, 30))
    monkeypatch.setattr(multi_digits, "PAIRS", dict.fromkeys(multi_digits.PAIRS, 150))
    return source.prepare(name, folder)


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        assert (found[name].dtype, found[name].shape) == (values.dtype, values.shape), name
        assert found[name].tobytes() == values.tobytes(), name
        assert found[name].flags.writeable


@pytest.mark.parametrize(
    "name",
    [
        *("multi_digits", "digit_attributes", "smart_home", "scenes/16", "nyuv2"),
        *("tabular/wine", "tabular/breast_cancer", "tabular/diabetes", Everything),
    ],
)
def test_batches_are_what_tfds_decodes(name, tmp_path, monkeypatch):
    builder = prepared(name, tmp_path, monkeypatch)
    one_by_one = builder.as_data_source("train")
    split = source.load(builder, "train")
    features = builder.info.features
    monkeypatch.setattr(splits, "stacked", None)  # nothing is left to TFDS
    n, rng = len(split), np.random.default_rng(1)
    assert n == len(one_by_one)
    for rows in (np.arange(n), rng.integers(0, n, 7), np.array([n - 1])):
        expected = stacked(one_by_one.__getitems__(rows.tolist()))
        assert_same(stored.decode(split.records(rows), stored.columns_of(features)), expected)
        canonical = {
            name: values.astype(jax.dtypes.canonicalize_dtype(values.dtype))
            for name, values in expected.items()
        }
        assert_same(source.read(split, rows), canonical)


def stacked(examples):
    return {
        name: np.stack([example[name] for example in examples])
        for name, value in examples[0].items()
        if not isinstance(value, bytes)
    }


def test_slices_and_several_files(tmp_path, monkeypatch):
    builder = source.prepare(Squares, tmp_path)
    split = source.load(builder, "train[2:9]")
    assert split.arrays(np.array([6, 0]))["y"].tolist() == [64, 4]
    assert [int(example["y"]) for example in split] == [i * i for i in range(2, 9)]
    # The same file twice, as two shards.
    twice = source.load(builder, "train[1:4]+train[8:]")
    rows = np.array([6, 0, 3, 2, 3])
    assert twice.arrays(rows)["y"].tolist() == [121, 1, 64, 9, 64]
    for wrong in ([7], [-1]):
        with pytest.raises(IndexError, match="of 7 examples"):
            twice.records(wrong)


def test_pictures_are_left_to_tfds(tmp_path):
    split = source.load(source.prepare(Named, tmp_path), "train[:3]")
    assert stored.columns_of(split.dataset_info.features) is None
    images = source.read(split, np.array([2, 0]))
    assert images.keys() == {"image"}
    for image, row in zip(images["image"], (2, 0), strict=True):
        np.testing.assert_array_equal(image, split[row]["image"])


def field(tag, content):
    size = len(content)
    assert size < 2**14
    return bytes([tag, size] if size < 128 else [tag, size & 127 | 128, size >> 7]) + content


def entry(name, tag, *values):
    listed = field(tag, b"".join(field(0x0A, each) for each in values))
    return field(0x0A, field(0x0A, name.encode()) + field(0x12, listed))


def record(*entries):
    return field(0x0A, b"".join(entries))


COLUMNS = {
    "a": stored.Column(0x1A, (2,), np.dtype(np.int64), np.dtype(np.int32)),
    "b": stored.Column(0x0A, (300,), np.dtype(np.uint8), np.dtype(np.uint8)),
}


def test_records_in_other_orders_and_with_more_in_them():
    long = [bytes([i]) * 300 for i in range(4)]
    a = [entry("a", 0x1A, bytes(x)) for x in ([1, 2], [3, 129, 1], [127, 0], [128, 1, 5])]
    b = [entry("b", 0x0A, x) for x in long]
    more = [entry("c", 0x12, bytes(4 * i)) for i in range(4)]
    records = [
        record(a[0], b[0], more[0]),
        record(more[1], b[1], a[1]),
        record(b[2], a[2], more[2]),
        record(a[3], more[3], b[3]),
    ]
    for each in records:
        assert set(tf_example_pb2.Example.FromString(each).features.feature) == {"a", "b", "c"}
    found = stored.decode(records, COLUMNS)
    assert found["a"].tolist() == [[1, 2], [3, 129], [127, 0], [128, 5]]
    assert found["b"].tobytes() == b"".join(long)


A, B = entry("a", 0x1A, bytes([1, 2])), entry("b", 0x0A, bytes(300))


@pytest.mark.parametrize(
    "odd",
    [
        b"",
        record(A),  # a feature is missing
        record(A, entry("c", 0x0A, bytes(300))),
        record(A, entry("b", 0x0A, bytes(299))),
        record(entry("a", 0x12, bytes(2)), B),  # another kind
        record(entry("a", 0x1A, bytes([1]), bytes([2])), B),  # in two pieces
        record(entry("a", 0x1A, bytes([1])), B),
        record(entry("a", 0x1A, bytes([1, 2, 3])), B),
        record(entry("a", 0x1A, bytes([1, 130])), B),  # a number does not end
        record(A, B)[:-1],
        record(A, B, B),
        record(A, B) + b"more",
        b"\x0b" + record(A, B)[1:],
    ],
)
@pytest.mark.parametrize("place", [0, 1])
def test_records_of_another_form_are_refused(odd, place):
    records = [record(A, B), record(A, B)]
    assert stored.decode(records, COLUMNS)["a"].tolist() == [[1, 2], [1, 2]]
    records.insert(place, odd)
    with pytest.raises(stored.Unexpected):
        stored.decode(records, COLUMNS)


def test_records_of_another_form_are_read_by_tfds(tmp_path, monkeypatch):
    split = source.load(source.prepare(Squares, tmp_path), "train")
    rows = np.array([3, 5])
    expected = split.arrays(rows)
    pieces = split.records(rows.tolist())
    # A second entry of a name stands for the first: TFDS knows.
    pieces[0] = field(0x0A, pieces[0][2:] + entry("y", 0x1A, bytes([9])))
    with pytest.raises(stored.Unexpected):
        stored.decode(pieces, stored.columns_of(split.dataset_info.features))
    monkeypatch.setattr(splits.Split, "records", lambda self, rows: pieces)
    assert_same(split.arrays(rows), expected)


# Files that are damaged


def file_of(split):
    (path,) = set(split._paths)
    return path


def flip(path):
    data = bytearray(path.read_bytes())
    for i in range(100, 4000):
        data[i] ^= 255
    path.write_bytes(data)


def cut(path):
    path.write_bytes(path.read_bytes()[:500])


@pytest.mark.parametrize("opened", [True, False])
@pytest.mark.parametrize("damage", [flip, cut, lambda path: path.unlink()])
def test_a_damaged_file_is_named(damage, opened, tmp_path):
    split = source.load(source.prepare(Squares, tmp_path), "train")
    path = file_of(split)
    if opened:
        split.arrays(np.array([11]))
    whole = path.read_bytes()
    damage(path)
    if opened and not path.exists():  # the system keeps the file while it is open
        assert split.arrays(np.arange(12))["y"].tolist() == [i * i for i in range(12)]
        return
    for read in (split.arrays, split.__getitems__):
        with pytest.raises(DataDamaged) as refusal:
            read(np.arange(12))
        said = str(refusal.value)
        assert said.startswith(f"{path} cannot be read (")
        assert said.endswith(f"or remove {path.parent} to have the data set prepared again")
        assert "\n" not in said
    path.write_bytes(whole)
    again = source.load(source.prepare(Squares, tmp_path), "train")
    assert again.arrays(np.array([3]))["y"].tolist() == [9]
