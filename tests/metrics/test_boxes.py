"""Mean average precision against a plain reference and by hand; the error of displacements."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmtl import metrics
from jmtl.metrics.boxes import match, overlap
from jmtl.objects import detections
from tests.metrics.sums import scorer
from tests.metrics.test_scores import bin_values

SIDE, CLASSES = 16, 2
SCORE = scorer(metrics.detection(CLASSES, 12))


def painted(found):
    """An output of `[n, SIDE, SIDE, C + 4]` that claims the objects `(logit, class, box)`.

    Every object's centre is a cell of its own, apart from the others'.
    """
    maps = np.zeros((len(found), SIDE, SIDE, CLASSES + 4), np.float32)
    maps[..., :CLASSES] = -30 - np.arange(SIDE**2).reshape(SIDE, SIDE, 1) / 64
    for image, objects in zip(maps, found, strict=True):
        for logit, kind, box in objects:
            top, left, bottom, right = np.array(box) * SIDE
            centre = np.array([top + bottom, left + right]) / 2
            cell = np.floor(centre).astype(int)
            image[cell[0], cell[1], kind] = logit
            image[cell[0], cell[1], CLASSES:] = [bottom - top, right - left, *(centre - cell)]
    return maps


def labels(objects, room=4):
    filled = [[*box, kind] for kind, box in objects] + [[0.0] * 4 + [-1]] * (room - len(objects))
    return np.array(filled, np.float32)


def map50(*given):
    return float(SCORE(*given)["map50"])


A, B, C = (0.0, 0.0, 0.4, 0.4), (0.5, 0.5, 1.0, 1.0), (0.0, 0.5, 0.4, 1.0)
NEAR_A = (0.0, 0.125, 0.4, 0.525)  # intersection over union 0.52 with A
FAR_A = (0.0, 0.15, 0.4, 0.55)  # 0.4545


def test_by_hand():
    # Hits and misses by falling score: H H M M H, of 3 objects: 1/3 (1 + 1 + 3/5).
    found = [
        [(3.0, 0, A), (1.5, 0, NEAR_A), (1.0, 0, C), (0.5, 0, B)],
        [(2.0, 0, A)],
    ]
    label = np.stack([labels([(0, A), (0, B)]), labels([(0, A)])])
    assert map50(painted(found), label) == pytest.approx((1 + 1 + 3 / 5) / 3)
    # An object of the other class that is not found halves the mean, and a claim of it elsewhere
    # changes nothing; nor does anything in an absent image.
    label[1, 1] = [*B, 1]
    found[0].append((5.0, 1, (0.5, 0.0, 0.9, 0.4)))
    assert map50(painted(found), label) == pytest.approx((1 + 1 + 3 / 5) / 3 / 2)
    assert map50(painted(found), label, np.array([True, False])) == pytest.approx((1 + 2 / 4) / 2)


def test_the_overlap_decides():
    label = np.stack([labels([(0, A)])])
    assert map50(painted([[(1.0, 0, NEAR_A)]]), label) == 1
    assert map50(painted([[(1.0, 0, FAR_A)]]), label) == 0
    assert map50(painted([[(1.0, 1, A)]]), label) == 0
    assert np.isnan(map50(painted([[(1.0, 0, A)]]), np.stack([labels([])])))
    boxes = [np.array([box], np.float32) for box in (A, NEAR_A, FAR_A, B)]
    found = [float(overlap(boxes[0], other)[0, 0]) for other in boxes]
    np.testing.assert_allclose(found, [1, 0.275 / 0.525, 0.25 / 0.55, 0], rtol=1e-5)


def test_an_object_is_found_once_and_the_next_best_instead():
    overlaps = jnp.array([[0.9, 0.6], [0.8, 0.7], [0.95, 0.9], [0.0, 0.0]])
    np.testing.assert_array_equal(match(overlaps, 0.5), [True, True, False, False])
    np.testing.assert_array_equal(match(overlaps, 0.75), [True, False, True, False])


def reference(found, label):
    """COCO's matching and VOC's area, detection by detection, in float64."""
    areas = []
    for kind in range(CLASSES):
        rows, total = [], 0
        for i, truth in enumerate(label):
            true = [t[:4].astype(np.float64) for t in truth if t[4] == kind]
            total += len(true)
            free = set(range(len(true)))
            mine = [j for j in np.argsort(-found.scores[i]) if found.classes[i, j] == kind]
            for j in mine:
                box = found.boxes[i, j].astype(np.float64)
                best, which = 0.0, None
                for t in free:
                    sides = np.minimum(box[2:], true[t][2:]) - np.maximum(box[:2], true[t][:2])
                    both = np.prod(np.maximum(sides, 0))
                    area = lambda b: np.prod(b[2:] - b[:2])
                    iou = both / (area(box) + area(true[t]) - both)
                    if iou > best:
                        best, which = iou, t
                rows.append((float(found.scores[i, j]), best >= 0.5))
                if best >= 0.5:
                    free.remove(which)
        if total:
            hits = np.array([hit for _, hit in sorted(rows, key=lambda r: -r[0])])
            precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
            envelope = np.maximum.accumulate(precision[::-1])[::-1]
            areas.append((envelope * hits).sum() / total)
    return np.mean(areas)


@pytest.mark.parametrize("seed", range(3))
def test_against_a_plain_reference(seed):
    rng, n = np.random.default_rng(seed), 5
    corner = rng.uniform(0, 0.6, (n, 4, 2))
    boxes = np.concatenate([corner, corner + rng.uniform(0.2, 0.4, (n, 4, 2))], -1)
    label = np.concatenate([boxes, rng.integers(-1, CLASSES, (n, 4, 1))], -1).astype(np.float32)
    output = rng.normal(size=(n, SIDE, SIDE, CLASSES + 4)).astype(np.float32)
    output[..., CLASSES : CLASSES + 2] = SIDE * 0.3
    claims = [
        [
            (rng.normal() + 3, int(kind), np.clip(box + rng.normal(size=4) / 40, 0, 1))
            for *box, kind in truth
            if kind >= 0
        ]
        for truth in label
    ]
    claimed = painted(claims)
    output = np.where(claimed[..., :CLASSES].max(-1, keepdims=True) > -20, claimed, output)
    # Scores in the same order that bins tell apart, so that only the matching is compared.
    ranks = output[..., :CLASSES].argsort(axis=None).argsort().reshape(n, SIDE, SIDE, CLASSES)
    output[..., :CLASSES] = bin_values()[ranks]
    expected = reference(jax.tree.map(np.asarray, detections(jnp.asarray(output), 12)), label)
    assert 0.1 < expected < 1
    found = SCORE(output, label, batches=n)["map50"]
    assert found == pytest.approx(expected, rel=1e-5)


def test_tracking_by_hand():
    label = np.zeros((2, 3, 5), np.float32)
    label[0, 0] = [0.1, 0.9, 0.1, -0.2, 1]
    label[0, 1] = [1.0, 0.0, 0.0, 0.25, 1]
    label[1, 0] = [0.5, 0.5, 0.3, 0.3, 1]
    output = np.zeros((2, 4, 2, 2), np.float32)  # 4 cells high, 2 wide
    output[0, 0, 1] = [4 * 0.4, 2 * 0.2]  # off by 0.3 and 0.4
    output[0, 3, 0] = [0, 2 * 0.25]
    score = scorer(metrics.tracking())
    error = lambda *given: float(score(output, *given)["tracking_error"])
    assert error(label) == pytest.approx((0.5 + 0.3 * 2**0.5) / 3, rel=1e-5)
    assert error(label, np.array([True, False])) == pytest.approx(0.25, rel=1e-5)
    assert np.isnan(error(label * 0))


def test_sizes_that_do_not_fit_are_refused():
    with pytest.raises(
        ValueError, match=r"2 classes has outputs \[B, h, w, 6\], got \(1, 4, 4, 5\)"
    ):
        metrics.detection(2).update(
            jnp.zeros((1, 4, 4, 5)), jnp.zeros((1, 3, 5)), jnp.ones(1, bool)
        )
    with pytest.raises(ValueError, match="num_classes=0"):
        metrics.detection(0)
