"""Two processes that share every batch train as one device does."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from jmtl.train import checkpoint
from jmtl.train.parallel import shell
from tests.ports import free_port
from tests.train.toy import MLP, WIDE, distance, numbers, train

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
    for name, encoder in (("whole", MLP), ("split", WIDE)):
        single = train(shell("jit", 1), encoder)
        expected = {**numbers(single), "losses": np.asarray(single.metrics.losses)}
        for feed in ("resident", "streamed"):
            ranks = [dict(np.load(tmp_path / f"{name}-{feed}-{rank}.npz")) for rank in range(2)]
            assert distance(ranks[0], expected) < 1e-5
            assert distance(ranks[1], ranks[0]) == 0
    # What both saved is there once and whole, for any number of devices.
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["20"]
    step, leaves = checkpoint.read(tmp_path / "checkpoints")
    kernel = leaves["params/shared/Dense_1/kernel"]
    assert (step, kernel.shape) == (20, (64, 128))
    (same,) = (x for path, x in ranks[0].items() if "Dense_1" in path and x.shape == (64, 128))
    np.testing.assert_array_equal(kernel, same)
