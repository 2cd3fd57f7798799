"""What several figures share: their legend, and ranges that one far value does not stretch."""

from collections.abc import Container, Mapping
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.lines import Line2D

from experiments.page.style import REST
from experiments.study.report.looks import Look


def legend(figure: Any, of_arms: Mapping[str, Look], shown: Container[str]) -> None:
    """The arms shown that stand out, and the rest as one, above the panels."""
    looks = {name: look for name, look in of_arms.items() if name in shown}
    handles = [
        Line2D([], [], color=look.colour, linestyle=look.dash, label=name)
        for name, look in looks.items()
        if look.told
    ]
    if any(not look.told for look in looks.values()):
        handles.append(Line2D([], [], color=REST, linewidth=0.9, label="other methods"))
    if handles:
        figure.legend(handles=handles, loc="outside upper left", ncols=min(5, len(handles)))


def robust(values: Float[np.ndarray, " N"]) -> tuple[float, float]:
    """The range of what lies within four times the middle half's width of its middle."""
    first, middle, last = np.quantile(values, [0.25, 0.5, 0.75])
    reach = 4 * max(last - first, 1e-9)
    inside = values[np.abs(values - middle) <= reach]
    return float(inside.min()), float(inside.max())
