import numpy as np
import pytest
from scipy import ndimage
from sklearn.datasets import load_digits

from experiments.problems import digit_attributes as problem
from jmtl.data import source
from jmtl.data.multi_digits import source_rows
from jmtl.tasks import check_labels

SPLITS = ("train", "validation", "test")


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    builder = source.prepare("digit_attributes", tmp_path_factory.mktemp("digits"))
    return {split: source.as_arrays(source.load(builder, split)) for split in SPLITS}


def test_every_image_is_in_one_split(splits):
    images = load_digits().images.astype(np.uint8)
    rows = np.concatenate([splits[split]["row"] for split in SPLITS])
    np.testing.assert_array_equal(np.sort(rows), np.arange(len(images)))
    for split, expected in source_rows(load_digits().target).items():
        np.testing.assert_array_equal(splits[split]["row"], expected)
        np.testing.assert_array_equal(splits[split]["image"], images[expected])
    # Nor is there one image under two rows.
    seen = [{image.tobytes() for image in splits[split]["image"]} for split in SPLITS]
    assert sum(map(len, seen)) == len(set.union(*seen)) == len(images)


def test_attributes_are_those_of_the_images(splits):
    digits = load_digits()
    mass = digits.images.sum(axis=(1, 2))
    centroid = np.array([ndimage.center_of_mass(image) for image in digits.images])
    train = splits["train"]["row"]
    for arrays in splits.values():
        rows = arrays["row"]
        np.testing.assert_array_equal(arrays["digit"], digits.target[rows])
        np.testing.assert_array_equal(arrays["parity"], digits.target[rows] % 2)
        for name, values in (("mass", mass), ("centroid", centroid)):
            found = arrays[name] * values[train].std(axis=0) + values[train].mean(axis=0)
            np.testing.assert_allclose(found, values[rows], rtol=1e-5)
    for name in ("mass", "centroid"):
        np.testing.assert_allclose(splits["train"][name].mean(axis=0), 0, atol=1e-5)
        np.testing.assert_allclose(splits["train"][name].std(axis=0), 1, atol=1e-5)


def test_labels_are_what_the_tasks_take(splits):
    for arrays in splits.values():
        batch = problem.to_batch(arrays)
        check_labels(problem.PROBLEM.tasks, batch)
        assert batch.inputs.shape == (len(arrays["row"]), 8, 8)
        assert batch.inputs.max() == 1
