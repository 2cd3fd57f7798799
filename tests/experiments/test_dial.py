"""The conflict dial: what its knobs turn, how it chooses, its command and its files."""

import json
import shlex
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.datasets import load_digits

from experiments import cli
from experiments.commands import command_line, parse
from experiments.dial import choice, config, results, sentences
from experiments.dial.choice import Scores
from experiments.dial.command import COLUMNS
from experiments.dial.config import Dial
from experiments.errors import UserError
from experiments.problems.digit_attributes import PROBLEM
from experiments.study.config import programs
from jmtl.data.multi_digits import source_rows
from jmtl.tasks import task_losses
from tests.experiments.pages import Page, check_form, check_numbers

TINY = shlex.split(
    "dial --conflicts 0 1 --scales 0 2 --widths 3 --methods pcgrad famo --learning-rates 0.01 "
    "--seeds 0-2 --steps 4 --evaluate-every 2 --batch-size 8 --devices 1"
)


def raw_of(rows: np.ndarray) -> dict[str, np.ndarray]:
    digits = load_digits()
    n = len(rows)
    return {
        "image": digits.images[rows].astype(np.uint8),
        "digit": digits.target[rows].astype(np.int32),
        "parity": (digits.target[rows] % 2).astype(np.int32),
        "mass": np.linspace(-1, 1, n, dtype=np.float32),
        "centroid": np.ones((n, 2), np.float32),
        "row": rows.astype(np.int32),
    }


def parities(p: float, seed: int, split: str = "train") -> tuple[np.ndarray, np.ndarray]:
    """Of a split, the true parities and those that the knob gives."""
    raw = raw_of(source_rows(load_digits().target)[split])
    problem = PROBLEM.turned({"conflict": p}, seed)
    return raw["parity"], np.asarray(jax.jit(problem.to_batch)(raw).labels["parity"])


def test_all_labels_are_permuted_at_one_and_none_at_zero() -> None:
    true, given = parities(0.0, 0)
    np.testing.assert_array_equal(given, true)
    true, given = parities(1.0, 0)
    assert np.bincount(given).tolist() == np.bincount(true).tolist()
    assert 0.4 < np.mean(given != true) < 0.6
    assert not np.array_equal(given, parities(1.0, 1)[1])


def test_a_larger_share_changes_more_labels_and_those_before_as_well() -> None:
    changed = [np.not_equal(*parities(p, 3)) for p in (0.25, 0.5, 1.0)]
    assert np.all(changed[0] <= changed[1])
    assert np.all(changed[1] <= changed[2])
    # Half of the permuted labels happen to be right.
    np.testing.assert_allclose(np.mean(changed, axis=1), [0.125, 0.25, 0.5], atol=0.04)


def test_other_splits_keep_their_labels() -> None:
    for split in ("validation", "test"):
        true, given = parities(1.0, 0, split)
        np.testing.assert_array_equal(given, true)


def test_the_scale_multiplies_the_loss_of_parity_alone() -> None:
    raw = raw_of(np.arange(12))
    outputs = {
        task.name: jax.random.normal(jax.random.key(i), (12, task.head.features))
        for i, task in enumerate(PROBLEM.tasks)
    }
    turned = PROBLEM.turned({"scale": jnp.float32(2.0)}, 0)
    rest = jnp.stack(task_losses(PROBLEM.tasks, outputs, PROBLEM.to_batch(raw)))
    given = jnp.stack(task_losses(turned.tasks, outputs, turned.to_batch(raw)))
    np.testing.assert_allclose(given / rest, [1, 100, 1, 1], rtol=1e-6)


def test_at_rest_the_problem_is_the_problem() -> None:
    assert PROBLEM.turned({}, 0) is PROBLEM


def test_a_choice_never_looks_at_the_seed_it_is_judged_by() -> None:
    # On its own seed each candidate but "steady" looks best to one seed's validation.
    validation = np.array([[9.0, 0, 0], [0, 9, 0], [0, 0, 9], [4, 4, 4.0]])
    test = np.arange(12.0).reshape(4, 3, 1)
    found = choice.picked(Scores(["a", "b", "c", "steady"], validation, test))
    # Seed 0 sees 9 and 0 of b and c, 4.5 in the mean, against 4 of "steady".
    assert found.names == {"a": 2, "b": 1}
    np.testing.assert_array_equal(found.test[:, 0], [3, 1, 2])
    steady = choice.picked(Scores(["a", "steady"], validation[[0, 3]], test[[0, 3]]))
    assert steady.names == {"a": 2, "steady": 1}
    np.testing.assert_array_equal(steady.test[:, 0], [9, 1, 2])


def test_a_diverged_training_is_not_chosen_and_not_compared() -> None:
    validation = np.array([[-np.inf, 5, 5], [1, 1, 1.0]])
    found = choice.picked(Scores(["a", "b"], validation, np.zeros((2, 3, 1))))
    assert found.names == {"b": 2, "a": 1}
    some = np.array([[np.nan, 0.0], [1, 3], [2, 4], [3, 6]])
    difference = choice.difference(some, np.zeros((4, 2)))
    assert difference["seeds"] == 3
    assert difference["mean"] == pytest.approx((2 + 3 + 4.5) / 3)
    assert difference["tasks"] == pytest.approx([2, 13 / 3])
    assert choice.difference(some[:2], np.zeros((2, 2)))["mean"] is None


