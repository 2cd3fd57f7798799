"""Two processes that share every batch train as one device does."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from jmtl.train.parallel import shell
from tests.ports import free_port
from tests.train.toy import MLP, distance, numbers, train

ROOT = Path(__file__).parents[2]


@pytest.mark.slow  # tests/experiments/test_hosts.py has two processes by the command line
def test_two_processes_train_as_one_device(tmp_path):
    address = f"127.0.0.1:{free_port()}"
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    environment["JAX_PLATFORMS"] = "cpu"
    command = [sys.executable, "-W", "error", "-m", "tests.train.two_processes"]
    processes = [
        subprocess.Popen(
            [*command, str(rank), "2", address, str(tmp_path)],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        said = [process.communicate(timeout=240) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [0, 0], said
    single = train(shell("jit", 1), MLP)
    expected = {**numbers(single), "losses": np.asarray(single.metrics.losses)}
    for feed in ("resident", "streamed"):
        ranks = [dict(np.load(tmp_path / f"{feed}-{rank}.npz")) for rank in range(2)]
        assert distance(ranks[0], expected) < 1e-5
        assert distance(ranks[1], ranks[0]) == 0
