"""The table of every offline problem by methods and ways of sharing."""

import dataclasses
import json

from experiments import breadth
from experiments.problems import PROBLEMS


def test_every_offline_problem_is_there_with_both_ways_of_sharing():
    listed = list(breadth.runs(breadth.OFFLINE))
    assert {one.problem for one in listed} == {p.name for p in PROBLEMS.values() if p.offline}
    assert len(listed) == 8 * len(breadth.OFFLINE) == len({one.name for one in listed})
    assert {one.sharing for one in listed} == {"hard", "mmoe"}


def test_the_table_is_written_and_what_is_finished_is_not_trained_again(
    tmp_path, monkeypatch, capsys
):
    trained = []

    def fake(one, steps, folder, data_dir, watcher):
        trained.append(one.name)
        test = {task.name: {task.main: 0.25} for task in PROBLEMS[one.problem].tasks}
        return {"steps": steps, "seconds": 1.0, "test": test}

    answers = {task.name: {task.main: 0.5} for task in PROBLEMS["tabular"].tasks}
    monkeypatch.setattr(breadth, "trained", fake)
    monkeypatch.setattr(breadth.constant, "scores", lambda *_: answers)
    command = ["--problems", "tabular", "--steps", "3", "--out", str(tmp_path)]
    breadth.main(command)
    assert len(trained) == 8
    breadth.main(command)
    assert len(trained) == 8
    breadth.main([*command, "--steps", "4"])
    assert len(trained) == 16
    lines = (tmp_path / "table.csv").read_text().splitlines()
    assert lines[0].startswith("problem,task,metric,constant,hard equal,hard pcgrad")
    assert len(lines) == 1 + len(PROBLEMS["tabular"].tasks)
    assert "| 0.500 | 0.250 |" in (tmp_path / "table.md").read_text()
    assert json.loads((tmp_path / "results.json").read_text())["versions"]
    capsys.readouterr()


def test_a_run_goes_on_with_its_own_configuration(tmp_path, monkeypatch):
    """Training saves what "auto" became, and is refused another word for it."""
    one = breadth.Run("tabular", "mmoe", "pcgrad")
    seen = []

    def fake(config, folder, data_dir, resume, watcher):
        folder.mkdir(exist_ok=True)
        seen.append((config.input, resume))
        saved = dataclasses.replace(config, input="resident")
        (folder / "config.json").write_text(json.dumps(dataclasses.asdict(saved)))
        return {"steps": config.steps, "test": {}}

    monkeypatch.setattr(breadth.run, "train", fake)
    for _ in range(2):
        breadth.trained(one, 5, tmp_path / "run", tmp_path, breadth.run.Watcher())
    assert seen == [("auto", False), ("resident", True)]
