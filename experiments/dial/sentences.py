"""What a dial answers, in sentences that claim no more than its tests show."""

from collections.abc import Mapping
from typing import Any

import numpy as np

FAMILY = {"surgery": "Gradient surgery", "losses": "Loss balancing", "fixed": "A fixed weight"}
AGAINST = {"equal": "equal weights", "fixed": "the best fixed weight"}


def answer(found: Mapping[str, Any]) -> list[str]:
    """A sentence for each comparison, on how often and where; then what was lost."""
    cells = found["cells"]
    told = [_compared(found, name) for name in cells[0]["compared"]]
    counts = []
    for name in cells[0]["compared"]:
        ways = [sure(cell["compared by error"][name], found["level"]) for cell in cells]
        counts.append(f"{name}: {ways.count(1)} better, {ways.count(-1)} worse")
    told.append(
        "With 1 − accuracy in place of accuracy, shown to be better or worse in so many of the "
        f"{len(cells)} cells: {'; '.join(counts)}."
    )
    if found["failed"]:
        told.append(
            f"{found['failed']} of the {found['trainings']:,} trainings stopped being finite."
        )
    return told


def sure(compared: Mapping[str, Any], level: float) -> int:
    """1 for better, -1 for worse, 0 where the test cannot tell."""
    if compared["p_holm"] is None or compared["p_holm"] > level:
        return 0
    return int(np.sign(compared["mean"]))


def percent(mean: float) -> str:
    """A difference of scores as percent, with its sign."""
    return f"{100 * mean:+.1f} %".replace("-", "−")


def _compared(found: Mapping[str, Any], name: str) -> str:
    a, b = name.split(" − ")
    cells = found["cells"]
    one = [cell["compared"][name] for cell in cells]
    ways = np.array([sure(compared, found["level"]) for compared in one])
    means = np.array([np.nan if x["mean"] is None else x["mean"] for x in one])
    parts = [
        f"{FAMILY[a]} is better than {AGAINST[b]} in {np.sum(ways > 0)} of {len(cells)} cells, "
        f"worse in {np.sum(ways < 0)}, and in the other {np.sum(ways == 0)} no difference is shown"
    ]
    if len(scales := found["dial"]["scales"]) > 1:
        by_scale = [
            f"s = {s:g}: {np.sum(ways[at] > 0)}/{np.sum(ways[at] < 0)}".replace("-", "−")
            for s in scales
            for at in [np.array([cell["scale"] == s for cell in cells])]
        ]
        parts.append(f"better/worse by scale: {', '.join(by_scale)}")
    parts.append(f"on average over all cells {percent(float(np.nanmean(means)))}")
    for sign, word in ((1, "most"), (-1, "least")):
        if (ways == sign).any():
            i = int(np.nanargmax(sign * np.where(ways == sign, means, np.nan)))
            parts.append(f"{word}, {percent(means[i])}, {_place(cells[i], a)}")
    return "; ".join(parts) + "."


def _place(cell: Mapping[str, Any], family: str) -> str:
    name = next(iter(cell["chosen"][family]))
    return (
        f"at p = {cell['conflict']:g}, s = {cell['scale']:g}, width {cell['width']} (mostly {name})"
    )
