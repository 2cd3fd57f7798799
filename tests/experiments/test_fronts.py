"""Fronts and hypervolumes against definitions, inclusion-exclusion and Monte Carlo."""

import itertools

import numpy as np
import pytest

from experiments.study.fronts import dominated, gain, hypervolume, pareto


def union_of_boxes(points, reference):
    """The volume of the boxes' union by inclusion-exclusion over all subsets."""
    boxes = np.maximum(np.asarray(points) - reference, 0)
    subsets = itertools.chain.from_iterable(
        itertools.combinations(boxes, n) for n in range(1, len(boxes) + 1)
    )
    return sum((-1) ** (len(s) + 1) * np.prod(np.min(s, axis=0)) for s in subsets)


def on_a_sphere(rng, n, d):
    """Points of which none dominates another: every one is on the front."""
    x = np.abs(rng.standard_normal((n, d)))
    return x / np.linalg.norm(x, axis=1, keepdims=True)


@pytest.mark.parametrize("d", range(1, 9))
@pytest.mark.parametrize("seed", range(4))
def test_hypervolume_is_the_volume_of_the_union_of_boxes(d, seed):
    rng = np.random.default_rng([d, seed])
    # The grid makes ties and duplicates; the reference leaves some points outside.
    grid = rng.integers(-2, 4, (8, d)).astype(float)
    for points in (rng.uniform(-0.3, 1, (8, d)), on_a_sphere(rng, 8, d), grid):
        reference = rng.uniform(-0.1, 0.1, d)
        expected = union_of_boxes(points, reference)
        np.testing.assert_allclose(hypervolume(points, reference), expected, rtol=1e-10, atol=1e-12)


def test_hypervolume_agrees_with_monte_carlo_on_larger_fronts():
    rng = np.random.default_rng(0)
    for n, d in ((60, 3), (25, 5)):
        points = on_a_sphere(rng, n, d)
        draws = rng.random((20_000, 1, d))
        share = np.mean(np.any(np.all(draws < points, axis=-1), axis=-1))
        error = np.sqrt(share * (1 - share) / len(draws))
        assert abs(hypervolume(points, np.zeros(d)) - share) < 4 * error


def test_hypervolume_in_closed_form():
    # A staircase of n steps of 1/n covers (1 + 1/n) / 2 of the unit square.
    n = 1000
    steps = np.arange(1, n + 1) / n
    staircase = np.stack([steps, steps[::-1]], axis=1)
    np.testing.assert_allclose(hypervolume(staircase, np.zeros(2)), (1 + 1 / n) / 2)
    # D boxes, each of side 2 in one coordinate and 1 in the others, share the unit box.
    for d in (2, 3, 5, 8):
        np.testing.assert_allclose(hypervolume(np.ones((d, d)) + np.eye(d), np.zeros(d)), d + 1)
    assert hypervolume(np.zeros((0, 3)), np.zeros(3)) == 0
    assert hypervolume(np.array([[-np.inf, 2], [1, 1]]), np.zeros(2)) == 1


def test_hypervolume_follows_shifts_scales_and_orders_and_never_falls():
    rng = np.random.default_rng(1)
    points = on_a_sphere(rng, 12, 4)
    volume = hypervolume(points, np.zeros(4))
    scale, shift = rng.uniform(0.1, 10, 4), rng.standard_normal(4)
    moved = hypervolume(points[::-1, [2, 0, 3, 1]] * scale + shift, shift)
    np.testing.assert_allclose(moved, volume * np.prod(scale), rtol=1e-9)
    volumes = [hypervolume(points[:n], np.zeros(4)) for n in range(len(points) + 1)]
    assert np.all(np.diff(volumes) > 0)


@pytest.mark.parametrize("d", [1, 2, 3, 6])
def test_gain_is_the_difference_of_two_volumes(d):
    rng = np.random.default_rng(d)
    reference = np.full(d, 0.1)
    for point in rng.uniform(0, 1.2, (10, d)):
        points = rng.uniform(0, 1, (6, d))
        before = hypervolume(points, reference)
        after = hypervolume(np.vstack([points, point]), reference)
        found = gain(point, points, reference)
        np.testing.assert_allclose(found, after - before, rtol=1e-9, atol=1e-12)
        assert (found > 1e-12) == bool(np.all(point > reference) and not dominated(point, points))
    assert gain(np.full(d, 2.0), np.zeros((0, d)), np.zeros(d)) == 2.0**d


def test_a_gain_far_below_the_volume_keeps_its_digits():
    points = np.array([[1e6, 1e6, 1.0], [1.0, 1.0, 2.0]])
    point = np.array([1.0, 1.0, 2.0 + 1e-9])
    np.testing.assert_allclose(gain(point, points, np.zeros(3)), point[2] - 2.0)


def test_pareto_is_its_definition():
    rng = np.random.default_rng(3)
    for d in (1, 2, 4):
        points = rng.integers(0, 4, (30, d)).astype(float)
        expected = [not any(all(q >= p) and any(q > p) for q in points) for p in points]
        np.testing.assert_array_equal(pareto(points), expected)
        # Whatever is off the front is dominated by a point on it.
        front = points[pareto(points)]
        assert all(dominated(p, front) for p in points)
        assert not any(dominated(p + 1e-9, front) for p in front)
    assert pareto(np.array([[1.0, 2.0], [1.0, 2.0], [1.0, -np.inf]])).tolist() == [
        True,
        True,
        False,
    ]
    assert pareto(np.zeros((0, 2))).shape == (0,)


def test_a_mixture_of_points_does_not_dominate():
    front = np.array([[0.0, 1.0], [1.0, 0.0]])
    assert not dominated(np.array([0.4, 0.4]), front)
    assert dominated(np.array([0.0, 1.0]), front)
    assert not dominated(np.array([0.0, 0.0]), np.zeros((0, 2)))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: pareto(np.zeros(3)), r"points must be \[N, D\].*\(3,\)"),
        (lambda: pareto(np.zeros((3, 0))), r"points must be \[N, D\]"),
        (lambda: pareto(np.array([[0.0, 1.0], [np.nan, 0.0]])), "point 1 holds NaN"),
        (lambda: dominated(np.zeros(3), np.zeros((4, 2))), r"point must be \[2\].*\(3,\)"),
        (lambda: dominated(np.array([0, np.nan]), np.zeros((4, 2))), "point holds NaN"),
        (lambda: hypervolume(np.zeros((4, 2)), np.zeros(3)), r"reference must be \[2\]"),
        (lambda: hypervolume(np.full((1, 2), np.inf), np.zeros(2)), "points below \\+inf"),
        (lambda: hypervolume(np.ones((1, 2)), np.full(2, -np.inf)), "finite reference"),
        (lambda: gain(np.zeros(3), np.zeros((4, 2)), np.zeros(2)), r"point must be \[2\]"),
    ],
)
def test_bad_input_is_refused_in_one_line(call, message):
    with pytest.raises(ValueError, match=message) as refusal:
        call()
    assert "\n" not in str(refusal.value)