def test_one_program_a_method_trains_every_cell() -> None:
    dial = Dial((0, 0.5), (-1, 0, 1), (4,), ("pcgrad", "famo"), (0.01, 0.1), (0, 1), 10, 5, 8, 1)
    study = config.study(dial, 4)
    found = {program.name: len(program.trainings) for program in programs(study)}
    # Static: three weights of six cells, parity alone for two shares, three tasks alone once.
    assert found == {"static": (18 + 2 + 3) * 4, "pcgrad": 24, "famo": 24}
    assert len({arm.name for arm in study.arms}) == len(study.arms)
    assert [config.family(name) for name in dial.methods] == ["surgery", "losses"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("dial")
    assert cli.main([*TINY, "--out", str(folder / "a"), "--data-dir", str(folder / "data")]) == 0
    return folder


def test_the_command_writes_what_it_says(finished: Path) -> None:
    found = json.loads((finished / "a" / "summary.json").read_text())
    assert found["trainings"] == 3 * (3 * 4 + 5 + 2 * 4)
    assert [(cell["conflict"], cell["scale"]) for cell in found["cells"]] == [
        (0, 0), (0, 2), (1, 0), (1, 2)
    ]  # fmt: skip
    assert len(found["answer"]) == len(results.COMPARISONS) + 1
    rows = (finished / "a" / "table.csv").read_text().splitlines()
    assert rows[0] == ",".join(COLUMNS)
    assert len(rows) == 1 + 2 * 4 * len(results.COMPARISONS)
    for cell in found["cells"]:
        assert sum(cell["chosen"]["surgery"].values()) == 3
        # The gradient of parity is larger where its loss is.
        assert (cell["norm_ratio"] > 10) == (cell["scale"] == 2)
    assert (finished / "a" / "figures" / "dial.png").read_bytes()[1:4] == b"PNG"


def test_the_page_is_whole_and_its_numbers_are_in_the_files(finished: Path) -> None:
    folder = finished / "a"
    text = (folder / "report.html").read_text()
    check_form(text)
    found = json.loads((folder / "summary.json").read_text())
    tables = [(folder / name).read_text() for name in ("table.csv", "methods.csv")]
    read = Page(text)
    # The grid itself is in no table.
    numbers = [n for name in ("steps", "batch_size") for n in [found["dial"][name]]]
    seeds = len(found["dial"]["seeds"])
    grid = [*found["dial"]["learning_rates"], seeds, found["trainings"], found["failed"]]
    tables.append("\n".join(map(str, [*numbers, *grid])))
    check_numbers(read, found, tables, counts=(seeds,))
    alternatives = [a["aria-label"] for a in read.of("svg")]
    assert len(alternatives) == 1
    assert "Gradient surgery is" in alternatives[0]


def test_resumed_it_is_the_same_to_the_byte(finished: Path, capsys: Any) -> None:
    folder = finished / "a"
    kept = {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != "timing.json"
    }
    (folder / "width-3" / "trainings" / "famo.000.npz").unlink()
    arguments = [*TINY, "--out", str(folder), "--data-dir", str(finished / "data")]
    assert cli.main([*arguments, "--resume"]) == 0
    for path, content in kept.items():
        assert (folder / path).read_bytes() == content, path
    capsys.readouterr()
    assert cli.main(arguments) == 2
    assert "pass --resume" in capsys.readouterr().err
    assert cli.main([*arguments, "--resume", "--steps", "6"]) == 2
    assert "steps: saved 4, given 6" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--conflicts 0 1.5", "in [0, 1]; got 1.5"),
        ("--scales 7", "from -6 to 6; got 7"),
        ("--widths 0", "at least 1, got 0"),
        ("--widths 4 4", "a number twice"),
        ("--seeds 3", "at least two"),
        ("--methods pcgrd", "pcgrad"),
        ("--methods uncertainty+pcgrad", "not chains"),
        ("--steps 7 --evaluate-every 2", "multiple"),
        ("--learning-rates 0", "must be positive"),
        ("--resume", "no conflict dial"),
    ],
)
def test_bad_input_is_one_line_and_nothing_is_written(
    arguments: str, said: str, tmp_path: Path, capsys: Any
) -> None:
    assert cli.main(["dial", *arguments.split(), "--out", str(tmp_path / "d")]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "d").exists()


def test_no_dial_in_a_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no conflict dial"):
        results.find(tmp_path)


def test_the_command_line_repeats_the_dial() -> None:
    given: Any = parse(TINY)
    words = command_line(given).split()
    assert parse(words[3:]) == given


def test_a_difference_is_told_with_its_sign() -> None:
    assert sentences.percent(-0.0123) == "−1.2 %"
    assert sentences.sure({"p_holm": 0.04, "mean": -1.0}, 0.05) == -1
    assert sentences.sure({"p_holm": 0.06, "mean": -1.0}, 0.05) == 0
    assert sentences.sure({"p_holm": None, "mean": None}, 0.05) == 0
