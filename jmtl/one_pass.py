"""The Gramian of a few large rows in one pass over them, as a kernel for a GPU.

XLA reads such rows for their largest magnitude, reads and writes them scaled, and reads them again
for the products. Here every thread walks along all K rows and keeps what it has seen of them: a
scale a row, and the products of the rows over those scales, which are rescaled where a larger
element comes along. One read, nothing of the rows' size written, and no square under- or overflows.

Compiled for an H100 (jax 0.11, K = 8): 128 registers, none spilled, some 100 instructions for a
column of eight numbers. It has been run as ordinary operations, in the tests, and on no GPU yet.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, Float

MOST = 8
"""The largest K: a thread holds K(K + 3)/2 numbers."""

LEAST = 2**17
"""Elements of a row below which three kernels of XLA take no longer than starting them."""

_THREADS = 128
_TOGETHER = 8  # elements of a row that a thread reads before it looks whether one is larger
_PROGRAMS = 1024  # at most: some for each multiprocessor of the largest GPUs


def serves(rows: Sequence[Float[Array, "..."]] | Float[Array, "K ..."]) -> bool:
    """Whether K rows are contracted by this kernel: few, large, and on one NVIDIA GPU.

    Where a process sees several devices a row may be spread over them, and a kernel would gather
    it.
    """
    if jax.default_backend() != "gpu" or jax.device_count() > 1:
        return False
    k, n, dtype = len(rows), rows[0].size, rows[0].dtype
    whole = k * n if isinstance(rows, jax.Array) else n
    return (
        k <= MOST
        and n > LEAST
        and whole < 2**31  # places are counted in 32 bits
        and dtype in (jnp.float32, jnp.bfloat16, jnp.float16)
        and jax.devices()[0].device_kind.startswith("NVIDIA")
    )


def inner_products(
    rows: Sequence[Float[Array, "..."]] | Float[Array, "K ..."], interpret: bool = False
) -> tuple[Float[Array, "N K K"], Float[Array, "N K"]]:
    """Inner products of parts of K rows, each over its scale in that part.

    Args:
        rows: K ≤ `MOST` rows of n numbers, in one array or apart; float32 or of half precision.
        interpret: run as ordinary operations, on any device: for tests.

    Returns:
        Of each of N parts the products `[N, K, K]`, symmetric, and the scales `[N, K]`: the largest
        magnitude of the row's elements there as one thread saw them, 0 where all are 0. The product
        of two rows is Σ_p products[p, i, j] · scales[p, i] · scales[p, j].
    """
    # Not with jmtl: it takes a third of a second that only a GPU needs.
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import triton

    stacked = isinstance(rows, jax.Array)
    k, n = len(rows), rows[0].size
    given = [part.reshape(-1) for part in ([rows] if isinstance(rows, jax.Array) else rows)]
    pairs = [(i, j) for i in range(k) for j in range(i + 1)]
    stride = _THREADS * _TOGETHER
    programs = min(_PROGRAMS, pl.cdiv(n, stride))
    visits = pl.cdiv(n, stride * programs)
    tiny = jnp.finfo(jnp.float32).tiny

    def kernel(*refs: Any) -> None:
        seen, out = refs[:-1], refs[-1]
        program = pl.program_id(0)
        lanes = jnp.arange(_THREADS)

        def read(i: int, start: Any) -> Any:
            at = start + lanes
            ref = seen[0].at[i * n + at] if stacked else seen[i].at[at]
            return triton.load(ref, mask=at < n, other=0.0).astype(jnp.float32)

        def visit(step: Any, held: Any) -> Any:
            scale, inner = held
            start = (step * programs + program) * stride
            starts = [start + r * _THREADS for r in range(_TOGETHER)]
            x = [[read(i, s) for s in starts] for i in range(k)]
            new, factor, unit = [], [], []
            for old, part in zip(scale, x, strict=True):
                largest = old
                for one in part:
                    largest = jnp.maximum(largest, jnp.abs(one))
                over = 1 / jnp.maximum(largest, tiny)
                new.append(largest)
                factor.append(old * over)
                unit.append([one * over for one in part])
            inner = [
                sum(
                    (a * b for a, b in zip(unit[i], unit[j], strict=True)),
                    start=before * (factor[i] * factor[j]),
                )
                for (i, j), before in zip(pairs, inner, strict=True)
            ]
            return new, inner

        zero = jnp.zeros((_THREADS,), jnp.float32)
        scale, inner = lax.fori_loop(0, visits, visit, ([zero] * k, [zero] * len(pairs)))
        largest = [jnp.max(one) for one in scale]
        factor = [one / jnp.maximum(most, tiny) for one, most in zip(scale, largest, strict=True)]
        found = [jnp.where(most > 0, jnp.maximum(most, tiny), 0.0) for most in largest]
        for (i, j), one in zip(pairs, inner, strict=True):
            found.append(jnp.sum(one * (factor[i] * factor[j])))
        for i, one in enumerate(found):
            triton.store(out.at[program * len(found) + i], one)

    size = k + len(pairs)
    out = pl.pallas_call(
        kernel,
        grid=(programs,),
        out_shape=jax.ShapeDtypeStruct((programs * size,), jnp.float32),
        in_specs=[pl.BlockSpec(memory_space=pl.ANY)] * len(given),
        out_specs=pl.BlockSpec(memory_space=pl.ANY),
        compiler_params=triton.CompilerParams(num_warps=_THREADS // 32, num_stages=1),
        interpret=interpret,
    )(*given)
    scales, products = jnp.split(out.reshape(programs, size), [k], axis=1)
    place = np.zeros((k, k), int)
    for at, (i, j) in enumerate(pairs):
        place[i, j] = place[j, i] = at
    return products[:, place], scales
