"""NYUv2 and Cityscapes: from files in the published layout to two steps, under both protocols."""

import json

import jax
import numpy as np
import pytest

from experiments import cli, commands, dense, initial, parts, published, run
from experiments.cli import main
from experiments.errors import UserError
from experiments.problems import PROBLEMS, cityscapes, nyuv2
from experiments.study import command as studies
from jmtl.data.cityscapes import Cityscapes
from jmtl.data.nyuv2 import Nyuv2

SIZE = (8, 12)
ROWS = {"train": 5, "val": 2}
METRICS = {
    "segmentation": ["miou", "pixel_accuracy"],
    "depth": ["abs_error", "rel_error"],
    "normals": ["mean_angle", "median_angle", "within_11.25", "within_22.5", "within_30"],
}
SMALL = {
    "encoder_options": {"widths": (4,), "convolutions": (1,)},
    "sharing": "hard",  # mtan compiles four times as long
    "head_options": {"hidden": ()},
    "steps": 2,
    "batch_size": 2,
    "schedule": ((1, 0.5),),
    "steps_per_dispatch": 1,
    "checkpoint_every": 2,
    "measure_every": 0,
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Both data sets, small, and a command line that knows them at that size."""
    for builder in (Nyuv2, Cityscapes):
        monkeypatch.setattr(builder, "SIZE", SIZE)
    rng = np.random.default_rng(0)
    for name, count in (("nyuv2", 13), ("cityscapes", 7)):
        for part, rows in ROWS.items():
            for i in range(rows):
                normal = rng.normal(size=(*SIZE, 3))
                normal /= np.linalg.norm(normal, axis=-1, keepdims=True)
                arrays = {
                    "image": rng.random((*SIZE, 3)),
                    "label": rng.integers(-1, count, SIZE),
                    "depth": rng.random((*SIZE, 1)) * (rng.random((*SIZE, 1)) > 0.2),
                    "normal": normal * (rng.random((*SIZE, 1)) > 0.2),
                }
                for feature in arrays if name == "nyuv2" else ("image", "label", "depth"):
                    path = tmp_path / "downloads/manual" / name / part / feature / f"{i}.npy"
                    path.parent.mkdir(parents=True, exist_ok=True)
                    np.save(path, arrays[feature])
    found = {}
    for module, protocol in ((nyuv2, "published"), (cityscapes, "own")):
        problem = module.at(protocol, SIZE)
        small = problem.recipe._replace(**SMALL)
        found[problem.name] = problem._replace(recipe=small, recipes={"segnet_mtan": small})
    for module in (cli, run):
        monkeypatch.setattr(module, "find_problem", found.__getitem__)
    return tmp_path


@pytest.fixture
def scored(monkeypatch):
    """(steps, scores) of every evaluation of a run."""
    seen, scorers = [], run.scorer

    def scorer(*given):
        score = scorers(*given)

        def one(state, split):
            seen.append((int(state.step), score(state, split)))
            return seen[-1][1]

        return one

    monkeypatch.setattr(run, "scorer", scorer)
    return seen


# Epochs of 5 rows by 2 end after these steps.
TEN = [3, 5, 8, 10, 13, 15, 18, 20, 23, 25]


@pytest.mark.parametrize(("name", "steps"), [("nyuv2_published", TEN), ("cityscapes", [2])])
def test_a_recipe_from_files_to_scores(name, steps, folder, scored, capsys):
    out, given = folder / "run", ["--data-dir", str(folder), "--steps", str(steps[-1])]
    command = ["train", name, "--method", "equal", "--devices", "1", "--out", str(out)]
    assert main([*command, *given, "--recipe", "segnet_mtan"]) == 0
    said = capsys.readouterr().out
    config = json.loads((out / "config.json").read_text())
    assert (config["recipe"], config["schedule"]) == ("segnet_mtan", [[1, 0.5]])
    assert config["augment"] == "scale_crop"
    summary = json.loads((out / "summary.json").read_text())
    scores = summary["test"]
    for task, metrics in METRICS.items():
        if task in scores or name == "nyuv2_published":
            assert [m for m in scores[task] if m != "loss"] == metrics
    problem = run.find_problem(name)
    lines = [problem.protocol, f"last step: {published.sentence(problem, problem.base, scores)}"]
    assert [step for step, _ in scored] == steps
    assert scores == scored[-1][1]
    if name == "nyuv2_published":
        last = summary["last_epochs"]
        assert (last["epochs"], last["steps"]) == (10, steps)
        for task, metrics in last["test"].items():
            for metric, value in metrics.items():
                expected = np.mean([found[task][metric] for _, found in scored])
                assert value == pytest.approx(expected, rel=1e-12)
        gains = {
            way: published.gain(problem, problem.base, last["test"], way)
            for way in ("metrics", "tasks")
        }
        assert last["delta_m"] == gains
        assert gains["metrics"] != published.gain(problem, problem.base, scores, "metrics")
        of_mean = published.sentence(problem, problem.base, last["test"])
        lines.append(f"mean of 10 evaluations at the ends of the last 10 epochs: {of_mean}")
    else:
        assert "last_epochs" not in summary
        assert not (out / "last_epochs.json").exists()
    for line in lines:
        assert line in said
    splits = parts.open_splits(problem, folder)
    rows = {split: len(splits(split)) for split in ("train", "test")}
    if problem.validation:
        assert (rows, len(splits("validation"))) == ({"train": 4, "test": 2}, 1)
    else:
        assert rows == {"train": 5, "test": 2}
        with pytest.raises(UserError, match="has no split 'validation'; it has"):
            splits("validation")


def test_a_study_needs_a_validation_split():
    message = "a study chooses .* on a validation split, and nyuv2_published has none: use train"
    with pytest.raises(UserError, match=message):
        studies.resolve(commands.Study("nyuv2_published"))


def test_missing_files_are_asked_for_in_one_line(tmp_path, capsys):
    given = ["--data-dir", str(tmp_path), "--out", str(tmp_path / "run"), "--devices", "1"]
    assert main(["train", "cityscapes", *given]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: cityscapes cannot be downloaded by a program: put its folders")
    assert said.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("name", "steps", "halved"),
    [
        ("nyuv2", 63_600, 31_800),  # 200 epochs of 636 rows by 2
        ("nyuv2_published", 79_500, 39_750),
        ("cityscapes", 59_500, 29_750),  # 200 epochs of 2,380 rows by 8
        ("cityscapes_published", 74_375, 37_188),  # the half is 37,187.5
    ],
)
def test_published_epochs_in_steps(name, steps, halved):
    many = PROBLEMS[name].recipes["deeplab"]
    assert many.steps == -(-steps * PROBLEMS[name].recipe.batch_size // many.batch_size)
    recipe = PROBLEMS[name].recipe
    assert (recipe.steps, recipe.schedule) == (steps, ((halved, 0.5),))
    assert recipe is PROBLEMS[name].recipes["segnet_mtan"]
    assert PROBLEMS[name].validation == (not name.endswith("published"))


PYRAMID = 2048 * 256 * (1 + 3 * 9 + 1) + 5 * 256 * 256 + 9 * 256 * 256 + 7 * 2 * 256


@pytest.mark.parametrize(
    ("recipe", "parameters"),
    [
        ("segnet_mtan", 43_675_921),
        # ResNet-50 without its classifier, a pyramid a task, and answers of 13, 1 and 3 numbers.
        ("deeplab", 25_557_032 - 2_049_000 + 3 * PYRAMID + 257 * 17),
    ],
)
def test_recipes_fit_their_pictures(recipe, parameters):
    # Shapes alone, at the published size.
    problem = PROBLEMS["nyuv2"]
    config = cli.resolve(commands.Train("nyuv2", recipe=recipe, devices=1), None)
    inputs = jax.ShapeDtypeStruct((1, *Nyuv2.SIZE, 3), "float32")
    params, _ = jax.eval_shape(initial.model_of(config, problem).init, jax.random.key(0), inputs)
    assert sum(x.size for x in jax.tree.leaves(params)) == parameters


def test_the_published_augmentation_divides_depths_by_one_of_three_scales():
    size = (6, 8)
    problem = nyuv2.at("own", size)
    raw = {
        "image": np.ones((40, *size, 3), np.float32),
        "label": np.ones((40, *size), np.int8),
        "depth": np.full((40, *size), 6, np.float32),
        "normal": np.broadcast_to(np.float32([0.6, 0, 0.8]), (40, *size, 3)),
    }
    augment = jax.jit(problem.augmentations[dense.AUGMENTATION])
    found = augment(jax.random.key(0), problem.to_batch(raw))
    # A window lies within the picture: nothing outside is read.
    np.testing.assert_allclose(found.inputs, 1, rtol=1e-6)
    assert (found.labels["segmentation"] == 1).all()
    depths = np.asarray(found.labels["depth"])
    scales = 6 / depths[:, 0, 0]
    np.testing.assert_allclose(depths, np.broadcast_to(depths[:, :1, :1], depths.shape))
    np.testing.assert_allclose(np.unique(scales.round(4)), [1, 1.2, 1.5])
    # (x, y, z) becomes (±x, y, s z), of its length.
    x, _, z = np.moveaxis(np.asarray(found.labels["normals"])[:, 0, 0], -1, 0)
    np.testing.assert_allclose(np.abs(z / x), 0.8 * scales / 0.6, rtol=1e-5)
    np.testing.assert_allclose(x**2 + z**2, 1, rtol=1e-5)
    assert {*np.sign(x)} == {-1, 1}


# Nash-MTL (Navon et al. 2022), table 2: equal weights, a row whose Δm is printed as 5.59.
EQUAL = {
    "segmentation": (0.3929, 0.6533),
    "depth": (0.5493, 0.2263),
    "normals": (28.15, 23.96, 0.2209, 0.4750, 0.6108),
}


def named(rows):
    return {task: dict(zip(METRICS[task], row, strict=True)) for task, row in rows.items()}


def test_delta_m_against_the_published_base():
    rooms, streets = PROBLEMS["nyuv2"], PROBLEMS["cityscapes_published"]
    assert published.gain(rooms, nyuv2.BASE, nyuv2.BASE.scores, "metrics") == 0
    found = published.gain(rooms, nyuv2.BASE, named(EQUAL), "metrics")
    assert found == pytest.approx(-5.59, abs=0.005)
    # By hand: +10, −10, +20 and −50 %: −7.5 over metrics, and over tasks (0 − 15) / 2.
    scores = {
        "segmentation": (0.7401 * 1.1, 0.9316 * 0.9),
        "depth": (0.0125 * 0.8, 27.77 * 1.5),
    }
    for convention in ("metrics", "tasks"):
        found = published.gain(streets, cityscapes.BASE, named(scores), convention)
        assert found == pytest.approx(-7.5)
    by_hand = (
        "Δm against the published single-task base: -5.59 % as the mean over metrics, +0.88 % "
        "over tasks; higher is better"
    )
    assert published.sentence(rooms, nyuv2.BASE, named(EQUAL)).startswith(by_hand)
    lost = {**named(EQUAL), "depth": {"abs_error": float("nan"), "rel_error": 1.0}}
    assert published.sentence(rooms, nyuv2.BASE, lost) == ""
