import numpy as np
import pytest

from jmtl.data import source
from jmtl.data.cityscapes import Cityscapes
from jmtl.data.errors import DataUnavailable
from jmtl.data.nyuv2 import Nyuv2

COUNTS = {"train": 11, "val": 3}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """NYUv2 in the published layout, with pictures of 4 × 6 pixels."""
    monkeypatch.setattr(Nyuv2, "SIZE", (4, 6))
    rng = np.random.default_rng(0)
    for part, count in COUNTS.items():
        for i in range(count):
            arrays = {
                "image": rng.random((4, 6, 3)).astype(np.float32),
                "label": rng.integers(-1, 13, (4, 6)).astype(np.float64),
                "depth": rng.random((4, 6, 1)).astype(np.float32) * 9,
                "normal": rng.normal(size=(4, 6, 3)).astype(np.float32),
            }
            for name, values in arrays.items():
                path = tmp_path / "downloads/manual/nyuv2" / part / name / f"{i}.npy"
                path.parent.mkdir(parents=True, exist_ok=True)
                np.save(path, values)
    return tmp_path


def loaded(folder, part, name, rows):
    manual = folder / "downloads/manual/nyuv2" / part / name
    return np.stack([np.load(manual / f"{i}.npy") for i in rows])


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("nyuv2", {"train": range(9), "validation": range(9, 11), "test": range(3)}),
        ("nyuv2/own", {"train": range(9), "validation": range(9, 11), "test": range(3)}),
        ("nyuv2/published", {"train": range(11), "test": range(3)}),
    ],
)
def test_files_become_splits(folder, name, rows):
    builder = source.prepare(name, folder)
    assert set(builder.info.splits) == set(rows)
    for split, chosen in rows.items():
        arrays = source.as_arrays(source.load(builder, split))
        part = "val" if split == "test" else "train"
        for feature in ("image", "normal"):
            np.testing.assert_array_equal(arrays[feature], loaded(folder, part, feature, chosen))
        depth = loaded(folder, part, "depth", chosen)
        np.testing.assert_array_equal(arrays["depth"], depth[..., 0])
        np.testing.assert_array_equal(arrays["label"], loaded(folder, part, "label", chosen))
        assert arrays["label"].dtype == np.int8


def test_no_files(tmp_path):
    where = tmp_path / "downloads/manual/cityscapes"
    with pytest.raises(DataUnavailable) as refusal:
        source.prepare("cityscapes", tmp_path)
    assert str(refusal.value) == (
        "cityscapes cannot be downloaded by a program: put its folders train and val, each with "
        f"image, label, depth, into {where} (the 128x256 version of CityScapes linked from "
        f"github.com/lorenmt/mtan); no .npy file is in {where / 'train/image'}"
    )
    assert not (tmp_path / "cityscapes/own/1.0.0").exists()
    assert Cityscapes.SIZE == (128, 256)


def test_a_folder_may_have_its_other_name(tmp_path, monkeypatch):
    # As MTAN's authors name it, beside labels of 2 and 19 classes.
    monkeypatch.setattr(Cityscapes, "SIZE", (2, 3))
    for part in COUNTS:
        for name in ("image", "label_7", "depth"):
            shape = {"image": (2, 3, 3), "depth": (2, 3, 1)}.get(name, (2, 3))
            path = tmp_path / "downloads/manual/cityscapes" / part / name / "0.npy"
            path.parent.mkdir(parents=True)
            np.save(path, np.full(shape, len(part)))
    builder = source.prepare("cityscapes/published", tmp_path)
    arrays = source.as_arrays(source.load(builder, "train"))
    np.testing.assert_array_equal(arrays["label"], np.full((1, 2, 3), 5))


def damaged(path):
    path.write_bytes(path.read_bytes()[:40])


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        (
            "train/depth/4.npy",
            lambda path: np.save(path, np.zeros((4, 7, 1))),
            r"depth/4\.npy has the shape \(4, 7, 1\); expected \(4, 6, 1\)",
        ),
        ("val/normal/1.npy", lambda path: path.unlink(), r"val/normal/1\.npy is missing"),
        (
            "train/image/10.npy",
            lambda path: path.unlink(),
            "train has 10 of image, 11 of label, 11 of depth, 11 of normal: there must be as many",
        ),
        ("train/label/0.npy", damaged, r"label/0\.npy cannot be read as an array: "),
    ],
)
def test_files_that_do_not_fit(folder, file, change, message):
    change(folder / "downloads/manual/nyuv2" / file)
    with pytest.raises(DataUnavailable, match=message):
        source.prepare("nyuv2", folder)
