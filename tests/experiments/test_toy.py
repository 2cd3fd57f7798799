"""The toy problem against float64 NumPy, its front, its descents, and its command."""

import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image

import jmtl
from experiments import toy_figure, toy_report
from experiments.cli import main
from experiments.commands import Toy, parse
from experiments.problems import toy
from jmtl.method import Seen

POINTS = [*toy.STARTS[:1], *toy.STARTS[2:], (2.0, 1.5), (-3.0, -8.3), (6.9, 0.4), (-6.0, 0.7)]


def reference(x, scale):
    """The issue's two functions, as they are written, in float64."""
    x1, x2 = np.asarray(x, np.float64)
    c1, c2 = max(np.tanh(x2 / 2), 0.0), max(np.tanh(-x2 / 2), 0.0)
    log1 = np.log(max(abs(0.5 * (-x1 - 7) - np.tanh(-x2)), 5e-6)) + 6
    log2 = np.log(max(abs(0.5 * (-x1 + 3) + np.tanh(-x2) + 2), 5e-6)) + 6
    bowl1 = ((-x1 + 7) ** 2 + 0.1 * (-x2 - 8) ** 2) / 10 - 20
    bowl2 = ((-x1 - 7) ** 2 + 0.1 * (-x2 - 8) ** 2) / 10 - 20
    return np.array([scale * (c1 * log1 + c2 * bowl1), c1 * log2 + c2 * bowl2])


def slopes(x, scale, h=1e-6):
    """`[2, 2]` central differences of the reference: rows are losses."""
    x = np.asarray(x, np.float64)
    return np.stack(
        [(reference(x + d, scale) - reference(x - d, scale)) / (2 * h) for d in h * np.eye(2)],
        axis=1,
    )


def test_values_and_gradients_are_those_of_the_formula():
    @jax.jit
    def found(scale):
        def fun(x):
            return toy.losses(x, scale), toy.losses(x, scale)

        grads, values = jax.vmap(jax.jacrev(fun, has_aux=True))(jnp.asarray(POINTS))
        return values, grads

    for scale in (0.1, 1.0):
        values, grads = found(scale)
        expected = [reference(x, scale) for x in POINTS]
        np.testing.assert_allclose(values, expected, rtol=2e-5, atol=2e-5)
        np.testing.assert_allclose(grads, [slopes(x, scale) for x in POINTS], rtol=2e-4, atol=2e-5)


def test_values_by_hand():
    lower = np.tanh(4.0)  # the factor at x₂ = -8
    np.testing.assert_allclose(
        toy.losses(jnp.array([7.0, -8.0]), 1.0), [-20 * lower, -0.4 * lower], rtol=1e-5
    )
    # On the floor of the first valley, ½(−x₁ − 7) = tanh(−x₂), the logarithm is cut and flat.
    floor = jnp.array([-5.0, 30.0])
    np.testing.assert_allclose(
        toy.losses(floor, 0.1), [0.1 * (np.log(5e-6) + 6), np.log(5.0) + 6], rtol=1e-6
    )
    grads = jax.jit(jax.jacobian(toy.losses))(floor)
    np.testing.assert_allclose(grads[:, 0], [0.0, -0.1], rtol=1e-6)


def test_tie_at_the_origin_is_the_mean_of_both_sides():
    origin = jnp.zeros(2)
    assert not np.any(toy.losses(origin))
    found = jax.jit(jax.jacobian(lambda x: toy.losses(x, 1.0)))(origin)
    above, below = np.log(3.5) + 6, (49 + 6.4) / 10 - 20
    expected = 0.25 * above - 0.25 * below  # halves of the slopes ½ and −½ of the two factors
    np.testing.assert_allclose(found, [[0.0, expected], [0.0, expected]], rtol=1e-6)
    np.testing.assert_allclose(found, slopes(np.zeros(2), 1.0), atol=1e-4)


