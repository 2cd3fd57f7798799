"""The toy problem against float64 NumPy, its front, its descents, and its command."""

import csv
import io
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image

import jmtl
from experiments.cli import UserError, main
from experiments.commands import Toy, parse
from experiments.page.style import DPI, WIDTH
from experiments.problems import toy
from experiments.toy import figure
from experiments.toy.command import write
from experiments.toy.rows import COLUMNS
from experiments.toy.summary import summary, text
from jmtl.method import Seen
from tests.experiments.pages import Page, check_form, check_numbers

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
    text({"ends": toy.ends(paths)})


def test_command(tmp_path, capsys):
    given = ["toy", "--methods", "equal", "pcgrad", "krum", "--steps", "200", "--seeds", "2"]
    assert main([*given, "--out", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    assert "not served: krum" in shown
    assert re.search(r"equal +-8\.5, 7\.5 +-8\.30", shown)
    assert "0/2" in shown
    assert "No method reaches the front from every start with every seed." in shown
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "report.html",
        "summary.json",
        "table.csv",
        "figures",
    }
    saved = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert set(saved["methods"]) == {"equal", "pcgrad"}
    setting = saved["setting"]
    assert setting["steps"] == 200
    assert set(setting["versions"]) >= {"python", "jax"}
    assert len(saved["methods"]["pcgrad"]["ends"]) == 10
    for row in saved["methods"]["equal"]["ends"]:
        moved = np.abs(np.subtract(row["end"], row["start"])).max()
        assert 0.18 < moved < 0.3  # Adam moves a little over its rate where gradients grow
        np.testing.assert_allclose(row["losses"], reference(row["end"], 0.1), atol=2e-3)
    again = parse(setting["command"].split()[3:])
    assert again == Toy(("equal", "pcgrad", "krum"), 200, 0.1, 2)
    with Image.open(tmp_path / "out" / "figures" / "paths.png") as image:
        assert image.width == WIDTH * DPI
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
    axis, values = figure.terrain(60)
    heights = figure.levels(values)
    assert np.all(np.diff(heights) > 0)
    for half in (values[axis < 0], values[axis > 0]):
        assert np.sum((heights > half.min()) & (heights < half.max())) >= 9


@pytest.mark.parametrize("seed", range(3))
def test_a_simplified_line_is_close_to_every_point(seed):
    rng = np.random.default_rng(seed)
    line = np.cumsum(rng.normal(0, 0.02, (200, 2)), axis=0)
    kept = figure.simplified(line, 0.05)
    assert 2 < len(kept) < 100
    np.testing.assert_array_equal(kept[[0, -1]], line[[0, -1]])
    a, chords = kept[:-1], np.diff(kept, axis=0)
    along = np.einsum("pcx,cx->pc", line[:, None] - a, chords) / (chords**2).sum(axis=1)
    feet = a + np.clip(along, 0, 1)[..., None] * chords
    assert np.linalg.norm(line[:, None] - feet, axis=-1).min(axis=1).max() <= 0.05 + 1e-12


def test_short_lines_are_simplified():
    for line in (np.zeros((1, 2)), np.eye(2), np.zeros((3, 2))):
        np.testing.assert_array_equal(figure.simplified(line), line[:2])


# The report --------------------------------------------------------------------------------------

FRONT = np.array([0.0, toy.front(np.array(0.0))])


def paths(seeds, missed=(), broken=()):
    """Straight lines to the front; pairs (seed, start) that stay, and that stop being finite."""
    time = np.linspace(0, 1, 30)[:, None]
    starts = np.asarray(toy.STARTS)
    points = np.stack([start + time * (FRONT - start) for start in starts])
    points = np.tile(points, (seeds, 1, 1, 1)).astype(np.float32)
    for seed, start in missed:
        points[seed, start] = starts[start]
    for seed, start in broken:
        points[seed, start, 12:] = np.nan
    values = np.array([[reference(x, 0.1) for x in ends] for ends in points[:, :, -1]])
    return toy.Paths(points, values, np.full(values.shape[:2], 1e-7), 0.31, 0.013)


PLANTED = {
    "equal": paths(1, [(0, i) for i in range(5)]),
    "mgda": paths(1),
    "imtl_g": paths(1, broken=[(0, 1)]),
    "pcgrad": paths(3, [(seed, 2) for seed in range(3)]),
    "random": paths(3, [(2, 2)]),
}


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A report of descents that nobody made: what it found, and its folder."""
    folder = tmp_path_factory.mktemp("toy")
    command = Toy(tuple(PLANTED), 29, 0.1, 3, folder)
    found = summary(command, PLANTED, ["not served: krum: it needs 3 {tasks}"], 2.04, 3.0)
    write(found, PLANTED, folder)
    return found, folder


def test_the_answer_is_what_was_planted(planted):
    found = planted[0]
    assert found["order"] == ["mgda", "random", "imtl_g", "pcgrad", "equal"]
    assert found["answer"]["every"] == ["mgda"]
    assert found["answer"]["never"] == ["equal"]
    assert found["answer"]["by_seed"] == ["random"]
    assert found["starts"][2] == {"start": [9.0, 9.0], "every": 2, "some": 1, "none": 2}
    assert found["answer"]["text"] == [
        "1 of 5 methods reaches the front from every start with every seed: mgda.",
        "From no start and with no seed: equal.",
        "2 methods draw at random and had 3 seeds: whether the front is reached depends on the "
        "seed for random (from (9, 9) with 2 of 3).",
        "With at least one seed the front is missed by 3 of 5 methods from (9, 9), 2 from (0, 0), "
        "1 from (−8.5, 7.5), 1 from (−7.5, −0.5) and 1 from (9, −1).",
        "45 descents of 29 steps took 2.0 s (3.0 s of processor), of which 1.6 s went into "
        "compiling 5 programs and 0.1 s into running them.",
    ]


@pytest.mark.parametrize(
    ("seeds", "said"),
    [
        (1, "1 method draws at random and had one seed: what depends on the seed cannot be seen."),
        (3, "1 method draws at random and had 3 seeds: from no start does it depend on the seed"),
    ],
)
def test_one_seed_says_nothing_of_seeds(seeds, said):
    done = {"pcgrad": paths(seeds), "mgda": paths(1)}
    found = summary(Toy(("pcgrad", "mgda"), 29, 0.1, seeds), done, [], 1.0, 1.0)
    text = found["answer"]["text"]
    assert text[0].startswith("2 of 2 methods reach the front from every start")
    assert text[1] == "No method misses the front from every start."
    assert text[2].startswith(said)
    assert text[3] == "From no start a method misses the front."


def test_the_files_hold_the_same_numbers(planted):
    found, folder = planted
    assert json.loads((folder / "summary.json").read_text()) == found
    rows = list(csv.DictReader(io.StringIO((folder / "table.csv").read_text())))
    assert tuple(rows[0]) == COLUMNS
    at = {
        (row["method"], row["quantity"], row["start_1"], row["start_2"], row["seed"]): row["value"]
        for row in rows
    }
    assert len(at) == len(rows)
    assert at["random", "reached", "9.0", "9.0", ""] == "2"
    assert at["random", "reached", "9.0", "9.0", "2"] == "0"
    assert float(at["mgda", "end x2", "0.0", "0.0", "0"]) == pytest.approx(FRONT[1], abs=1e-4)
    assert at["imtl_g", "end x2", "0.0", "0.0", "0"] == at["imtl_g", "f1", "0.0", "0.0", "0"] == ""
    empty = {row["method"] for row in rows if not row["value"]}
    assert empty == {"imtl_g"}


def test_the_page_is_well_formed_and_has_no_other_numbers(planted):
    found, folder = planted
    text = (folder / "report.html").read_text()
    check_form(text)
    page = Page(text)
    assert len(page.data) > 45 * 7
    check_numbers(page, found, [(folder / "table.csv").read_text()])
    assert [row.strip() for row in page.rows[0]] == found["order"]
    assert len(page.rows[1]) == found["setting"]["descents"]
    for said in found["answer"]["text"]:
        assert said in page.text


def test_the_figure_has_a_text_and_a_caption(planted):
    _, folder = planted
    page = Page((folder / "report.html").read_text())
    (drawn,) = page.of("svg")
    assert drawn["role"] == "img"
    assert "The paths of 5 methods from 5 starts" in drawn["aria-label"]
    assert "reached with mgda and random." in drawn["aria-label"]  # random misses with seed 2 alone
    assert len(page.of("figcaption")) == 1
    shown = "".join(page.text)
    for name, n in {"mgda": 5, "random": 5, "imtl_g": 4, "pcgrad": 4, "equal": 0}.items():
        assert f"{name}  {n}/5" in shown


def test_the_report_has_the_same_bytes_again(planted, tmp_path):
    found, folder = planted
    write(found, PLANTED, tmp_path)
    for path in (p for p in folder.rglob("*") if p.is_file()):
        assert path.read_bytes() == (tmp_path / path.relative_to(folder)).read_bytes(), path.name


def test_a_folder_that_cannot_be_written_to_is_one_line(planted, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file"):
        write(planted[0], PLANTED, tmp_path / "file")
