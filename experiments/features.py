"""What a run's encoder makes of a split, for probes and plots."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments.config import RunConfig
from experiments.errors import UserError
from experiments.initial import model_of
from experiments.parts import batches_of
from experiments.problem import Problem
from jmtl.data.several import several
from jmtl.train import leaves
from jmtl.train.state import TrainState


def features(
    config: RunConfig, problem: Problem, state: TrainState, split: Any
) -> dict[str, np.ndarray]:
    """The representation of every example of a split, in order, and its labels.

    Args:
        config: of the run.
        problem: its problem.
        state: whose encoder is taken, with running statistics and without dropout.
        split: n examples.

    Returns:
        `features` `[n, ...]`, or `features/vector`, `features/map`, … of a representation of
        several parts; `labels/NAME` `[n, ...]`, and `present/NAME` `[n]`, whether it is there.
        Half-precision features are float32 here.

    Raises:
        UserError: the problem has several data sets, which have no examples in common.
    """
    if several(split):
        raise UserError(f"{problem.name} has several data sets: features are written of one")
    net = model_of(config, problem)

    @jax.jit
    def encoded(params: Any, model_state: Any, raw: Any) -> Any:
        batch = problem.to_batch(raw)
        representation, _ = net.encode(params["shared"], model_state, batch.inputs)
        wide = jax.tree.map(
            lambda x: x.astype(jnp.promote_types(x.dtype, jnp.float32)), representation
        )
        return {"features": wide, "labels": dict(batch.labels), "present": dict(batch.present)}

    parts = []
    for raw, weight in batches_of(split, problem.evaluation_rows):
        found = jax.device_get(encoded(state.params, state.model_state, raw))
        parts.append(jax.tree.map(lambda x, rows=weight > 0: x[rows], found))
    whole = jax.tree.map(lambda *x: np.concatenate(x), *parts)
    return dict(zip(leaves.paths(whole), jax.tree.leaves(whole), strict=True))


def write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """Write an .npz file whole or not at all.

    Raises:
        UserError: it cannot be written.
    """
    staged = path.with_name(f"{path.name}.saving")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with staged.open("wb") as stream:
            np.savez(stream, **arrays)  # type: ignore[arg-type]
        staged.replace(path)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