def test_bounds_hold_and_are_approached():
    plane = np.random.default_rng(0).uniform(-12, 12, (2_000, 2)).astype(np.float32)
    for scale in (0.1, 1.0):
        bound = np.asarray(toy.bounds(scale))
        values = np.asarray(jax.vmap(lambda x, s=scale: toy.losses(x, s))(jnp.asarray(plane)))
        assert np.all(values > bound)
        best = [toy.losses(jnp.array([x1, -8.4]), scale)[i] for i, x1 in enumerate((7.0, -7.0))]
        np.testing.assert_allclose(best, bound, rtol=1e-2)


def test_front_is_stationary_and_nothing_beside_it_is():
    x1 = np.linspace(-7, 7, 29)
    x2 = toy.front(x1)
    assert abs(toy.front(np.array(0.0)) + 8.355) < 5e-4
    weight = (x1 + 7) / 14
    for shift, stationary in ((0.0, True), (0.2, False), (-0.2, False)):
        grads = np.stack([slopes(x, 0.1) for x in np.stack([x1, x2 + shift], axis=1)])
        grads[:, 0] /= 0.1  # the weights that cancel are those at scale 1
        left = np.linalg.norm(
            weight[:, None] * grads[:, 0] + (1 - weight)[:, None] * grads[:, 1], axis=1
        )
        assert np.all(left < 1e-7) if stationary else np.all(left > 1e-3)


def test_front_is_where_mgda_stands_still():
    x1 = np.array([-6.0, 0.0, 3.0])
    at = jnp.asarray(np.stack([x1, toy.front(x1)], axis=1), jnp.float32)
    surgery = jmtl.value_and_grads(toy.losses, jmtl.mgda(2))
    left = jax.jit(jax.vmap(lambda x: surgery((), x).gradient))(at)
    smallest = [np.linalg.norm(slopes(x, 0.1), axis=1).min() for x in np.asarray(at)]
    assert np.all(np.linalg.norm(left, axis=1) < 1e-4 * np.asarray(smallest))


def test_distance():
    at = np.array([[0.0, -8.355], [0.0, -7.355], [10.0, toy.front(np.array(7.0))], [np.nan, 1.0]])
    np.testing.assert_allclose(toy.distance(at), [0.0, 1.0, 3.0, np.nan], atol=1e-3)
    assert toy.distance(np.zeros((2, 3, 2))).shape == (2, 3)


@pytest.mark.parametrize("name", ["equal", "famo"])
def test_descent_is_adam_on_what_the_method_answers(name):
    steps, scale = 25, 0.1
    method, adam = toy.build(name, scale), optax.adam(toy.LEARNING_RATE)
    x = start = jnp.asarray(toy.STARTS[3])
    state, moments = method.init(x), adam.init(x)

    def above(x):
        return toy.losses(x, scale) + 20 * jnp.array([scale, 1.0])

    rows_at = jax.jit(jax.jacobian(toy.losses))
    seen = [x]
    for _ in range(steps):
        before, rows = above(x), rows_at(x)
        answer, state = method.update(Seen(losses=before), state)
        updates, moments = adam.update(answer.weights @ rows, moments)
        x = x + updates
        if method.observe is not None:
            state = method.observe(before, above(x), state)
        seen.append(x)
    points, losses, residual = jax.jit(toy.descend, static_argnums=(0, 2, 3, 4))(
        method, start, scale, steps, 10
    )
    np.testing.assert_allclose(points, jnp.stack([seen[i] for i in (0, 10, 20, 25)]), atol=2e-6)
    np.testing.assert_allclose(losses, reference(x, scale), rtol=1e-4)
    assert residual == 0


