"""A run over several processes: one on each host, or on each GPU."""

import contextlib
from collections.abc import Iterator

import jax
from jax.experimental import multihost_utils

from experiments.errors import UserError

TIMEOUT = 300
"""Seconds that processes wait for one another at the start."""


@contextlib.contextmanager
def joined(
    coordinator: str | None, processes: int | None, process_id: int | None, distributed: bool
) -> Iterator[None]:
    """This process as one of several while the block runs; alone if nothing is given.

    Args:
        coordinator: HOST:PORT of process 0, that all can reach.
        processes: how many there are.
        process_id: which this is, from 0.
        distributed: take all three from the cluster: Cloud TPU, Slurm, Open MPI, Kubernetes.

    Raises:
        UserError: some of the three and not all; the processes did not find one another.
    """
    given = {"coordinator": coordinator, "processes": processes, "process-id": process_id}
    said = [f"--{name}" for name, value in given.items() if value is not None]
    missing = [f"--{name}" for name, value in given.items() if value is None]
    if not said and not distributed:
        yield
        return
    if distributed and said:
        raise UserError(f"--distributed asks the cluster for what {' and '.join(said)} says")
    if said and missing:
        raise UserError(f"{' and '.join(said)} without {' and '.join(missing)}: all three, or none")
    if processes is not None and process_id is not None and not 0 <= process_id < processes:
        raise UserError(f"--process-id is from 0 to {processes - 1}, got {process_id}")
    try:
        jax.distributed.initialize(
            coordinator, processes, process_id, initialization_timeout=TIMEOUT
        )
    except (RuntimeError, ValueError) as error:
        where = f"at {coordinator}" if coordinator else "by the cluster's environment"
        raise UserError(f"the processes did not find one another {where}: {error}") from error
    try:
        yield
    finally:
        jax.distributed.shutdown()


def primary() -> bool:
    """Whether this process writes for all."""
    return jax.process_index() == 0


def together(what: str) -> None:
    """Wait until every process is here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(what)
