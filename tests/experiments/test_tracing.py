"""The trace of a run: which dispatches it holds."""

import dataclasses
import gzip
import json
from pathlib import Path

from experiments import run
from tests.experiments import tiny


def test_a_trace_of_a_few_dispatches(tmp_path, monkeypatch):
    tiny.install(monkeypatch)
    notes = []

    def train(steps, folder):
        config = dataclasses.replace(tiny.CONFIG, steps=steps)
        watcher = run.Watcher(note=notes.append)
        run.train(
            config, folder, data_dir=Path("none"), resume=False, watcher=watcher, profile=True
        )

    train(60, tmp_path / "long")
    (path,) = tmp_path.glob("long/profile/plugins/profile/*/perfetto_trace.json.gz")
    events = json.loads(gzip.decompress(path.read_bytes()))["traceEvents"]
    names = [event.get("name") for event in events]
    assert names.count("dispatch") == names.count("feed") == 3
    train(20, tmp_path / "short")
    assert not (tmp_path / "short" / "profile").exists()
    assert notes == [
        f"a trace of dispatches 3 to 5: {tmp_path / 'long' / 'profile'}",
        "no trace: it begins at dispatch 3, and there were 2",
    ]