@pytest.mark.parametrize("name", ["pcgrad", "modo", "random"])
def test_all_starts_together_are_each_alone(name):
    together = toy.descend_all(name, 0.1, 60, seeds=2, points=3)
    seeds = 2 if toy.draws(name) else 1
    assert together.points.shape == (seeds, 5, 4, 2)
    alone = jax.jit(lambda key, start: toy.descend(toy.build(name, 0.1, key), start, 0.1, 60, 20))
    for seed in range(seeds):
        for i, start in enumerate(toy.STARTS):
            points, losses, _ = alone(jax.random.key(seed), jnp.asarray(start))
            np.testing.assert_allclose(together.points[seed, i], points, atol=2e-6)
            np.testing.assert_allclose(together.losses[seed, i], losses, rtol=1e-5, atol=1e-5)
    if name == "random":
        assert not np.allclose(together.points[0, :, -1], together.points[1, :, -1], atol=1e-5)


@pytest.mark.parametrize(
    ("name", "reach"), [("equal", [1, 1, 0, 1, 1]), ("mgda", [1] * 5), ("famo", [1] * 5)]
)
def test_who_reaches_the_front_at_scale_a_tenth(name, reach):
    rows = toy.ends(toy.descend_all(name, 0.1, toy.STEPS))
    assert [row["reached"] for row in rows] == [bool(x) for x in reach]
    assert [tuple(row["start"]) for row in rows] == list(toy.STARTS)


def test_every_method_serves_or_says_why():
    refused = []
    assert toy.run(["krum", "trimmed_mean"], refused=refused.append) == {}
    assert [line.split(":")[1].strip() for line in refused] == ["krum", "trimmed_mean"]
    for name in set(jmtl.METHODS) - {"krum", "trimmed_mean"}:
        assert toy.build(name, 0.1).num_tasks == 2


def test_ends_that_are_not_finite_are_null():
    points = np.full((1, 5, 2, 2), np.nan, np.float32)
    paths = toy.Paths(points, points[:, :, -1], np.full((1, 5), np.nan), 0.0, 0.0)
    row = toy.ends(paths)[0]
    assert row["end"] == row["losses"] == [None, None]
    assert row["distance"] is None
    assert row["reached"] is False
    toy_report.text({"ends": toy.ends(paths)})


def test_command(tmp_path, capsys):
    given = ["toy", "--methods", "equal", "pcgrad", "krum", "--steps", "200", "--seeds", "2"]
    assert main([*given, "--out", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    assert "not served: krum" in shown
    assert re.search(r"equal +-8\.5, 7\.5 +-8\.30", shown)
    assert "0/2" in shown
    saved = json.loads((tmp_path / "out" / "toy.json").read_text())
    assert set(saved["methods"]) == {"equal", "pcgrad"}
    assert saved["steps"] == 200
    assert set(saved["versions"]) >= {"python", "jax"}
    assert len(saved["methods"]["pcgrad"]["ends"]) == 10
    for row in saved["methods"]["equal"]["ends"]:
        moved = np.abs(np.subtract(row["end"], row["start"])).max()
        assert 0.18 < moved < 0.3  # Adam moves a little over its rate where gradients grow
        np.testing.assert_allclose(row["losses"], reference(row["end"], 0.1), atol=2e-3)
    again = parse(saved["command"].split()[3:])
    assert again == Toy(("equal", "pcgrad", "krum"), 200, 0.1, 2, tmp_path / "out")
    with Image.open(tmp_path / "out" / "toy.png") as image:
        assert image.width == toy_figure.WIDTH
        assert len(image.getcolors()) > 100


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["--methods", "pcgrd"], "did you mean 'pcgrad'"),
        (["--steps", "0"], "at least 1"),
        (["--scale", "0"], "--scale must be positive"),
        (["--methods", "krum"], "krum: byzantine=0 needs num_tasks >= 3"),
    ],
)
def test_command_refuses(given, said, tmp_path, capsys):
    assert main(["toy", *given, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_contours_show_both_halves():
    axis, values = toy_figure.terrain(60)
    heights = toy_figure.levels(values)
    assert np.all(np.diff(heights) > 0)
    for half in (values[axis < 0], values[axis > 0]):
        assert np.sum((heights > half.min()) & (heights < half.max())) >= 9
