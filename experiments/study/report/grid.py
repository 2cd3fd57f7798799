"""Whether what was chosen lies at an end of what was tried: then the grid may end too soon."""

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from experiments.study.results import ArmResult

ENOUGH = 3
"""Values of a hyperparameter from which on a choice can lie inside: of two, each is an end."""


def tuned(arm: ArmResult) -> dict[str, dict[str, Any]]:
    """By hyperparameter of which an arm tried several values, where its choice lies among them.

    `values` counts the different ones. `end` is "least" or "largest" where the choice is that of
    three or more, "either" where there were two; None inside, and for a weight decay of 0, below
    which nothing lies. An arm whose every training failed has chosen nothing, and has no entry.
    """
    if not np.isfinite(arm.scores).any():
        return {}
    trials, found = arm.arm.trials, {}
    for name, chosen in trials[arm.chosen].items():
        values = {trial[name] for trial in trials}
        if len(values) > 1:
            found[name] = {"values": len(values), "end": _end(name, chosen, values)}
    return found


def _end(name: str, chosen: float, values: Collection[float]) -> str | None:
    if name == "weight_decay" and chosen == 0:
        return None
    if len(values) < ENOUGH:
        return "either"
    return "least" if chosen == min(values) else "largest" if chosen == max(values) else None


def ends(arms: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """By hyperparameter, how many arms tried three values or more, and which chose an end.

    Args:
        arms: of a summary, each with `tuned` as `grid` and with its `hyperparameters`.

    Returns:
        By hyperparameter `arms`, how many tried three values or more; `either`, how many had two,
        both ends; and for `least` and `largest` the `names` of the arms that chose it and its
        `values`.
    """
    found: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(name for arm in arms.values() for name in arm["grid"]):
        grids = {who: arm["grid"][name] for who, arm in arms.items() if name in arm["grid"]}
        found[name] = {
            "arms": sum(grid["values"] >= ENOUGH for grid in grids.values()),
            "either": sum(grid["end"] == "either" for grid in grids.values()),
        }
        for end in ("least", "largest"):
            names = [who for who, grid in grids.items() if grid["end"] == end]
            values = sorted({arms[who]["hyperparameters"][name] for who in names})
            found[name][end] = {"names": names, "values": values}
    return found
