"""Errors of depth and normals, by hand and against float64."""

import jax.numpy as jnp
import numpy as np
import pytest

from jmtl import metrics
from tests.metrics.sums import scorer

DEPTH, NORMALS = scorer(metrics.depth()), scorer(metrics.normals())


def test_depth_by_hand():
    label = np.array([[[2.0, 4.0], [0.0, 1.0]], [[5.0, 0.0], [0.0, 0.0]], [[1.0] * 2] * 2])
    output = np.array([[[1.0, 5.0], [9.0, 1.0]], [[3.0, 7.0], [7.0, 7.0]], [[50.0] * 2] * 2])
    found = DEPTH(output[..., None], label, np.array([True, True, False]))
    np.testing.assert_allclose(found["abs_error"], (1 + 1 + 0 + 2) / 4, rtol=1e-6)
    np.testing.assert_allclose(found["rel_error"], (1 / 2 + 1 / 4 + 0 + 2 / 5) / 4, rtol=1e-6)
    nothing = DEPTH(output[..., None], label * 0)
    assert np.isnan(list(nothing.values())).all()


def test_normals_by_hand():
    # The label is z; outputs are turned from it by these angles, at lengths from 1e-30 to 1e30.
    angles = np.array([0.0, 1e-3, 5.0, 11.2, 11.3, 22.4, 29.0, 31.0, 90.0, 180.0, 90.0])
    turned = np.stack([np.sin(np.radians(angles)), 0 * angles, np.cos(np.radians(angles))], -1)
    output = (turned * np.logspace(-30, 30, 11)[:, None]).astype(np.float32)
    output[-1] = 0
    label = np.tile(np.float32([0, 0, 0.5]), (12, 1))
    label[-1] = 0  # no normal there
    output = np.concatenate([output, np.ones((1, 3), np.float32)])
    found = NORMALS(output[None, :, None], label[None, :, None])
    np.testing.assert_allclose(found["mean_angle"], angles.mean(), rtol=1e-5)
    np.testing.assert_allclose(found["median_angle"], 22.4, atol=0.01)
    shares = [found[f"within_{w}"] for w in ("11.25", "22.5", "30")]
    np.testing.assert_allclose(shares, np.array([4, 6, 7]) / 11, rtol=1e-6)


@pytest.mark.parametrize("seed", range(2))
def test_normals_against_float64(seed):
    rng, n = np.random.default_rng(seed), 20
    label = rng.normal(size=(n, 3, 3, 3)) * rng.uniform(0.1, 10, (n, 3, 3, 1))
    label[rng.random((n, 3, 3)) < 0.3] = 0
    output = label / 5 + rng.normal(size=label.shape) * 0.5
    label, output = label.astype(np.float32), output.astype(np.float32)
    present = rng.random(n) < 0.8
    garbage = np.where(present[:, None, None, None], label, np.nan)
    found = NORMALS(output, garbage, present, batches=5)
    rows = label[present].astype(np.float64), output[present].astype(np.float64)
    y, p = (x.reshape(-1, 3)[label[present].reshape(-1, 3).any(1)] for x in rows)
    cosine = (y * p).sum(1) / np.linalg.norm(y, axis=1) / np.linalg.norm(p, axis=1)
    angles = np.sort(np.degrees(np.arccos(np.clip(cosine, -1, 1))))
    np.testing.assert_allclose(found["mean_angle"], angles.mean(), rtol=1e-5)
    lower = angles[(len(angles) - 1) // 2]
    np.testing.assert_allclose(found["median_angle"], lower, atol=0.0101)
    for w in (11.25, 22.5, 30.0):
        np.testing.assert_allclose(found[f"within_{w:g}"], (angles < w).mean(), rtol=1e-6)


def test_normals_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"normals are \[B, ..., 3\], got \(1, 2\)"):
        metrics.normals().update(jnp.zeros((1, 2)), jnp.zeros((1, 2)), jnp.ones(1, bool))
