"""Batches by step number: streamed from disk through Grain, or gathered on the device.

Both ways take their rows from `jmtl.data.indices`, so the same seed gives the same batches.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import grain
import jax
import numpy as np
from jaxtyping import Array, Float32, Int

from jmtl.data.indices import batch_indices
from jmtl.data.source import Source, read


def stream(
    source: Source | Mapping[str, np.ndarray],
    seed: int,
    batch_size: int,
    start_step: int,
    stop_step: int,
    host: int = 0,
    hosts: int = 1,
    threads: int = 4,
    prefetch: int = 16,
) -> Iterator[dict[str, np.ndarray]]:
    """Yields this host's rows of the global batches `start_step` to `stop_step - 1`.

    Batch t depends on (seed, t) alone: to resume at t, start at t.

    Args:
        source: a split from `jmtl.data.source.load`, or its arrays `[n, ...]`.
        seed: in [0, 2**32).
        batch_size: B, rows of the global batch; a multiple of `hosts`.
        start_step: >= 0.
        stop_step: >= `start_step`.
        host: h in [0, hosts).
        hosts: H.
        threads: threads that read ahead.
        prefetch: batches read ahead.

    Yields:
        By feature `[B / H, ...]`: rows [h B / H, (h + 1) B / H) of the global batch.

    Raises:
        ValueError: before the first batch, if a size is out of range.
    """
    n = len(source) if not isinstance(source, Mapping) else _length(source)
    if not 0 <= start_step <= stop_step:
        raise ValueError(
            f"steps {start_step} to {stop_step}; expected 0 <= start_step <= stop_step"
        )
    batch_indices(seed, start_step, batch_size, n, host, hosts)  # refuses here, not in a thread

    def batch(t: int) -> dict[str, np.ndarray]:
        return read(source, batch_indices(seed, t, batch_size, n, host, hosts))

    steps = grain.MapDataset.range(start_step, stop_step).map(batch)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch)
    return iter(steps.to_iter_dataset(options))


def gather(arrays: Any, rows: Int[Array, " B"]) -> Any:
    """Takes a batch from arrays on the device; for use in compiled loops.

    Args:
        arrays: pytree with leaves `[n, ...]`.
        rows: `[B]` in [0, n), from `jmtl.data.indices.indices`.

    Returns:
        The pytree with leaves `[B, ...]`.
    """
    return jax.tree.map(lambda values: values[rows], arrays)


def evaluation_batches(
    source: Source | Mapping[str, np.ndarray], batch_size: int
) -> Iterator[tuple[dict[str, np.ndarray], Float32[np.ndarray, " B"]]]:
    """Yields every example once, in order, in batches of one size.

    Args:
        source: a split from `jmtl.data.source.load`, or its arrays `[n, ...]`.
        batch_size: B, >= 1.

    Yields:
        By feature `[B, ...]`, and `[B]` weights: 1, and 0 for the rows that fill up the last
        batch, which repeat the last example.

    Raises:
        ValueError: if `batch_size` is below 1.
    """
    if batch_size < 1:
        raise ValueError(f"batch_size is {batch_size}; expected at least 1")
    n = len(source) if not isinstance(source, Mapping) else _length(source)
    for start in range(0, n, batch_size):
        rows = np.arange(start, start + batch_size)
        yield read(source, np.minimum(rows, n - 1)), (rows < n).astype(np.float32)


def _length(arrays: Mapping[str, np.ndarray]) -> int:
    lengths = {name: len(values) for name, values in arrays.items()}
    if len(set(lengths.values())) != 1:
        raise ValueError(f"arrays have lengths {lengths}; expected one length")
    return next(iter(lengths.values()))
