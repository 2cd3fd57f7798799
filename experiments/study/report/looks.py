"""How the arms and tasks of a study are drawn: alike in every figure of its report."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from experiments.page.style import ACCENTS, INK, MUTED, REST, TASKS

DASHES: tuple[Literal["-", "--", ":", "-."], ...] = ("-", "--", ":", "-.")


class Look(NamedTuple):
    """How an arm is drawn in every figure.

    Attributes:
        colour: its own, or that of the rest.
        dash: of its lines.
        told: whether it stands out.
    """

    colour: str
    dash: Any
    told: bool


def looks(arms: Mapping[str, str], best: Sequence[str]) -> dict[str, Look]:
    """By arm, how it is drawn: equal weights black, the best methods coloured, the rest grey.

    Args:
        arms: kinds by name.
        best: methods that stand out, the first ones first.
    """
    found = {name: Look(INK, "-", True) for name, kind in arms.items() if kind == "equal"}
    for i, name in enumerate(name for name, kind in arms.items() if kind == "single"):
        found[name] = Look(MUTED, (0, (1 + 3 * i, 1.5)), True)
    found |= {name: Look(c, "-", True) for name, c in zip(best, ACCENTS, strict=False)}
    return found | {name: Look(REST, "-", False) for name in arms if name not in found}


def task_look(i: int) -> tuple[str, Literal["-", "--", ":", "-."]]:
    """Colour and dash of task i."""
    return TASKS[i % len(TASKS)], DASHES[(i + i // len(TASKS)) % len(DASHES)]
