"""The report: its numbers are the study's, its page shows no others, its bytes are the same."""

import csv
import io
import json
import re
import shutil
import subprocess

import numpy as np
import pytest
from rich.console import Console
from scipy import stats

from experiments import cli
from experiments.page.style import house_style, new_figure
from experiments.study import fronts
from experiments.study.config import Arm
from experiments.study.report import grid, write
from experiments.study.report import summary as summaries
from experiments.study.report.labels import label
from experiments.study.report.page import page
from experiments.study.report.rows import COLUMNS
from experiments.study.report.terminal import study_table
from experiments.study.results import ArmResult, load
from tests.experiments import studies
from tests.experiments.pages import Page, check_form, check_numbers

METHODS = ("pcgrad", "cagrad", "mgda", "nash", "modo")
BROKEN = {"nash": -1, "modo": 1}
FIGURES = {
    "differences",
    "front",
    "training",
    "conflict",
    "weights",
    "residuals",
    "profile",
    "cost",
    "sensitivity",
}


def made(folder, study, *args):
    """A study's results and what its report wrote: bytes by name."""
    results = load(studies.write(folder / "study", study, *args))
    write(results, folder / "report")
    return results, contents(folder / "report")


def contents(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """PCGrad better and MGDA worse by far, two that fail; two tasks."""
    study = studies.config(METHODS)
    nulls = Arm(**{**vars(study.arms[0]), "name": "null:1", "kind": "null", "shift": 2**20})
    study = studies.with_arms(study, [*study.arms, nulls])
    effects = {"pcgrad": 0.05, "mgda": -0.1}
    return made(tmp_path_factory.mktemp("planted"), study, effects, BROKEN)


@pytest.fixture(scope="module")
def four_tasks(tmp_path_factory):
    """Four tasks, two of them errors; another budget for one method."""
    study = studies.config(("pcgrad", "cagrad"), "digit_attributes", seeds=3, steps=30)
    arms = [*study.arms]
    more = [{**trial, "cagrad.c": c} for trial in studies.TRIALS for c in (0.2, 0.8)]
    arms[-1] = Arm(**{**vars(arms[-1]), "trials": more})
    folder = tmp_path_factory.mktemp("four")
    return made(folder, studies.with_arms(study, arms), {"pcgrad": 0.06})


@pytest.fixture(scope="module")
def one_seed_folder(tmp_path_factory):
    study = studies.config(("pcgrad",), seeds=1, front=0, trials=studies.TRIALS[:1], steps=30)
    return studies.write(tmp_path_factory.mktemp("one") / "study", study)


@pytest.fixture(scope="module")
def one_seed(one_seed_folder, tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    results = load(one_seed_folder)
    write(results, folder)
    return results, contents(folder)


@pytest.fixture(scope="module")
def all_failed(tmp_path_factory):
    study = studies.config(("pcgrad",), seeds=2, front=3, steps=30)
    names = [arm.name for arm in study.arms]
    return made(tmp_path_factory.mktemp("failed"), study, {}, dict.fromkeys(names, -1))


@pytest.fixture(params=["planted", "four_tasks", "one_seed", "all_failed"])
def any_report(request):
    return request.getfixturevalue(request.param)


def numbers_of(files):
    return json.loads(files["summary.json"]), json.loads(files["cost.json"])


def page_of(files):
    return Page(files["report.html"].decode())


# Numbers -----------------------------------------------------------------------------------------


def test_what_was_planted_is_what_is_found(planted):
    found, _ = numbers_of(planted[1])
    assert found["answer"]["sure"] == {
        "pcgrad": {"left": "better", "right": "better"},
        "mgda": {"left": "worse", "right": "worse"},
    }
    assert found["answer"]["outside_front"] == ["pcgrad"]
    assert found["arms"]["mgda"]["front"]["place"] == "inside"
    assert found["order"][0] == "pcgrad"
    text = " ".join(found["answer"]["text"])
    assert "Of 5 methods, 2 differ from equal weights after Holm's correction over 8 tests" in text
    assert "pcgrad lies outside the front of 5 static weights" in text
    assert "null:1 (equal weights again with other keys) is not found to differ" in text
    assert "nash (4 seeds) and modo (1 seed)" in text


def test_no_claims_without_differences(tmp_path):
    study = studies.config(("pcgrad", "cagrad"), steps=30)
    found = summaries.summary(load(studies.write(tmp_path, study)))
    text = " ".join(found["answer"]["text"])
    assert "None of the 2 methods differs from equal weights" in text
    assert "No method is shown to lie outside the front of 5 static weights" in text


def test_table_numbers_are_those_of_scipy(planted):
    results, files = planted
    found, _ = numbers_of(files)
    base = results.arms["equal"].test
    family = []
    for name in ("pcgrad", "cagrad", "mgda", "null:1"):
        for task in ("left", "right"):
            ours = found["arms"][name]["difference"][task]
            x, y = results.arms[name].test[task]["accuracy"], base[task]["accuracy"]
            assert ours["p"] == pytest.approx(stats.ttest_rel(x, y).pvalue, rel=1e-5)
            assert ours["mean"] == pytest.approx(np.mean(x - y), rel=1e-5)
            assert ours["low"] < ours["mean"] < ours["high"]
            family.append((ours["p"], ours["p_holm"]))
    # The largest is not multiplied more than those before it, the smallest by the number of tests.
    p, adjusted = np.array(sorted(family)).T
    expected = np.minimum(1, np.maximum.accumulate(p * np.arange(8, 0, -1)))
    np.testing.assert_allclose(adjusted, expected, rtol=1e-5)


def test_baselines_and_arms_that_lost_seeds_are_not_tested(planted):
    found, _ = numbers_of(planted[1])
    for name in ("static:1.67,0.333", "single:left", "modo"):
        difference = found["arms"][name]["difference"]["left"]
        assert difference["p"] is None
        assert difference["p_holm"] is None
        assert difference["mean"] is not None
    assert found["arms"]["modo"]["difference"]["left"]["seeds"] == 3
    assert found["arms"]["modo"]["lost"] == 1
    assert found["arms"]["modo"]["front"]["p_holm"] is None


def test_ranks_are_those_of_arms_that_train_every_task(planted):
    results, files = planted
    found, _ = numbers_of(files)
    names = [name for name, arm in results.arms.items() if len(arm.arm.tasks) == 2]
    scores = np.array(
        [[results.arms[n].test[task]["accuracy"] for task in ("left", "right")] for n in names]
    )
    ranks = stats.rankdata(-np.where(np.isnan(scores), -1, scores), axis=0).mean(axis=(1, 2))
    for name, rank in zip(names, ranks, strict=True):
        assert found["arms"][name]["rank"]["mean"] == pytest.approx(rank, rel=1e-5)
    assert found["arms"]["single:left"]["rank"] is None
    placed = [found["arms"][n]["rank"]["mean"] for n in found["order"][: len(names)]]
    assert placed == sorted(placed)


def test_delta_m_by_hand(four_tasks):
    results, files = four_tasks
    found, _ = numbers_of(files)
    gains = []
    for task in results.config.metrics:
        by_metric = []
        for metric, higher in results.higher_is_better[task].items():
            x = results.arms["pcgrad"].test[task][metric].mean()
            alone = results.arms[f"single:{task}"].test[task][metric].mean()
            by_metric.append((1 if higher else -1) * 100 * (x - alone) / alone)
        gains.append(by_metric)
    ours = found["arms"]["pcgrad"]["delta_m"]
    assert ours["metrics"]["mean"] == pytest.approx(np.mean(np.concatenate(gains)), rel=1e-4)
    assert ours["tasks"]["mean"] == pytest.approx(np.mean([np.mean(g) for g in gains]), rel=1e-4)
    assert abs(ours["tasks"]["mean"] - ours["metrics"]["mean"]) > 0.1


def test_less_error_is_better(four_tasks):
    found, _ = numbers_of(four_tasks[1])
    assert found["tasks"]["mass"] == {"metric": "mae", "higher_is_better": False}
    assert found["arms"]["pcgrad"]["difference"]["mass"]["mean"] < 0
    assert found["answer"]["sure"]["pcgrad"]["mass"] == "better"


def test_an_unequal_budget_is_said(four_tasks, planted):
    assert "2 to 4</dd>" not in page_of(four_tasks[1]).text
    text = " ".join("".join(page_of(four_tasks[1]).text).split())
    assert "2 to 4: the budgets are not equal" in text
    assert "2 for every arm" in "".join(page_of(planted[1]).text)
    chosen = numbers_of(four_tasks[1])[0]["arms"]["cagrad"]["hyperparameters"]
    assert set(chosen) == {"learning_rate", "weight_decay", "cagrad.c"}


RATES = (1e-3, 3e-3, 1e-2)


def arm_result(trials, chosen, scores=None):
    """An arm's trials and its choice; scores finite where they are not given."""
    arm = Arm("a", "method", "pcgrad", {}, trials, ("left",))
    found = np.zeros((len(trials), 2)) if scores is None else np.array(scores)
    return ArmResult(arm, found, chosen, *[None] * (len(ArmResult._fields) - 3))


@pytest.mark.parametrize(
    ("name", "values", "chosen", "expected"),
    [
        ("learning_rate", RATES, 0, {"values": 3, "end": "least"}),
        ("learning_rate", RATES, 1, {"values": 3, "end": None}),
        ("learning_rate", RATES, 2, {"values": 3, "end": "largest"}),
        ("learning_rate", (3e-3, 1e-2, 1e-3, 3e-3, 1e-2), 4, {"values": 3, "end": "largest"}),
        ("learning_rate", RATES[:2], 1, {"values": 2, "end": "either"}),
        ("learning_rate", RATES[:1], 0, None),
        ("weight_decay", (0.0, 1e-4), 0, {"values": 2, "end": None}),
        ("weight_decay", (0.0, 1e-4), 1, {"values": 2, "end": "either"}),
        ("weight_decay", (0.0, 1e-4, 1e-3), 0, {"values": 3, "end": None}),
        ("weight_decay", (0.0, 1e-4, 1e-3), 2, {"values": 3, "end": "largest"}),
        ("weight_decay", (1e-5, 1e-4, 1e-3), 0, {"values": 3, "end": "least"}),
        ("cagrad.c", (0.0, 0.4, 0.8), 0, {"values": 3, "end": "least"}),
    ],
)
def test_where_a_choice_lies_in_its_grid(name, values, chosen, expected):
    trials = [{"learning_rate": 0.1, "weight_decay": 0.0, name: value} for value in values]
    assert grid.tuned(arm_result(trials, chosen)) == ({name: expected} if expected else {})


def test_rates_that_failed_were_tried_and_an_arm_that_failed_chose_nothing():
    trials = [{"learning_rate": rate} for rate in RATES]
    below = arm_result(trials, 1, [[-1, -1], [0, 0], [-np.inf, -np.inf]])
    assert grid.tuned(below) == {"learning_rate": {"values": 3, "end": None}}
    assert grid.tuned(arm_result(trials, 0, np.full((3, 2), -np.inf))) == {}


def test_choices_at_the_ends_of_a_grid_are_said(tmp_path):
    """The first trial is the best one of every arm: their order decides what is chosen."""

    def trials(rates, decays=(0.0,), **options):
        extra = [dict(zip(options, v, strict=True)) for v in zip(*options.values(), strict=True)]
        return [
            {"learning_rate": r, "weight_decay": d, **more}
            for d in decays
            for r in rates
            for more in extra or [{}]
        ]

    low, middle, high = RATES
    orders = {
        "pcgrad": trials((high, middle, low)),
        "cagrad": trials((high, middle, low), **{"cagrad.c": (0.8, 0.2, 0.5)}),
        "mgda": trials((low, middle, high)),
        "dwa": trials((middle, low, high), (0.0, 1e-4, 1e-3)),
        "famo": trials((middle, low, high), (1e-3, 0.0, 1e-4)),
        "imtl_g": trials((high, low)),
        "aligned": trials((low,)),
        "nash": trials((high, middle, low)),
    }
    base = trials((high, middle, low))
    study = studies.config(tuple(orders), seeds=2, trials=base, front=0, steps=20)
    arms = [Arm(**{**vars(arm), "trials": orders.get(arm.name, arm.trials)}) for arm in study.arms]
    results = load(studies.write(tmp_path, studies.with_arms(study, arms), {}, {"nash": -1}))
    found = summaries.summary(results)
    assert found["arms"]["cagrad"]["grid"] == {
        "learning_rate": {"values": 3, "end": "largest"},
        "cagrad.c": {"values": 3, "end": "largest"},
    }
    assert found["arms"]["aligned"]["grid"] == found["arms"]["nash"]["grid"] == {}
    # Equal weights, two single tasks and five methods; nash chose nothing.
    assert found["grid"]["learning_rate"] == {
        "arms": 8,
        "either": 1,
        "least": {"names": ["mgda"], "values": [low]},
        "largest": {
            "names": ["equal", "single:left", "single:right", "pcgrad", "cagrad"],
            "values": [high],
        },
    }
    said = [text for text in found["answer"]["text"] if "grid" in text]
    assert said == [
        "5 of 8 arms chose the largest learning rate tried, 0.01: the grid may end too low.",
        "1 of 8 arms (mgda) chose the least learning rate tried, 0.001: the grid may begin too "
        "high.",
        "With two values tried, either is an end of the grid: what 1 arm chose as learning rate "
        "does not say whether the grid is wide enough.",
        "cagrad chose the largest cagrad.c tried, 0.8: the grid may end too low.",
        "1 of 2 arms (famo) chose the largest weight decay tried, 0.001: the grid may end too low.",
    ]
    write(results, tmp_path / "report")
    files = contents(tmp_path / "report")
    marks = re.findall(r"(?:least|largest) \w+ tried", "".join(page_of(files).text))
    assert sorted(marks) == ["largest c tried"] + 5 * ["largest lr tried"] + [
        "largest wd tried",
        "least lr tried",
    ]
    rows = list(csv.DictReader(io.StringIO(files["table.csv"].decode())))
    chose = {
        (row["arm"], row["metric"]): row["value"]
        for row in rows
        if row["quantity"] == "chose the largest value tried"
    }
    assert chose["cagrad", "cagrad.c"] == chose["famo", "weight_decay"] == "1"
    assert chose["mgda", "learning_rate"] == chose["dwa", "weight_decay"] == "0"


def test_nothing_is_said_of_a_grid_without_choices_at_its_ends(one_seed, tmp_path):
    assert "grid" not in " ".join(numbers_of(one_seed[1])[0]["answer"]["text"])
    middle = [{"learning_rate": rate, "weight_decay": 0.0} for rate in (3e-3, 1e-3, 1e-2)]
    study = studies.config(("pcgrad",), seeds=2, front=0, steps=20, trials=middle)
    found = summaries.summary(load(studies.write(tmp_path, study)))
    assert found["grid"]["learning_rate"]["arms"] == 4
    assert "grid" not in " ".join(found["answer"]["text"])


def test_front_and_gain(planted):
    results, files = planted
    found, _ = numbers_of(files)
    static = [n for n in results.arms if n == "equal" or n.startswith("static:")]
    points = np.array(
        [[results.arms[n].test[t]["accuracy"].mean() for t in ("left", "right")] for n in static]
    )
    reference = points.min(axis=0) - 0.1 * np.ptp(points, axis=0)
    front = found["front"]
    assert list(front["reference"].values()) == pytest.approx(reference.tolist(), rel=1e-5)
    assert front["hypervolume"] == pytest.approx(fronts.hypervolume(points, reference), rel=1e-4)
    better = [found["arms"]["pcgrad"]["metrics"][t]["accuracy"]["mean"] for t in ("left", "right")]
    whole = fronts.hypervolume([*points, better], reference)
    gained = found["arms"]["pcgrad"]["front"]["gain"]
    assert gained == pytest.approx(whole / front["hypervolume"] - 1, rel=1e-3)


def test_the_profile_counts(planted):
    results, files = planted
    profile = numbers_of(files)[0]["profile"]
    names = list(profile["shares"])
    assert not [name for name in names if name.startswith(("static:", "single:"))]
    scores = np.array(
        [[results.arms[n].test[task]["accuracy"] for task in ("left", "right")] for n in names]
    )
    behind = 100 * (1 - scores / np.nanmax(scores, axis=0))
    for i, name in enumerate(names):
        shares = [np.mean(behind[i] < x) for x in profile["within"]]
        assert np.mean(np.abs(np.array(profile["shares"][name]["mean"]) - shares)) < 0.01


def test_what_was_recorded_along_the_way(planted):
    results, files = planted
    rows = list(csv.DictReader(io.StringIO(files["curves.csv"].decode())))
    assert [row["arm"] for row in rows[::10]] == list(results.arms)
    curves = results.arms["pcgrad"].curves
    a, b = np.moveaxis(curves.norms, -1, 0)
    similarity = (2 * a * b / (a**2 + b**2)).mean(axis=0)
    ours = [float(row["magnitude"]) for row in rows if row["arm"] == "pcgrad"]
    np.testing.assert_allclose(ours, similarity, rtol=1e-4)
    ours = [float(row["weights right"]) for row in rows if row["arm"] == "pcgrad"]
    np.testing.assert_allclose(ours, curves.weights[:, :, 1].mean(axis=0), rtol=1e-4)
    assert all(not row["weights right"] for row in rows if row["arm"] == "nash")
    along = numbers_of(files)[0]["arms"]["pcgrad"]["along"]
    assert along["magnitude_similarity"]["mean"] == pytest.approx(similarity.mean(), rel=1e-4)
    assert along["cosine"]["mean"] == pytest.approx(curves.cosine[..., 0, 1].mean(), rel=1e-4)


def test_cost_is_of_one_training(planted):
    results, files = planted
    _, cost = numbers_of(files)
    times, base = (np.array(results.timing["side by side"][name]) for name in ("pcgrad", "static"))
    ours = cost["programs"]["pcgrad"]
    # A dispatch is ten steps of six trainings.
    assert ours["milliseconds"] == pytest.approx(1e3 * np.median(times) / 60, rel=1e-5)
    found = [ours["ratio"][part] for part in ("low", "mean", "high")]
    assert found == pytest.approx(np.quantile(times / base, [0, 0.5, 1]), rel=1e-5)
    assert cost["programs"]["static"]["ratio"] == {"mean": 1, "low": 1, "high": 1}
    assert cost["reference"] == "static"
    assert cost["seconds"] == sum(program["seconds"] for program in cost["programs"].values())


def test_one_seed_has_no_intervals_and_no_tests(one_seed):
    found, _ = numbers_of(one_seed[1])
    arm = found["arms"]["pcgrad"]
    assert arm["rank"]["low"] is None
    assert arm["difference"]["left"]["p_holm"] is None
    assert found["answer"]["differ"] == []
    assert "There is one seed: no interval and no test exists" in found["answer"]["text"][0]
    text = "".join(page_of(one_seed[1]).text)
    assert "With one seed there are no intervals." in text
    intervals = [e for _, e in page_of(one_seed[1]).elements if e.get("class") == "interval"]
    assert len(intervals) == 2  # of two programs' costs, over turns


def test_a_protocol_and_a_schedule_are_said(one_seed):
    found, _ = numbers_of(one_seed[1])
    setting = {**found["setting"], "protocol": "published: all rows", "schedule": [[1500, 0.5]]}
    text = "".join(Page(page(found | {"setting": setting}, numbers_of(one_seed[1])[1], [])).text)
    assert "published: all rows" in text
    assert "rates × 0.5 from step 1,500 on" in text
    assert "rates ×" not in "".join(page_of(one_seed[1]).text)


def test_nothing_but_failures_is_still_a_report(all_failed):
    found, _ = numbers_of(all_failed[1])
    assert all(arm["failed"] and arm["lost"] == 2 for arm in found["arms"].values())
    assert found["answer"]["differ"] == []
    assert "pcgrad (2 seeds)" in found["answer"]["text"][-1]


def test_no_method_is_put_outside_the_front_by_noise_alone():
    """As a family, over methods: at most 5 in 100 studies, and one far outside is found."""
    rng = np.random.default_rng(0)
    false, found = [], 0
    signs = np.array([1, -1])
    for _ in range(400):
        seeds = rng.normal(0, 3, (2, 6))
        values = {f"m{i}": seeds + rng.normal(0, 1, (2, 6)) for i in range(8)}
        # Only the middle point can be as good as the methods: the hardest front to be inside of.
        ends = {"a": [[9], [9]], "b": [[-9], [-9]], "equal": [[0], [0]]}
        values |= {n: seeds + rng.normal(0, 1, (2, 6)) + x for n, x in ends.items()}
        methods = [f"m{i}" for i in range(8)]
        p = summaries._outside(values, signs, methods, list(ends))
        false.append(min(p.values()) <= 0.05)
        values["m0"] = values["m0"] + np.array([[6], [-6]])
        found += summaries._outside(values, signs, methods, list(ends))["m0"] <= 0.05
    assert np.mean(false) < 0.08  # 0.05 and three standard errors
    assert found > 390


# Files -------------------------------------------------------------------------------------------


def test_bytes_are_the_same_and_times_are_in_the_files_of_cost_alone(planted, tmp_path):
    results, files = planted
    beside = {name: [7.0, 8.0] for name in results.timing["side by side"]}
    slower = {**results.timing, "side by side": beside}
    write(results._replace(timing=slower), tmp_path)
    found = contents(tmp_path)
    changed = {name for name in files if found.pop(name) != files[name]}
    assert changed == {"cost.json", "cost.csv", "report.html", "figures/cost.png"}
    assert not found
    assert set(files) == {
        "summary.json",
        "table.csv",
        "curves.csv",
        "cost.json",
        "cost.csv",
        "report.html",
        *(f"figures/{name}.png" for name in FIGURES),
    }


def test_every_row_of_the_table_has_a_value_or_stands_for_a_failure(any_report):
    results, files = any_report
    rows = list(csv.DictReader(io.StringIO(files["table.csv"].decode())))
    assert tuple(rows[0]) == COLUMNS
    assert {row["arm"] for row in rows} - {""} == set(results.arms)
    failed = {n for n, arm in numbers_of(files)[0]["arms"].items() if arm["failed"]}
    for row in rows:
        assert (
            row["value"]
            or row["arm"] in failed | {""}
            or row["quantity"]
            in (
                "largest residual",
                "weight",
                "loss of a trial",
                "validation score of a trial",
                "hypervolume gained",
            )
        )


def test_an_unwritable_folder_is_one_line(one_seed, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(cli.UserError, match="file"):
        write(one_seed[0], tmp_path / "file")


# The page ----------------------------------------------------------------------------------------


def test_the_page_is_well_formed_and_needs_nothing_else(any_report):
    check_form(any_report[1]["report.html"].decode())


def test_every_figure_has_a_text_and_a_caption(planted, four_tasks):
    for files in (planted[1], four_tasks[1]):
        page = page_of(files)
        drawn = page.of("svg")
        assert len(drawn) == len(page.of("figure")) == len(page.of("figcaption")) == len(FIGURES)
        assert all(len(a["aria-label"]) > 40 and a["role"] == "img" for a in drawn)
        assert {f"figure-{name}" for name in FIGURES} == {a["id"] for a in page.of("figure")}
        for name in FIGURES:
            assert files[f"figures/{name}.png"].startswith(b"\x89PNG")


def test_every_arm_has_its_row(any_report):
    results, files = any_report
    page = page_of(files)
    assert len(page.of("caption")) == len(page.of("table")) == len(page.rows)
    first = [name.strip() for name in page.rows[0]]
    assert sorted(first) == sorted(results.arms)
    assert first == numbers_of(files)[0]["order"]


def test_failed_arms_are_marked(planted):
    text = " ".join("".join(page_of(planted[1]).text).split())
    assert "nash failed" in text
    assert "modo 1 lost" in text


def test_every_number_of_the_page_is_in_the_files(any_report):
    _, files = any_report
    page = page_of(files)
    assert len(page.data) > 60
    tables = [files[name].decode() for name in ("table.csv", "cost.csv")]
    # Counts of seeds and trials are of what the JSON lists.
    check_numbers(page, numbers_of(files), tables, counts={1, 2, 3, 4})


def test_names_beside_points_do_not_cover_each_other():
    rng = np.random.default_rng(1)
    with house_style():
        figure = new_figure(5.0)
        axes = figure.subplots()
        axes.set_xlim(0, 1)
        axes.set_ylim(0, 1)
        figure.canvas.draw()
        figure.set_layout_engine("none")
        points = 0.5 + 0.06 * rng.standard_normal((24, 2))
        before = len(axes.texts)
        names = [f"method_{i}" for i in range(24)]
        label(axes, points, names, ["#000000"] * 24, [False] * 24, np.empty((0, 2)))
        boxes = [text.get_window_extent() for text in axes.texts[before:]]
    assert [text.get_text() for text in axes.texts[before:]] == names
    frame = axes.get_window_extent()
    for i, box in enumerate(boxes):
        assert frame.x0 <= box.x0
        assert box.x1 <= frame.x1
        assert sum(box.shrunk(0.98, 0.7).overlaps(other) for other in boxes) <= 2, names[i]
    covered = sum(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])
    assert covered <= 2


# The command line --------------------------------------------------------------------------------


def test_the_table_on_the_terminal(planted):
    console = Console(width=80, file=io.StringIO())
    console.print(study_table(numbers_of(planted[1])[0]))
    text = console.file.getvalue()
    assert max(map(len, text.splitlines())) <= 80
    assert re.search(r"pcgrad .*\+0\.0\d+ ±0\.0\d+ ▲", text)
    assert re.search(r"mgda .*▼", text)
    assert "nash (4 lost)" in text
    assert "Of 5 methods, 2 differ" in " ".join(text.split())


def test_the_command_writes_where_it_is_told(one_seed_folder, one_seed, tmp_path, capsys):
    before = contents(one_seed_folder)
    assert cli.main(["report", str(one_seed_folder), "--out", str(tmp_path)]) == 0
    assert "report.html" in capsys.readouterr().out
    assert contents(one_seed_folder) == before
    assert contents(tmp_path) == one_seed[1]


def test_no_study_is_one_line(tmp_path, capsys):
    assert cli.main(["report", str(tmp_path)]) == 2
    assert "no finished study in" in capsys.readouterr().err
    assert not contents(tmp_path)


# A browser ---------------------------------------------------------------------------------------

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)


@pytest.mark.slow
@pytest.mark.skipif(BROWSER is None, reason="needs a Chromium")
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_opens_it_without_errors(planted, tmp_path, width):
    """No errors, nothing wider than the window, and a head of a table sorts its column."""
    probe = """<script>
    const first = document.querySelector("#results-table tbody th").textContent;
    const button = document.querySelector('#results-table th[data-column="1"] button');
    button.click(); button.click();
    const last = document.querySelector("#results-table tbody th").textContent;
    const wide = document.documentElement.scrollWidth;
    document.body.innerHTML = `<p id="probe">${[wide, innerWidth, first, last].join("|")}</p>`;
    </script></body>"""
    text = planted[1]["report.html"].decode().replace("</body>", probe)
    (tmp_path / "page.html").write_text(text)
    done = subprocess.run(
        [
            BROWSER,
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--enable-logging=stderr",
            f"--user-data-dir={tmp_path / 'profile'}",
            f"--window-size={width},900",
            "--dump-dom",
            (tmp_path / "page.html").as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "CONSOLE" not in done.stderr
    wide, inner, first, last = re.search(r'id="probe">(.*?)<', done.stdout)[1].split("|")
    assert int(wide) <= int(inner)
    assert first.startswith("pcgrad")
    assert last.startswith("nash")
