"""A run of `scenes` drawn: pictures of the test split, what is true of them and what was found.

python -m experiments.scenes_figure runs/scenes-pcgrad-0
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from experiments import parts, resume
from experiments.config import find_problem
from experiments.initial import model_of
from experiments.problems.scenes import CELL
from jmtl.data import source
from jmtl.data.scenes import SURFACES
from jmtl.data.solids import KINDS
from jmtl.objects import detections
from jmtl.tasks import Batch

ROWS = 4
"""Scenes drawn, the first of the split."""

WIDTH = 1200
"""Of the image, in pixels."""

DPI = 150
LEAST = 0.3
"""The least probability of a box that is drawn."""

COLOURS = ("#56b4e9", "#e69f00", "#f0e442", "#d55e00")
"""Of the kinds of solids. Okabe and Ito's palette, which colour-blind people tell apart."""


def draw(raw: Mapping[str, np.ndarray], given: Batch, found: Mapping[str, Any], path: Path) -> None:
    """Write a PNG with a row for each scene, and for each task what is true and what was found.

    Depth and normals are drawn where there is something, boxes in the colour of their kind, found
    displacements at the true centres. Below the boxes stand the kinds that are seen.

    Args:
        raw: scenes by feature `[n, ...]`.
        given: their labels.
        found: outputs by task `[n, ...]`.
        path: of the image.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    titles = ("surfaces", "depth", "normals", "boxes, motion")
    columns, side = 1 + 2 * len(titles), WIDTH / DPI / (1 + 2 * len(titles))
    n = len(raw["image"])
    height = n * side + 0.36
    figure = Figure(figsize=(WIDTH / DPI, height), dpi=DPI)
    canvas = FigureCanvasAgg(figure)
    label = {name: np.asarray(values) for name, values in given.labels.items()}
    size = raw["image"].shape[1]
    there = label["depth"] > 0
    span = {"vmin": label["depth"][there].min(), "vmax": label["depth"].max(), "cmap": "viridis"}
    kinds = {"vmin": 0, "vmax": len(SURFACES) - 1, "cmap": "tab10", "interpolation": "nearest"}
    claimed = detections(jnp.asarray(found["objects"]))
    normals = np.asarray(found["normals"])
    normals = normals / np.linalg.norm(normals, axis=-1, keepdims=True)

    def panel(row: int, column: int) -> Any:
        at = (column / columns, 1 - (0.36 + (row + 1) * side) / height)
        axes = figure.add_axes((*at, 0.96 / columns, 0.96 * side / height))
        axes.set_axis_off()
        return axes

    def boxed(axes: Any, image: Any, corners: Any, classes: Any, centres: Any, moves: Any) -> None:
        axes.imshow(image)
        for (top, left, bottom, right), kind in zip(corners * size, classes, strict=True):
            where, shape = (left - 0.5, top - 0.5), (right - left, bottom - top)
            axes.add_patch(Rectangle(where, *shape, fill=False, edgecolor=COLOURS[kind], lw=0.8))
        for (y, x), (down, along) in zip(centres * size, moves * size, strict=True):
            axes.annotate(
                "",
                xytext=(x - 0.5, y - 0.5),
                xy=(x + along - 0.5, y + down - 0.5),
                arrowprops={"arrowstyle": "->", "lw": 0.7, "color": "white", "shrinkA": 0}
                | {"shrinkB": 0, "mutation_scale": 4},
            )

    def named(axes: Any, there: np.ndarray) -> None:
        text = " ".join(name for name, one in zip(KINDS, there, strict=True) if one)
        back = {"facecolor": "black", "edgecolor": "none", "alpha": 0.5, "pad": 1}
        axes.text(1, size - 2, text, color="white", fontsize=4.5, bbox=back)

    for i in range(n):
        image = raw["image"][i]
        panel(i, 0).imshow(image)
        panel(i, 1).imshow(label["segmentation"][i], **kinds)
        panel(i, 2).imshow(np.asarray(found["segmentation"][i]).argmax(axis=-1), **kinds)
        panel(i, 3).imshow(np.where(there[i], label["depth"][i], np.nan), **span)
        found_depth = np.asarray(found["depth"][i])[..., 0]
        panel(i, 4).imshow(np.where(there[i], found_depth, np.nan), **span)
        panel(i, 5).imshow(np.where(there[i, ..., None], (label["normals"][i] + 1) / 2, 1.0))
        panel(i, 6).imshow(np.where(there[i, ..., None], (normals[i] + 1) / 2, 1.0))
        boxes, motion = label["objects"][i], label["motion"][i]
        boxes, motion = boxes[boxes[:, 4] >= 0], motion[motion[:, 4] > 0]
        centres = motion[:, :2]
        true, claim = panel(i, 7), panel(i, 8)
        boxed(true, image, boxes[:, :4], boxes[:, 4].astype(int), centres, motion[:, 2:4])
        named(true, label["kinds"][i] > 0)
        named(claim, np.asarray(found["kinds"][i]) > 0)
        cells = np.minimum(centres * size // CELL, size // CELL - 1).astype(int)
        moves = np.asarray(found["motion"][i])[cells[:, 0], cells[:, 1]] * CELL / size
        sure = np.asarray(jax.nn.sigmoid(claimed.scores[i])) >= LEAST
        corners, classes = np.asarray(claimed.boxes[i])[sure], np.asarray(claimed.classes[i])[sure]
        boxed(claim, image, corners, classes, centres, moves)

    def write(column: float, inches: float, text: str) -> None:
        place = ((column + 0.48) / columns, 1 - inches / height)
        figure.text(*place, text, ha="center", va="center", fontsize=6)

    write(0, 0.25, "picture")
    for i, title in enumerate(titles):
        write(2 * i + 1.5, 0.1, title)
        write(2 * i + 1, 0.25, "true")
        write(2 * i + 2, 0.25, "found")
    path.parent.mkdir(parents=True, exist_ok=True)
    canvas.print_png(str(path), metadata={"Software": None})


def of_run(folder: Path, data_dir: Path, path: Path) -> None:
    """Draw a run's newest checkpoint on the first scenes of the test split.

    Args:
        folder: of the run.
        data_dir: of all data sets.
        path: of the image.
    """
    config = resume.saved_config(folder)
    problem = find_problem(config.problem)
    split = parts.open_splits(problem, data_dir)("test")
    state = resume.restored(config, folder, parts.example_of(split), print).state
    raw = source.read(split, np.arange(ROWS))
    given = problem.to_batch(raw)
    found, _ = model_of(config, problem).apply(state.params, state.model_state, given.inputs)
    draw(raw, given, found, path)


def main(arguments: Sequence[str] | None = None) -> None:
    """Draw a run; write scenes.png."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("folder", type=Path, help="of the run")
    parser.add_argument("--data-dir", type=Path, default=Path("data"))
    parser.add_argument("--out", type=Path, help="the image; default: scenes.png in the folder")
    command = parser.parse_args(arguments)
    of_run(command.folder, command.data_dir, command.out or command.folder / "scenes.png")


if __name__ == "__main__":
    main()
