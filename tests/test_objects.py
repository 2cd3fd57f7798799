"""Objects by their centres: maps by hand, losses against a plain reference, and the way back."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmtl import objects

SIDE, CLASSES = 8, 2


def example(seed, n=3, room=4):
    """Labels with objects of any place and size, and padding of both kinds."""
    rng = np.random.default_rng(seed)
    sides = rng.uniform(0.05, 0.6, (n, room, 2))
    corner = rng.uniform(0, 1, (n, room, 2)) * (1 - sides)
    kinds = rng.integers(-1, CLASSES, (n, room, 1))
    label = np.concatenate([corner, corner + sides, kinds], -1)
    label[0, 0, 2:4] = 1  # its centre may lie in the last cell
    label[1, 0] = [0.3, 0.4, 0.3, 0.9, 1]  # without an area
    label[2] = -1
    return label.astype(np.float32), rng.normal(size=(n, SIDE, SIDE, CLASSES + 4))


def plain_loss(output, label):
    """The loss of one image, cell by cell and object by object, in float64."""
    truth = np.zeros((SIDE, SIDE, CLASSES))
    real = [o for o in label if o[4] >= 0 and o[2] > o[0] and o[3] > o[1]]
    total = 0.0
    for top, left, bottom, right, kind in real:
        y, x = (top + bottom) / 2 * SIDE, (left + right) / 2 * SIDE
        height, width = (bottom - top) * SIDE, (right - left) * SIDE
        i, j = min(int(y), SIDE - 1), min(int(x), SIDE - 1)
        rows, columns = np.mgrid[:SIDE, :SIDE]
        spot = ((rows - i) / (0.09 * height)) ** 2 + ((columns - j) / (0.09 * width)) ** 2
        truth[..., int(kind)] = np.maximum(truth[..., int(kind)], np.exp(-spot / 2))
        h, w, dy, dx = output[i, j, CLASSES:]
        total += 0.1 * (abs(h - height) + abs(w - width)) + abs(dy - (y - i)) + abs(dx - (x - j))
    p = 1 / (1 + np.exp(-output[..., :CLASSES]))
    right = -((1 - p) ** 2) * np.log(p)
    wrong = -((1 - truth) ** 4) * p**2 * np.log(1 - p)
    return (total + np.where(truth == 1, right, wrong).sum()) / max(len(real), 1)


@pytest.mark.parametrize("seed", range(2))
def test_the_detection_loss_against_a_plain_reference(seed):
    label, output = example(seed)
    expected = [plain_loss(o, y.astype(np.float64)) for o, y in zip(output, label, strict=True)]
    actual = jax.jit(objects.detection_loss)(output.astype(np.float32), label)
    np.testing.assert_allclose(actual, expected, rtol=2e-5)
    assert list(objects.object_count(label))[2] == 1


def test_centres_by_hand():
    boxes = [[0, 0, 0.5, 0.25, 0], [0.25, 0.5, 1, 1, 1], [0.25, 0.5, 1, 1, -1], [0, 0, 0, 0, 0]]
    given = objects.objects(np.array([boxes], np.float32))
    maps = np.asarray(objects.centre_maps(given, CLASSES, (8, 16)))[0]
    assert maps.shape == (8, 16, 2)
    np.testing.assert_array_equal(np.argwhere(maps == 1), [[2, 2, 0], [5, 12, 1]])
    # A box of 4 × 4 cells: standard deviations of 0.36 of them both ways.
    np.testing.assert_allclose(maps[3, 2, 0], np.exp(-0.5 / 0.36**2), rtol=1e-5)
    np.testing.assert_allclose(maps[2, 3, 0], np.exp(-0.5 / 0.36**2), rtol=1e-5)
    np.testing.assert_allclose(maps[4, 13, 1], np.exp(-0.5 / 0.54**2 - 0.5 / 0.72**2), rtol=1e-5)


def test_what_is_trained_towards_is_what_is_read():
    label, _ = example(5)
    given = objects.objects(label)
    output = np.zeros((len(label), SIDE, SIDE, CLASSES + 4), np.float32)
    truth = objects.centre_maps(given, CLASSES, (SIDE, SIDE))
    output[..., :CLASSES] = np.where(truth == 1, 9.0, -9.0)
    for i, image in enumerate(label):
        for top, left, bottom, right, _ in image[given.real[i]]:
            y, x = (top + bottom) / 2 * SIDE, (left + right) / 2 * SIDE
            cell = min(int(y), SIDE - 1), min(int(x), SIDE - 1)
            sides = (bottom - top) * SIDE, (right - left) * SIDE
            output[i, cell[0], cell[1], CLASSES:] = [*sides, y - cell[0], x - cell[1]]
    assert (objects.detection_loss(output, label) < 0.01).all()
    found = objects.detections(jnp.asarray(output), 5)
    for i, image in enumerate(label):
        claimed = np.asarray(found.scores[i]) == 9
        rows = np.concatenate([found.boxes[i], found.classes[i][:, None]], -1)[claimed]
        true = image[np.asarray(given.real[i])]
        order = lambda x: x[np.lexsort(x.T.round(3))]
        np.testing.assert_allclose(order(rows), order(true), atol=1e-5)


def test_a_peak_is_the_largest_of_nine_and_the_rest_is_not_found():
    output = np.zeros((1, 4, 4, 6), np.float32)
    output[..., :2] = -np.arange(32.0).reshape(4, 4, 2)  # falls along rows: one peak a class
    output[0, 3, 3, 1] = 7
    output[..., 2:4] = [2, -1]  # a side below 0 is none
    found = objects.detections(jnp.asarray(output), 40)
    assert found.boxes.shape == (1, 32, 4)
    np.testing.assert_array_equal(found.scores[0, :4], [7, 0, -1, -np.inf])
    np.testing.assert_array_equal(found.classes[0, :3], [1, 0, 1])
    np.testing.assert_array_equal(found.boxes[0, :2], [[0.5, 0.75, 1, 0.75], [0, 0, 0.25, 0]])


def test_an_object_of_no_known_class_gives_no_number():
    label, output = example(3)
    label[0, 1] = [0.1, 0.1, 0.4, 0.4, CLASSES]
    values = objects.detection_loss(output.astype(np.float32), label)
    np.testing.assert_array_equal(np.isnan(values), [True, False, False])


def test_the_tracking_loss_by_hand():
    label = np.zeros((2, 2, 5), np.float32)
    label[0] = [[0.1, 0.9, 0.1, -0.2, 1], [0.6, 0.2, 0.5, 0.5, 0]]
    output = np.zeros((2, 4, 2, 2), np.float32)
    output[0, 0, 1] = [1, 0]
    # 4 cells high, 2 wide: true displacement (0.4, -0.4) of them.
    np.testing.assert_allclose(objects.tracking_loss(output, label), [0.6 + 0.4, 0], rtol=1e-6)
    np.testing.assert_array_equal(objects.tracked_count(label), [1, 0])
