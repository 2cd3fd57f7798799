"""Batches by step number: streamed from disk through Grain, or gathered on the device.

Both ways take their rows from `jmtl.data.indices`, so the same seed gives the same batches.
"""

from collections.abc import Callable, Iterator
from typing import Any

import grain
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int

from jmtl.data.indices import batch_indices, indices, position
from jmtl.data.several import by_source, seed_of
from jmtl.data.source import lengths, read


def stream(
    source: Any,
    seed: int,
    batch_size: Any,
    start_step: int,
    stop_step: int,
    host: int = 0,
    hosts: int = 1,
    threads: int = 4,
    prefetch: int = 16,
    every: int | None = None,
) -> Iterator[dict[str, Any]]:
    """Yields this host's rows of the global batches `start_step` to `stop_step - 1`.

    Batch t depends on (seed, t) alone: to resume at t, start at t.

    Args:
        source: a split from `jmtl.data.source.load`, or its arrays `[n, ...]`; or several by name.
        seed: in [0, 2**32).
        batch_size: B, rows of the global batch, a multiple of `hosts`; of several by name.
        start_step: >= 0.
        stop_step: >= `start_step`.
        host: h in [0, hosts).
        hosts: H.
        threads: threads that read ahead, at most one for each batch or stack.
        prefetch: batches, or stacks of them, read ahead.
        every: None for one batch at a time. For stacks, the steps of a whole one: each stack ends
            at a multiple of it, or at `stop_step`. They are read at once, which takes less time.

    Yields:
        By feature `[B / H, ...]`: rows [h B / H, (h + 1) B / H) of the global batch; a stack is
        `[steps, B / H, ...]`. Of several, these by name.

    Raises:
        ValueError: before the first batch, if a size is out of range.
    """
    n = lengths(source)
    if not 0 <= start_step <= stop_step:
        raise ValueError(
            f"steps {start_step} to {stop_step}; expected 0 <= start_step <= stop_step"
        )

    def rows(t: int, steps: int = 1) -> Any:
        def own(name: str | None, n: int, batch_size: int) -> Int[np.ndarray, " steps*B/H"]:
            return batch_indices(seed_of(seed, name), t, batch_size, n, host, hosts, steps)

        return by_source(own, n, batch_size)

    rows(start_step)  # refuses here, not in a thread

    def batch(t: int) -> dict[str, Any]:
        return read(source, rows(t))

    def stack(i: int) -> dict[str, Any]:
        assert every is not None
        first, stop = max(start_step, i * every), min(stop_step, (i + 1) * every)
        found = read(source, rows(first, stop - first))
        return jax.tree.map(lambda x: x.reshape(stop - first, -1, *x.shape[1:]), found)

    if start_step == stop_step:
        return iter(())
    if every is None:
        steps = grain.MapDataset.range(start_step, stop_step).map(batch)
    else:
        steps = grain.MapDataset.range(start_step // every, -(-stop_step // every)).map(stack)
    options = grain.ReadOptions(num_threads=min(threads, prefetch), prefetch_buffer_size=prefetch)
    return iter(steps.to_iter_dataset(options))


def start_at(t: int, batch_size: Any, n: Any, steps: int = 1) -> tuple[Any, Any]:
    """Where global batch t begins, for `take`.

    Args:
        t: the step, >= 0.
        batch_size: B, rows of the global batch; of several data sets by name.
        n: examples of the split; of several by name.
        steps: batches that will be taken from there.

    Returns:
        epoch and offset, `[]` uint32; of several by name.

    Raises:
        ValueError: if a size is out of range, see `jmtl.data.indices.position`.
    """
    found = by_source(lambda name, n, rows: position(t, rows, n, steps), n, batch_size)
    epoch = by_source(lambda name, n, at: np.uint32(at[0]), n, found)
    return epoch, by_source(lambda name, n, at: np.uint32(at[1]), n, found)


def take(
    arrays: Any,
    seed: Any,
    epoch: Any,
    offset: Any,
    i: Any,
    batch_size: Any,
    rows: Callable[[int], Any] = lambda batch_size: batch_size,
) -> Any:
    """Takes batch i after a start from arrays on the device; for use in compiled loops.

    Args:
        arrays: by feature `[n, ...]`; of several data sets, these by name.
        seed: `[]` uint32, of the run.
        epoch: from `start_at`.
        offset: from `start_at`.
        i: `[]` uint32, below the `steps` of `start_at`.
        batch_size: B, rows of the global batch; of several by name.
        rows: of a B, the row numbers that are taken, or their count.

    Returns:
        By feature `[B, ...]`; of several, these by name.
    """

    def own(name: str | None, arrays: Any, epoch: Any, offset: Any, batch_size: int) -> Any:
        n = len(jax.tree.leaves(arrays)[0])
        offset = offset + i * np.uint32(batch_size)
        chosen = indices(seed_of(seed, name), epoch, offset, rows(batch_size), n, jnp)
        return gather(arrays, chosen)

    return by_source(own, arrays, epoch, offset, batch_size)


def gather(arrays: Any, rows: Int[Array, " B"]) -> Any:
    """Takes a batch from arrays on the device; for use in compiled loops.

    Args:
        arrays: pytree with leaves `[n, ...]`.
        rows: `[B]` in [0, n), from `jmtl.data.indices.indices`.

    Returns:
        The pytree with leaves `[B, ...]`.
    """
    return jax.tree.map(lambda values: values[rows], arrays)


def evaluation_batches(source: Any, batch_size: Any) -> Iterator[tuple[dict[str, Any], Any]]:
    """Yields every example once, in order, in batches of one size.

    Args:
        source: a split from `jmtl.data.source.load`, or its arrays `[n, ...]`; or several by name.
        batch_size: B, >= 1; of several by name.

    Yields:
        By feature `[B, ...]`, and `[B]` float32 weights: 1, and 0 for the rows that fill up the
        last batches, which repeat the last example. Of several, both by name; there are as many
        batches as the one needs that has the most.

    Raises:
        ValueError: if a batch size is below 1.
    """
    n = lengths(source)

    def batches(name: str | None, n: int, batch_size: int) -> int:
        if batch_size < 1:
            raise ValueError(f"batch_size is {batch_size}; expected at least 1")
        return -(-n // batch_size)

    for i in range(max(jax.tree.leaves(by_source(batches, n, batch_size)))):
        rows = by_source(lambda name, size, i=i: np.arange(size) + i * size, batch_size)
        inside = by_source(lambda name, n, rows: np.minimum(rows, n - 1), n, rows)
        weights = by_source(lambda name, n, rows: (rows < n).astype(np.float32), n, rows)
        yield read(source, inside), weights
