"""Several processes from the command line, on simulated devices of one machine."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from experiments.cli import main
from jmtl.train import checkpoint
from tests.ports import free_port

ROOT = Path(__file__).parents[2]


def arguments(folder, data_dir, steps, *more):
    given = (
        f"train multi_digits --steps {steps} --batch-size 32 --checkpoint-every 100 --out {folder} "
        f"--data-dir {data_dir}"
    )
    return [*given.split(), *map(str, more)]


def started(command, processes=2, each=2):
    """The command in processes that find one another, with devices of their own."""
    address = f"127.0.0.1:{free_port()}"
    flags = [f for f in os.environ["XLA_FLAGS"].split() if "device_count" not in f]
    flags.append(f"--xla_force_host_platform_device_count={each}")
    environment = {**os.environ, "XLA_FLAGS": " ".join(flags), "JAX_PLATFORMS": "cpu"}
    several = ("--coordinator", address, "--processes", str(processes), "--process-id")
    return [
        subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "experiments", *command, *several, str(rank)],
            cwd=ROOT,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(processes)
    ]


@pytest.mark.parametrize("parts", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_two_processes_are_killed_and_one_goes_on(parts, tmp_path, data_dir, capsys):
    """Parameters as those of a run that one process made on the same mesh of four devices."""
    folder, split = tmp_path / "several", ("--model-parallel", parts)
    running = started(arguments(folder, data_dir, 100_000, *split))
    try:
        while not list(folder.glob("checkpoints/100/*")):
            assert all(process.poll() is None for process in running), running[0].communicate()
            time.sleep(0.05)
        for process in running:
            process.send_signal(signal.SIGKILL)
    finally:
        for process in running:
            process.kill()
        said = [process.communicate(timeout=60) for process in running]
    ours = [[x for x in out.splitlines() if not x.startswith("[Gloo]")] for out, _ in said]
    assert "pcgrad: from step 0" in ours[0][0]
    assert ours[1] == []  # what is printed is printed once
    steps = max(checkpoint.steps(folder / "checkpoints"), default=0) + 100
    four = ("--devices", 4, *split)
    assert main([*arguments(folder, data_dir, steps, *four), "--resume"]) == 0
    whole = tmp_path / "whole"
    assert main(arguments(whole, data_dir, steps, *four)) == 0
    (step, found), (same, expected) = (
        checkpoint.read(run / "checkpoints") for run in (folder, whole)
    )
    assert step == same == steps
    for path, value in expected.items():
        if path.startswith("params/"):
            limit = 1e-5 * np.abs(value).max() + 1e-6
            np.testing.assert_allclose(found[path], value, rtol=0, atol=limit, err_msg=path)
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == steps // 100


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("--coordinator a:1", "--coordinator without --processes and --process-id"),
        ("--processes 2 --process-id 0", "--processes and --process-id without --coordinator"),
        ("--coordinator a:1 --processes 2 --process-id 2", "--process-id is from 0 to 1, got 2"),
        ("--distributed --processes 2", "--distributed asks the cluster for what --processes says"),
    ],
)
def test_bad_input(given, said, tmp_path, data_dir, capsys):
    assert main(arguments(tmp_path / "out", data_dir, 20, *given.split())) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
