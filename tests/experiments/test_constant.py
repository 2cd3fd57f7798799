"""The constant answers against closed forms."""

import numpy as np

from experiments import constant, parts
from experiments.problems import PROBLEMS
from jmtl.data import source
from jmtl.tasks import binary, depth, detection, multi_label, normals, regression, tracking

ALL = np.ones(3, bool)


def test_the_largest_class_of_training_is_right_as_often_as_it_is_there(data_dir):
    problem = PROBLEMS["multi_digits"]
    splits = parts.open_splits(problem, data_dir)
    found = constant.scores(problem, data_dir, "validation")
    training, validation = (
        problem.to_batch(source.as_arrays(splits(name))).labels for name in ("train", "validation")
    )
    for task in problem.tasks:
        largest = np.bincount(training[task.label]).argmax()
        share = (validation[task.label] == largest).mean()
        np.testing.assert_allclose(found[task.name]["accuracy"], share, rtol=1e-6)


def test_answers_by_hand():
    def answer(task, label, present=ALL):
        return constant.answer(task, np.asarray(label), present)

    log_odds = answer(multi_label("x", 2), [[1, -1], [1, 0], [0, 1]])
    np.testing.assert_allclose(log_odds, np.log([2, 1]), atol=1e-5)
    np.testing.assert_allclose(answer(binary("x"), [1, 0, 1]), [np.log(2)], atol=1e-5)
    some = np.array([True, True, False])
    np.testing.assert_allclose(answer(regression("x"), [1.0, 4.0, 9.0], some), [2.5])
    np.testing.assert_allclose(answer(depth("x", (1, 2)), [[[0.0, 5]], [[6, 9]], [[0, 0]]]), [6])
    up, none = [0.0, 0.0, 2.0], [0.0, 0.0, 0.0]
    np.testing.assert_allclose(answer(normals("x", (1, 1)), [[[up]], [[none]], [[up]]]), up)


def test_answers_about_objects_by_hand():
    pad = [0.0, 0, 0, 0, -1]
    boxes = [[[0.0, 0.25, 0.5, 0.5, 1], [0.5, 0.5, 0.75, 1, 1]], [pad, pad]]
    found = constant.answer(detection("x", 2, (4, 8)), np.array(boxes), ALL[:2])
    np.testing.assert_allclose(np.exp(found[:2]), [1e-6, 1 + 1e-6])
    np.testing.assert_allclose(found[2:], [1.5, 3, 0.5, 0.5])
    moves = [[[0.5, 0.5, 0.1, -0.2, 1], [0.5, 0.5, 0.3, 0.2, 1], [0, 0, 9, 9, 0]]]
    found = constant.answer(tracking("x", (4, 8)), np.array(moves), ALL[:1])
    np.testing.assert_allclose(found, [0.8, 0], atol=1e-12)
