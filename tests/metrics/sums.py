"""Metrics of statistics that are added over batches."""

import jax
import jax.numpy as jnp


def scorer(metric):
    """`(output, label, present=all, batches=1)` -> values, from statistics added over batches."""

    @jax.jit
    def run(*parts):
        sums = jax.vmap(metric.update)(*parts)
        return metric.compute(jax.tree.map(lambda x: x.sum(0), sums))

    def score(output, label, present=None, batches=1):
        rows = len(label)
        present = jnp.ones(rows, bool) if present is None else present
        cut = lambda x: jnp.asarray(x).reshape(batches, rows // batches, *x.shape[1:])
        return run(*map(cut, (output, label, present)))

    return score
