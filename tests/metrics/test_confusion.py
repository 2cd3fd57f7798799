"""Metrics of pixels and tokens against scikit-learn and by hand."""

import numpy as np
import pytest
from sklearn import metrics as sk

from jmtl import losses, metrics
from tests.metrics.sums import scorer

PIXELS, TAGS = scorer(metrics.segmentation(4)), scorer(metrics.tagging(3, losses.known))


@pytest.mark.parametrize("seed", range(3))
def test_segmentation_is_scikit_learns(seed):
    rng = np.random.default_rng(seed)
    output = rng.normal(size=(6, 5, 5, 4)).astype(np.float32)
    label = np.where(rng.random((6, 5, 5)) < 0.2, 255, rng.integers(0, 4, (6, 5, 5)))
    present = rng.random(6) < 0.8
    found = PIXELS(output, label.astype(np.uint8), present, batches=3)
    counted = (label != 255) & present[:, None, None]
    y, p = label[counted], output.argmax(-1)[counted]
    np.testing.assert_allclose(found["miou"], sk.jaccard_score(y, p, average="macro"), rtol=1e-6)
    np.testing.assert_allclose(found["pixel_accuracy"], (y == p).mean(), rtol=1e-6)


def test_a_class_that_is_nowhere_is_left_out_of_the_mean():
    # Class 0: 1 of 2; class 1: 1 of 2; class 2: found once, never there, 0 of 1; class 3: nowhere.
    label = np.array([[[0, 0, 1, 1, 255]]], np.int32)
    output = np.eye(4, dtype=np.float32)[np.array([[[0, 1, 1, 2, 3]]])]
    found = PIXELS(output, label)
    np.testing.assert_allclose(found["miou"], (1 / 2 + 1 / 3 + 0) / 3, rtol=1e-6)
    np.testing.assert_allclose(found["pixel_accuracy"], 2 / 4, rtol=1e-6)
    nothing = PIXELS(output, np.full_like(label, -1))
    assert np.isnan(list(nothing.values())).all()


def test_a_class_may_be_left_out():
    score = scorer(metrics.segmentation(2, lambda label: losses.outside(label, (0,))))
    label = np.array([[[0, 1, 1]]], np.int32)
    output = np.eye(2, dtype=np.float32)[np.array([[[1, 1, 0]]])]
    assert score(output, label)["pixel_accuracy"] == 1 / 2


def test_pixels_of_a_whole_split_may_be_more_than_an_int32_holds():
    counts = np.array([[3, 1], [1, 5]], np.int64) * 10**9
    found = metrics.segmentation(2).compute(counts)
    np.testing.assert_allclose(found["miou"], (3 / 5 + 5 / 7) / 2, rtol=1e-6)
    np.testing.assert_allclose(found["pixel_accuracy"], 8 / 10, rtol=1e-6)


def test_tagging_by_hand():
    label = np.array([[0, 1, -1, -1], [2, 2, 1, 0], [-1] * 4, [1, 0, -1, -1]], np.int32)
    tags = np.array([[0, 1, 2, 2], [2, 2, 1, 1], [0] * 4, [1, 0, 0, 0]])
    output = np.eye(3, dtype=np.float32)[tags]
    found = TAGS(output, label)
    assert found["accuracy"] == pytest.approx(7 / 8)
    assert found["sequence_accuracy"] == pytest.approx(2 / 3)
    y, p = label[label >= 0], tags[label >= 0]
    assert found["f1"] == pytest.approx(sk.f1_score(y, p, average="macro"))
    absent = TAGS(output, label, np.array([True, True, True, False]))
    assert absent["sequence_accuracy"] == pytest.approx(1 / 2)
    nothing = TAGS(output, np.full_like(label, -1))
    assert np.isnan(list(nothing.values())).all()


@pytest.mark.parametrize("make", [metrics.segmentation, metrics.tagging])
def test_one_class_is_refused(make):
    with pytest.raises(ValueError, match="num_classes=1"):
        make(1)
