"""Whether a long training holds its memory: resident memory by quarters of a run.

python -m experiments.soak

A small MLP trains on MultiDigits, with metrics.jsonl, TensorBoard where it is installed, and a
checkpoint every hundred steps, while studies run in another process, one after the other. Resident
memory is read at every record, from the first on, where what compiling left free is given back. The
exit code is 1 if the last quarter's mean is more than 5 % from the first's.
"""

import argparse
import contextlib
import ctypes
import dataclasses
import importlib.util
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments import run
from experiments.cli import resolve
from experiments.commands import Train
from experiments.config import RunConfig
from experiments.errors import UserError

STEPS = 20_000
EVERY = 100
"""Steps between checkpoints."""

DISPATCH = 20
"""Steps between records, at which memory is read."""

MOST = 0.05
"""Of the first quarter's mean, that the last's may differ by."""

STUDY = (
    *("study", "multi_digits", "--methods", "pcgrad", "--seeds", "0", "--steps", "200"),
    *("--evaluate-every", "100", "--batch-size", "32", "--hidden", "16", "--devices", "1"),
    *("--learning-rates", "1e-3", "--front-points", "2"),
)
"""The study beside the training, without its folders."""


def resident() -> int:
    """The bytes of this process that are in memory.

    Raises:
        UserError: the system has no /proc.
    """
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError as error:
        raise UserError(f"resident memory is read from Linux's /proc: {error}") from None
    return pages * os.sysconf("SC_PAGE_SIZE")


def _give_back() -> None:
    """Give the system what compiling left free: glibc keeps it, and gives it back some time."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def quarters(samples: Sequence[float]) -> list[float]:
    """The means of four equal parts of at least four samples, in order."""
    return [float(part.mean()) for part in np.array_split(np.asarray(samples, float), 4)]


def config_of(steps: int) -> RunConfig:
    """The training: MultiDigits by PCGrad, one hidden layer of 16."""
    command = Train("multi_digits", method="pcgrad", steps=steps, batch_size=32, devices=1)
    made = resolve(command, None)
    return dataclasses.replace(
        made,
        encoder_options={**made.encoder_options, "hidden": [16]},
        steps_per_dispatch=DISPATCH,
        checkpoint_every=EVERY,
    )


@contextlib.contextmanager
def studies(folder: Path, data_dir: Path) -> Iterator[list[int]]:
    """Studies in another process, one after the other while the block lasts.

    Args:
        folder: of the study; removed when it ends.
        data_dir: of all data sets.

    Yields:
        The exit codes of those that came to their end; none is begun after one that failed.
    """
    codes: list[int] = []
    over = threading.Event()
    where = ("--out", str(folder), "--data-dir", str(data_dir))

    def begin_again() -> None:
        while not over.is_set() and not any(codes):
            shutil.rmtree(folder, ignore_errors=True)
            process = subprocess.Popen(
                [sys.executable, "-m", "experiments", *STUDY, *where], stdout=subprocess.DEVNULL
            )
            while process.poll() is None and not over.wait(0.2):
                pass
            if process.poll() is None:
                process.kill()
                process.wait()
            else:
                codes.append(process.returncode)
        shutil.rmtree(folder, ignore_errors=True)

    thread = threading.Thread(target=begin_again)
    thread.start()
    try:
        yield codes
    finally:
        over.set()
        thread.join()


def soak(steps: int, out: Path, data_dir: Path) -> tuple[list[float], int, float]:
    """Train beside studies.

    Args:
        steps: at least four dispatches.
        out: takes the run and the studies; holds no run yet.
        data_dir: of all data sets.

    Returns:
        The mean resident bytes of each quarter, the studies that ended, and seconds.

    Raises:
        UserError: the run or a study failed.
    """
    config = config_of(steps)
    samples: list[float] = []

    def logged(record: Mapping[str, Any]) -> None:
        if not samples:
            _give_back()
        samples.append(resident())

    watcher = run.Watcher(logged=logged)
    log = ["tensorboard"] if importlib.util.find_spec("tensorboardX") else []
    began = time.perf_counter()
    with studies(out / "study", data_dir) as codes:
        run.train(config, out / "run", data_dir=data_dir, resume=False, watcher=watcher, log=log)
    if any(codes):
        raise UserError(f"the study beside the training ended with exit code {codes[-1]}")
    return quarters(samples), len(codes), time.perf_counter() - began


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, and print the quarters; 0 if memory was held, 1 if not, 2 for an error's line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--steps", type=int, default=STEPS)
    parser.add_argument("--out", type=Path, default=Path("runs/soak"))
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    command = parser.parse_args(arguments)
    try:
        if command.steps < 4 * DISPATCH:
            raise UserError(f"--steps {command.steps}: give at least {4 * DISPATCH}")
        means, ended, seconds = soak(command.steps, command.out, command.data_dir)
    except UserError as error:
        print("error:", error, file=sys.stderr)
        return 2
    for number, mean in enumerate(means, 1):
        print(f"quarter {number}: {mean / 2**20:,.1f} MiB")
    change = means[-1] / means[0] - 1
    print(
        f"last against first: {change:+.1%}, expected within {MOST:.0%}; {command.steps:,} steps "
        f"in {seconds:,.0f} s; studies that ended beside it: {ended}"
    )
    return int(abs(change) > MOST)


if __name__ == "__main__":
    sys.exit(main())
