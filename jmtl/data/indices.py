"""Which examples a step sees: a function of the seed and the step number alone.

Row r of global batch t has the position p = t B + r. It lies in epoch p // n and is the example
permutation(seed, epoch)[p mod n], so batches straddle epochs and an epoch sees every example once.

The permutation is computed index by index: a Feistel network over the smallest power of two that
is >= n, applied again to values >= n until they fall below it (cycle walking). Its cost is O(B)
and no array of n exists. The arithmetic is uint32, so numpy on the host and jax.numpy in a
compiled loop give the same integers without 64-bit mode.

References:
    Luby, Rackoff (1988), How to construct pseudorandom permutations from pseudorandom functions.
    Black, Rogaway (2002), Ciphers with arbitrary finite domains, section 3 (cycle walking).
    Appleby (2011), MurmurHash3, the 32-bit finaliser.
"""

from types import ModuleType
from typing import Any

import jax
import numpy as np
from jaxtyping import Array, Int

ROUNDS = 8
"""Rounds of the Feistel network; each changes one half."""

_ROUND_CONSTANTS = [np.uint32((r + 1) * 0x9E3779B9 % 2**32) for r in range(ROUNDS)]


def position(t: int, batch_size: int, n: int, steps: int = 1) -> tuple[int, int]:
    """Where global batch t begins: (epoch, offset), `t * batch_size` split so that it fits 32 bits.

    Args:
        t: the step, >= 0.
        batch_size: B, rows of the global batch.
        n: examples of the split, in [1, 2**31).
        steps: batches that will be read from this offset on, as `offset + i * B`.

    Returns:
        epoch in [0, 2**32) and offset in [0, n).

    Raises:
        ValueError: if a size is out of range, or `offset + steps * B` reaches 2**31.
    """
    if not 1 <= n < 2**31:
        raise ValueError(f"n is {n} examples; expected 1 to {2**31 - 1}")
    if t < 0 or batch_size < 1 or steps < 1:
        raise ValueError(
            f"t is {t}, batch_size {batch_size}, steps {steps}; expected t >= 0 and the others >= 1"
        )
    epoch, offset = divmod(t * batch_size, n)
    if offset + steps * batch_size >= 2**31:
        raise ValueError(
            f"{steps} steps of {batch_size} rows from offset {offset} pass 2**31 positions;"
            f" use at most {(2**31 - 1 - offset) // batch_size} steps"
        )
    # Epochs beyond 2**32 repeat the first ones' orders.
    return epoch % 2**32, offset


def indices(
    seed: int | Int[Array, ""],
    epoch: int | Int[Array, ""],
    offset: int | Int[Array, ""],
    rows: int | Int[Array, " B"] | Int[np.ndarray, " B"],
    n: int,
    xp: ModuleType = np,
) -> Any:
    """The examples at positions `offset + row` counted from the start of `epoch`.

    Args:
        seed: `[]` in [0, 2**32); may be traced and vmapped.
        epoch: `[]` in [0, 2**32), from `position`; may be traced.
        offset: `[]` from `position`, plus `i * B` for the i-th step after it. It may pass n, and
            `offset + row` must stay below 2**31 (`position` checks it); may be traced.
        rows: `[B]` row numbers >= 0, or their count B for rows 0 to B - 1.
        n: examples of the split, in [1, 2**31); static.
        xp: `numpy` or `jax.numpy`.

    Returns:
        `[B]` int32 in [0, n), an array of `xp`.

    Raises:
        ValueError: if n, or a seed, epoch or offset given as a Python int, is out of range.
    """
    if not 1 <= n < 2**31:
        raise ValueError(f"n is {n} examples; expected 1 to {2**31 - 1}")
    row = xp.arange(rows, dtype=np.uint32) if isinstance(rows, int) else _uint32(rows, xp)
    p = row + _uint32(offset, xp)
    epochs = p // np.uint32(n) + _uint32(epoch, xp)
    # numpy warns when a scalar overflows but not an array, hence the seed has the shape of p.
    key = _mix(_mix(xp.broadcast_to(_uint32(seed, xp), p.shape)) ^ epochs)
    keys = [_mix(key + constant) for constant in _ROUND_CONSTANTS]
    return _walk(p % np.uint32(n), keys, n, xp).astype(np.int32)


def batch_indices(
    seed: int, t: int, batch_size: int, n: int, host: int = 0, hosts: int = 1, steps: int = 1
) -> Int[np.ndarray, " steps*B/H"]:
    """The examples that one host reads of global batch t, or of several batches from there.

    Args:
        seed: in [0, 2**32).
        t: the step, >= 0.
        batch_size: B, rows of the global batch; a multiple of `hosts`.
        n: examples of the split, in [1, 2**31).
        host: h in [0, hosts).
        hosts: H.
        steps: batches.

    Returns:
        `[steps B / H]` int32 in [0, n): rows [h B / H, (h + 1) B / H) of each global batch.

    Raises:
        ValueError: if a size is out of range or `batch_size` does not divide over the hosts.
    """
    if not 0 <= host < hosts:
        raise ValueError(f"host is {host} of {hosts}; expected 0 to {hosts - 1}")
    if batch_size % hosts:
        raise ValueError(f"batch_size {batch_size} does not divide over {hosts} hosts")
    epoch, offset = position(t, batch_size, n, steps)
    local = batch_size // hosts
    rows = np.arange(host * local, (host + 1) * local, dtype=np.uint32)
    starts = np.arange(steps, dtype=np.uint32) * np.uint32(batch_size)
    return indices(seed, epoch, offset, (starts[:, None] + rows).ravel(), n, np)


def _uint32(value: Any, xp: ModuleType) -> Any:
    """A Python int or an integer array as uint32; refuses Python ints that do not fit."""
    if isinstance(value, int):
        if not 0 <= value < 2**32:
            raise ValueError(f"got {value}; expected an integer in [0, 2**32)")
        return np.uint32(value)
    return xp.asarray(value).astype(np.uint32)


def _mix(x: Any) -> Any:
    """MurmurHash3's 32-bit finaliser, a bijection of uint32, elementwise."""
    x = (x ^ (x >> np.uint32(16))) * np.uint32(0x85EBCA6B)
    x = (x ^ (x >> np.uint32(13))) * np.uint32(0xC2B2AE35)
    return x ^ (x >> np.uint32(16))


def _feistel(x: Any, keys: list[Any], bits: int) -> Any:
    """A keyed permutation of [0, 2**bits), elementwise; the halves may be unequal."""
    low_bits = np.uint32((bits + 1) // 2)
    low_mask = np.uint32(2 ** ((bits + 1) // 2) - 1)
    high_mask = np.uint32(2 ** (bits // 2) - 1)
    low, high = x & low_mask, x >> low_bits
    for r, key in enumerate(keys):
        if r % 2:
            low = low ^ (_mix(high + key) & low_mask)
        else:
            high = high ^ (_mix(low + key) & high_mask)
    return (high << low_bits) | low


def _walk(x: Any, keys: list[Any], n: int, xp: ModuleType) -> Any:
    """Permutes [0, n): follows the larger permutation's cycle until it is back below n."""
    bits = (n - 1).bit_length()

    def outside(x: Any) -> Any:
        return (x >= np.uint32(n)).any()

    def again(x: Any) -> Any:
        return xp.where(x >= np.uint32(n), _feistel(x, keys, bits), x)

    x = _feistel(x, keys, bits)
    if xp is not np:
        return jax.lax.while_loop(outside, again, x)
    while outside(x):
        x = again(x)
    return x
