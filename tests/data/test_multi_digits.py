import hashlib

import numpy as np
import pytest
from sklearn.datasets import load_digits

from jmtl.data import source
from jmtl.data.multi_digits import PAIRS, overlay, source_rows

SPLITS = ["train", "validation", "test"]


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    builder = source.prepare("multi_digits", tmp_path_factory.mktemp("digits"))
    return {split: source.as_arrays(source.load(builder, split)) for split in SPLITS}


def sources(arrays):
    return set(arrays["left_source"].tolist()) | set(arrays["right_source"].tolist())


def test_sizes_and_types(splits):
    assert {split: len(a["image"]) for split, a in splits.items()} == PAIRS
    for arrays in splits.values():
        assert arrays["image"].shape[1:] == (10, 10)
        assert arrays["image"].dtype == np.uint8
        assert arrays["image"].max() == 16
        assert arrays["left"].dtype == np.int32


def test_no_source_image_is_in_two_splits(splits):
    images = load_digits().images.astype(np.uint8)
    train, validation, test = (sources(splits[split]) for split in SPLITS)
    assert not train & validation
    assert not train & test
    assert not validation & test
    # Nor is there one image under two rows.
    seen = [{images[row].tobytes() for row in rows} for rows in (train, validation, test)]
    assert sum(map(len, seen)) == len(set.union(*seen))


def test_sources_are_divided_60_20_20_with_the_classes_in_equal_shares():
    labels = load_digits().target
    rows = source_rows(labels)
    np.testing.assert_array_equal(np.sort(np.concatenate(list(rows.values()))), np.arange(1797))
    for split, share in zip(SPLITS, (0.6, 0.2, 0.2), strict=True):
        counts = np.bincount(labels[rows[split]])
        np.testing.assert_allclose(counts, share * np.bincount(labels), atol=1)


def test_every_pair_is_its_two_sources(splits):
    digits = load_digits()
    for arrays in splits.values():
        left, right = arrays["left_source"], arrays["right_source"]
        np.testing.assert_array_equal(arrays["left"], digits.target[left])
        np.testing.assert_array_equal(arrays["right"], digits.target[right])
        for i in range(0, len(left), 101):
            canvas = np.zeros((10, 10))
            canvas[0:8, 0:8] = digits.images[left[i]]
            canvas[2:10, 2:10] = np.maximum(canvas[2:10, 2:10], digits.images[right[i]])
            np.testing.assert_array_equal(arrays["image"][i], canvas)


def test_left_and_right_are_independent(splits):
    counts = np.zeros((10, 10))
    np.add.at(counts, (splits["train"]["left"], splits["train"]["right"]), 1)
    expected = counts.sum(1, keepdims=True) * counts.sum(0, keepdims=True) / counts.sum()
    # Pearson's statistic has 81 degrees of freedom: mean 81, standard deviation 12.7.
    assert ((counts - expected) ** 2 / expected).sum() < 150


def test_preparing_again_gives_the_same(splits, tmp_path):
    builder = source.prepare("multi_digits", tmp_path)
    for split in SPLITS:
        again = source.as_arrays(source.load(builder, split))
        assert again.keys() == splits[split].keys()
        for name, values in again.items():
            np.testing.assert_array_equal(values, splits[split][name])


def test_version_1_is_these_pairs(splits):
    # A change of the pairs needs a new VERSION, as prepared copies of the old one exist.
    digest = hashlib.sha256()
    for split in SPLITS:
        for name in ("image", "left", "right", "left_source", "right_source"):
            digest.update(splits[split][name].tobytes())
    assert digest.hexdigest()[:16] == "0850d30e0eac6c0e"


def test_overlay_takes_the_larger_value():
    left = np.full((1, 8, 8), 5, np.uint8)
    right = np.full((1, 8, 8), 3, np.uint8)
    canvas = overlay(left, right)[0]
    assert canvas[:8, :8].min() == 5
    assert canvas[8:, 2:].min() == canvas[2:, 8:].min() == 3
    assert canvas[8:, :2].max() == canvas[:2, 8:].max() == 0
