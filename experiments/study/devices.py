"""How many devices share a call of a study, and a device for each core of a machine without others.

XLA runs one program over the cores of a CPU by cutting its operations up, which gains little where
they are small. Trainings need nothing of one another: a device a core, each with its share of them,
took 0.6 to 0.75 of the time of one device with all (10 PCGrad trainings of MultiDigits, 2 cores).
"""

import contextlib
import json
import os
from pathlib import Path

import jax


def choose(given: int | None, width: int | None, saved: int | None) -> int:
    """The devices of a study; makes a device of each core unless JAX already runs.

    Args:
        given: what was asked for, None for nothing.
        width: trainings of a call, where that was asked for: they are cut into equal shares.
        saved: the devices of the study that is continued.

    Returns:
        What was asked for, else what was saved, else all devices, of a CPU not more than its cores.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    wanted = given if given is not None else saved or cores or 1
    if "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        with contextlib.suppress(RuntimeError):  # JAX already runs, with the devices it has
            jax.config.update("jax_num_cpu_devices", max(wanted, 1))
    if given is not None or saved:
        return wanted
    there = jax.device_count()
    most = min(there, wanted) if jax.default_backend() == "cpu" else there
    return next(n for n in range(most, 0, -1) if not (width or 0) % n)


def saved_devices(path: Path, *keys: str) -> int | None:
    """The devices that a JSON file names under these keys; None where it does not."""
    try:
        found = json.loads(path.read_text())
        for key in keys:
            found = found[key]
        return int(found)
    except (OSError, ValueError, KeyError, TypeError):
        return None
