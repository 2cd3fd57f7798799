"""How figures look, and how they become files: the same bytes each time, light and dark."""

import html
import io
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib import patheffects
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

WIDTH = 7.6
"""Of figures, in inches; the page shows an inch as some 115 pixels on a wide screen."""

DPI = 150

INK, MUTED, LINE, PAPER, REST = "#1b1f24", "#69717c", "#dde2e8", "#ffffff", "#a9b1bb"
ACCENTS = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#e69f00")
"""Of the arms that stand out. Okabe and Ito's palette, which colour-blind people tell apart."""

TASKS = ("#004488", "#bb5566", "#b8860b", "#117733")
"""Of tasks, where a figure tells them apart; with dashes beside."""

HALO = "halo"
"""Begins the names of texts that are written over lines, and stand out from them."""

VARIABLES = {
    INK: "ink",
    MUTED: "muted",
    LINE: "line",
    PAPER: "paper",
    REST: "rest",
    **{colour: f"arm{i}" for i, colour in enumerate(ACCENTS)},
    **{colour: f"task{i}" for i, colour in enumerate(TASKS)},
}

_DARK = {
    "ink": "#e7eaee",
    "muted": "#9ba5b1",
    "line": "#343c46",
    "paper": "#15191e",
    "rest": "#65707c",
    "arm0": "#f5884a",
    "arm1": "#4a9fdb",
    "arm2": "#2fc199",
    "arm3": "#e09bc3",
    "arm4": "#f0b429",
    "task0": "#7aa7e0",
    "task1": "#e58b99",
    "task2": "#ddb04a",
    "task3": "#5fb87f",
}
"""The same on a dark page."""

_RC: Any = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.edgecolor": MUTED,
    "axes.facecolor": "none",
    "figure.facecolor": PAPER,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "axes.linewidth": 0.7,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": LINE,
    "grid.linewidth": 0.7,
    "xtick.major.size": 3,
    "ytick.major.size": 3,
    "lines.linewidth": 1.6,
    "svg.fonttype": "none",
}


class Drawing(NamedTuple):
    """A figure with what is said of it.

    Attributes:
        name: of its file and of its place on the page.
        figure: the figure.
        alt: what it shows, for who does not see it.
        caption: how to read it.
    """

    name: str
    figure: Figure
    alt: str
    caption: str


@contextmanager
def house_style() -> Iterator[None]:
    """Figures made and saved inside have the page's fonts, lines and colours."""
    defaults: Any = {
        name: value for name, value in mpl.rcParamsDefault.items() if name != "backend"
    }
    with mpl.rc_context({**defaults, **_RC}):
        yield


def new_figure(height: float, width: float = WIDTH) -> Figure:
    """An empty figure of a height in inches, laid out by constraints."""
    figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def save_pngs(drawn: Iterable[Drawing], folder: Path) -> None:
    """Write figures as PNG into a folder, in the place of those that are there."""
    for old in folder.glob("*.png"):
        old.unlink()
    for drawing in drawn:
        save_png(drawing, folder)


def save_png(drawing: Drawing, folder: Path) -> None:
    """Write a figure as PNG, without a date or a version in it."""
    for text in _haloed(drawing.figure):
        text.set_path_effects([patheffects.withStroke(linewidth=2, foreground=PAPER)])
    canvas = FigureCanvasAgg(drawing.figure)
    canvas.draw()
    drawing.figure.set_layout_engine("none")  # laid out; what is drawn later need not do it again
    # 256 colours take half the bytes; maximum coverage keeps the rarer ones apart.
    image = Image.fromarray(np.asarray(canvas.buffer_rgba())).convert("RGB")
    image.quantize(256, Image.Quantize.MAXCOVERAGE, dither=Image.Dither.NONE).save(
        folder / f"{drawing.name}.png", optimize=True
    )


def inline_svg(drawing: Drawing) -> str:
    """A figure as SVG to stand in a page: no outside names, its colours and font the page's."""
    for artist in _haloed(drawing.figure):
        artist.set_path_effects([])  # the page's style draws them, and leaves text text
    buffer = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": drawing.name}):
        drawing.figure.savefig(
            buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None}
        )
    text = buffer.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->|<style.*?</style>", "", text, flags=re.S)
    text = re.sub(r"<defs>\s*</defs>", "", text)
    text = re.sub(r' xmlns(:xlink)?="[^"]*"| version="[^"]*"', "", text)
    text = text.replace("xlink:href", "href").replace("'DejaVu Sans'", "var(--figure-font)")
    text = _own_ids(text, drawing.name)
    text = re.sub(r' (d|points|x|y|transform)="([^"]+)"', _shortened, text)
    text = re.sub(r"#[0-9a-f]{6}\b", _variable, text)
    head, _, body = text.partition(">")
    head = re.sub(r' (width|height)="[^"]*"', "", head)
    alt = html.escape(drawing.alt)
    text = f'{head} role="img" aria-label="{alt}"><title>{alt}</title>{body}'
    return re.sub(r"\s*\n\s*", "\n", text).strip()


def _haloed(figure: Figure) -> list[Any]:
    return figure.findobj(lambda artist: (artist.get_gid() or "").startswith(HALO))


def _own_ids(text: str, name: str) -> str:
    """Ids that begin with a name, since several figures share a page; without those not used."""
    used = {a or b for a, b in re.findall(r'href="#([^"]+)"|url\(#([^)]+)\)', text)}

    def renamed(found: re.Match[str]) -> str:
        if found[1] in used:
            return f' id="{name}-{found[1]}"'
        return f' class="{HALO}"' if found[1].startswith(HALO) else ""

    text = re.sub(r' id="([^"]+)"', renamed, text)
    text = re.sub(r'href="#([^"]+)"', rf'href="#{name}-\1"', text)
    return re.sub(r"url\(#([^)]+)\)", rf"url(#{name}-\1)", text)


def css_variables(dark: bool) -> str:
    """The page's colours as declarations of CSS."""
    light = {name: colour for colour, name in VARIABLES.items()}
    return " ".join(f"--{name}: {c};" for name, c in (_DARK if dark else light).items())


def _shortened(found: re.Match[str]) -> str:
    numbers = re.sub(
        r"-?\d+\.\d+", lambda n: f"{float(n[0]):.2f}".rstrip("0").rstrip("."), found[2]
    )
    return f' {found[1]}="{" ".join(numbers.split())}"'


def _variable(found: re.Match[str]) -> str:
    name = VARIABLES.get(found[0])
    return f"var(--{name})" if name else found[0]
