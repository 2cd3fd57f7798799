"""The figure and the table of scenes; the training is tested with the other problems."""

import numpy as np
from PIL import Image

from experiments import scenes_figure, scenes_report
from experiments.problems import scenes
from jmtl.data.scenes import draw, look


def test_the_figure_shows_what_was_found(tmp_path):
    problem = scenes.at(16)
    raw = look(*draw(2, seed=0), 16)
    given = problem.to_batch(raw)
    rng = np.random.default_rng(0)
    found = {
        task.name: rng.normal(size=(2, *(task.head.size or ()), task.head.features))
        for task in problem.tasks
    }
    first, second = tmp_path / "1.png", tmp_path / "2.png"
    scenes_figure.draw(raw, given, found, first)
    # Centres that no one believes in: of the last column, boxes go and nothing else.
    found["objects"][..., :-4] = -9.0
    scenes_figure.draw(raw, given, found, second)
    one, other = (np.asarray(Image.open(path).convert("RGB")) for path in (first, second))
    assert one.shape == other.shape == (one.shape[0], scenes_figure.WIDTH, 3)
    changed = np.nonzero((one != other).any(axis=(0, 2)))[0]
    assert changed.min() >= 8 / 9 * scenes_figure.WIDTH


def test_places_are_the_middles_of_pixels():
    raw = look(*draw(1, seed=0), 16)
    inputs = scenes.at(16).to_batch(raw).inputs
    np.testing.assert_allclose(inputs[0, ..., 3:6], raw["next_image"][0] / 255, rtol=1e-6)
    np.testing.assert_allclose(inputs[0, 3, 9, 6:], [3.5 / 16, 9.5 / 16])


def test_a_task_alone_has_the_only_weight():
    found = scenes_report.arms(steps=10, alone=5)
    names = [task.name for task in scenes.PROBLEM.tasks]
    assert list(found) == ["pcgrad", *names]
    assert found["depth"].method_options["static"]["weights"] == [0, 1, 0, 0, 0, 0]
    assert [config.steps for config in found.values()] == [10, *[5] * 6]


def test_the_table_takes_each_task_from_its_own_run():
    scores = {
        arm: {task.name: {"m": float(10 * i + j)} for j, task in enumerate(scenes.PROBLEM.tasks)}
        for i, arm in enumerate(scenes_report.arms(10, 5))
    }
    rows = scenes_report.table(
        {"constant": scores["pcgrad"], "runs": {arm: {"test": scores[arm]} for arm in scores}}
    )
    assert [row["alone"] for row in rows] == [10, 21, 32, 43, 54, 65]
    assert [row["pcgrad"] for row in rows] == [0, 1, 2, 3, 4, 5]
    assert rows[0] == {
        "task": "segmentation",
        "metric": "m",
        "constant": 0,
        "alone": 10,
        "pcgrad": 0,
    }
