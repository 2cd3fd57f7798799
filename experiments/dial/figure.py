"""The dial drawn: a phase diagram over conflict and scale for each width and comparison."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.colors import LinearSegmentedColormap, TwoSlopeNorm

from experiments.dial.sentences import answer, sure
from experiments.page.style import INK, MUTED, PAPER, Drawing, new_figure

TITLES = {
    "surgery − equal": "gradient surgery − equal weights",
    "surgery − fixed": "gradient surgery − best fixed weight",
    "losses − fixed": "loss balancing − best fixed weight",
}
"""The comparisons drawn, a row each."""

SHORT = {"uncertainty": "uncert.", "geometric": "geom."}

_COLOURS = LinearSegmentedColormap.from_list(
    "worse to better", ["#a6401b", "#ee9a6b", "#f4f2ee", "#7cc4b0", "#00705a"]
)


def draw(found: Mapping[str, Any]) -> Drawing:
    """The phase diagrams of a finished dial."""
    dial, cells = found["dial"], found["cells"]
    widths, ps, ss = dial["widths"], dial["conflicts"], dial["scales"]
    names = [name for name in TITLES if name in cells[0]["compared"]]
    figure = new_figure(0.6 + len(names) * (0.55 + 0.36 * len(ss)))
    panels = figure.subplots(len(names), len(widths), squeeze=False, sharex=True, sharey=True)
    means = [cell["compared"][name]["mean"] or 0.0 for cell in cells for name in names]
    # One far cell does not pale all others: colours end at the 95th percentile.
    most = max(float(np.quantile(np.abs(means), 0.95)), 1e-3)
    norm = TwoSlopeNorm(0, -most, most)
    for row, name in enumerate(names):
        for column, width in enumerate(widths):
            axes = panels[row, column]
            axes.grid(visible=False)
            axes.set_xticks(range(len(ps)), [f"{p:g}" for p in ps])
            axes.set_yticks(range(len(ss)), [f"{s:+g}" if s else "0" for s in ss])
            axes.tick_params(length=0)
            axes.set(xlim=(-0.5, len(ps) - 0.5), ylim=(-0.5, len(ss) - 0.5))
            for spine in axes.spines.values():
                spine.set_visible(False)
            for cell in (cell for cell in cells if cell["width"] == width):
                at = ps.index(cell["conflict"]), ss.index(cell["scale"])
                _cell(axes, at, cell, name, found["level"], norm)
            axes.set_title(f"width {width}" if row == 0 else "")
            if row == len(names) - 1:
                axes.set_xlabel("p, labels permuted")
        panels[row, 0].set_ylabel(f"{TITLES[name].replace(' − ', chr(10) + '− ')}\ns, loss × 10ˢ")
    bar = figure.colorbar(
        _mappable(norm), ax=panels, location="bottom", fraction=0.03, aspect=50, extend="both",
        format=lambda x, _: f"{100 * x:+.0f} %" if x else "0",
    )  # fmt: skip
    bar.outline.set_visible(False)
    bar.set_label(
        "mean gain over the four tasks; bold: shown after Holm's correction, pale: not shown"
    )
    caption = (
        "Each cell: the mean gain over the four tasks in percent, and the method chosen most "
        "often. What is coloured and bold holds after Holm's correction over the cells of its row."
    )
    return Drawing("dial", figure, " ".join(answer(found)), caption)


def _mappable(norm: Any) -> Any:
    from matplotlib.cm import ScalarMappable

    return ScalarMappable(norm, _COLOURS)


def _cell(
    axes: Any, at: tuple[int, int], cell: Mapping[str, Any], name: str, level: float, norm: Any
) -> None:
    """A cell's colour, its gain in percent, and the method that was chosen most often."""
    from matplotlib.patches import Rectangle

    compared = cell["compared"][name]
    family = name.split(" − ")[0]
    told = sure(compared, level) != 0
    x, y = at
    mean = compared["mean"]
    colour = _COLOURS(norm(mean)) if told else "#f4f2ee"
    axes.add_patch(
        Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=colour, edgecolor=PAPER, linewidth=1.2)
    )
    chosen = next(iter(cell["chosen"][family]))
    dark = told and abs(norm(mean) - 0.5) > 0.38
    ink = PAPER if dark else INK if told else MUTED
    text = "–" if mean is None else f"{100 * mean:+.1f}".replace("-", "−")
    axes.text(
        x, y + 0.16, text, ha="center", va="center", fontsize=6.5, color=ink,
        fontweight="bold" if told else "normal",
    )  # fmt: skip
    axes.text(
        x, y - 0.22, SHORT.get(chosen, chosen), ha="center", va="center", fontsize=4.8, color=ink
    )
