"""What docs/adding.md adds works: its files and lines, put into a copy of the repository."""

import json
import math
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
GUIDE = (ROOT / "docs" / "adding.md").read_text()

BLOCK = re.compile(r"(?ms)^`([\w/]+\.py)`[^\n]*:\n\n```(python|diff)\n(.*?)^```$")
"""A file's name, and what it holds or the line that it gains."""


def add(root: Path, name: str, kind: str, text: str) -> None:
    """Write a new file, or put the one line of a diff after the line that it shows."""
    path = root / name
    if kind == "python":
        assert not path.exists()
        path.write_text(text)
        return
    before, after = text.splitlines(keepends=True)
    assert (before[0], after[0]) == (" ", "+")
    there = path.read_text()
    assert there.count(before[1:]) == 1
    path.write_text(there.replace(before[1:], before[1:] + after[1:]))


def test_what_the_guide_adds_trains(tmp_path):
    for package in ("jmtl", "experiments"):
        ignored = shutil.ignore_patterns("__pycache__", "results")
        shutil.copytree(ROOT / package, tmp_path / package, ignore=ignored)
    blocks = BLOCK.findall(GUIDE)
    assert [kind for _, kind, _ in blocks] == ["python", "diff", "python", "python", "diff"]
    assert len(blocks) == GUIDE.count("```python") + GUIDE.count("```diff")
    for block in blocks:
        add(tmp_path, *block)
    (command,) = re.findall(r"```sh\npython (.*)\n```", GUIDE)
    done = subprocess.run(
        [sys.executable, "-W", "error", *command.split(), "--out", "run"],
        cwd=tmp_path,
        env=os.environ | {"XLA_FLAGS": "--xla_backend_optimization_level=0"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert (summary["method"], summary["steps"]) == ("equal_norms", 2)
    assert set(summary["test"]) == {"digit", "holes"}
    assert 0 < summary["test"]["holes"]["mae"] < math.inf
    (line,) = map(json.loads, (tmp_path / "run" / "metrics.jsonl").read_text().splitlines())
    assert all(weight > 0 for weight in line["weights"].values())
