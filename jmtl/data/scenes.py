"""Scenes: solids on a floor in two frames, with everything that a picture of them can be asked.

Spheres, boxes, cylinders and cones of many sizes and colours stand on a floor under a light that
casts shadows. Between the frames each solid slides some way; the camera and the light stay. The
scenes of a split are the same at every resolution.

Labels are computed, not estimated: see `jmtl.data.solids` for the geometry.
"""

import itertools
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Bool, Float64

from jmtl.data.solids import KINDS, Views, World, boxes, project, render

COUNTS = {"train": 4_000, "validation": 500, "test": 500}
"""Scenes of each split."""

SIZE = 64
"""The default resolution."""

MOST = 5
"""The most solids that a scene holds."""

SURFACES = ("nothing", "floor", *KINDS)
"""The classes of segmentation."""

LEAST_SEEN = 0.003
"""A solid of which less than this share of the picture is seen has no box."""

_SEED = 2025
_TRIES = 24
_PART = 16  # of the scenes that are rendered at once: what they need fits a core's cache
_THREADS = 2
_GAP = 0.05


class SceneConfig(tfds.core.BuilderConfig):
    """Pictures of `size` × `size` pixels."""

    def __init__(self, size: int) -> None:
        super().__init__(name=str(size), description=f"{size} × {size} pixels")
        self.size = size


class Scenes(tfds.core.GeneratorBasedBuilder):
    """TFDS builder of Scenes; needs no download. Its configurations are resolutions.

    An example has, for pictures of S × S pixels and room for N = `MOST` solids:

    - `image`, `next_image` `[S, S, 3]` uint8;
    - `segmentation` `[S, S]` uint8, positions in `SURFACES`;
    - `depth` `[S, S]` float32, the distance from the camera's plane, 0 where nothing is;
    - `normals` `[S, S, 3]` float32, unit vectors in the camera's frame (x right, y down, z away),
      zeros where nothing is;
    - `boxes` `[N, 4]` int32: top, left, bottom, right around what is seen of a solid: its first row
      and column, and those after its last; `kinds` `[N]` int32, positions in `KINDS`, -1 for
      padding and for solids that are hardly seen (`LEAST_SEEN`), whose boxes are 0;
    - `centres` `[N, 2]` float32: y and x of the solid's middle in the picture, in [0, 1], `moves`
      `[N, 2]` float32, what is added to them in the next frame, and `tracked` `[N]` bool: whether
      the solid is seen, and its middle inside, in both. The middle may be hidden by another solid.
    """

    VERSION = tfds.core.Version("1.0.0")
    RELEASE_NOTES = {"1.0.0": "4,000, 500 and 500 scenes of 2 to 5 solids."}  # noqa: RUF012
    BUILDER_CONFIGS = [SceneConfig(SIZE)]  # noqa: RUF012

    def __init__(self, *, config: str | SceneConfig | None = None, **options: Any) -> None:
        """Build for a resolution.

        Args:
            config: the resolution, as "96"; default `SIZE`.
            **options: TFDS's.

        Raises:
            ValueError: no resolution of at least 16.
        """
        if isinstance(config, str):
            if not config.isdecimal() or int(config) < 16:
                raise ValueError(f"scenes are 16×16 or more, as scenes/64; got {config!r}")
            # TFDS refuses a second configuration of a name that it knows.
            config = self.builder_configs.get(config) or SceneConfig(int(config))
        super().__init__(config=config or self.BUILDER_CONFIGS[0], **options)

    def _info(self) -> tfds.core.DatasetInfo:
        size = self.builder_config.size

        def array(*shape: int, dtype: Any, encoding: str = "bytes") -> tfds.features.Tensor:
            return tfds.features.Tensor(shape=shape, dtype=dtype, encoding=encoding)

        return tfds.core.DatasetInfo(
            builder=self,
            description=__doc__,
            features=tfds.features.FeaturesDict(
                {
                    "image": array(size, size, 3, dtype=np.uint8),
                    "next_image": array(size, size, 3, dtype=np.uint8),
                    "segmentation": array(size, size, dtype=np.uint8),
                    "depth": array(size, size, dtype=np.float32),
                    "normals": array(size, size, 3, dtype=np.float32, encoding="zlib"),
                    "boxes": array(MOST, 4, dtype=np.int32),
                    "kinds": array(MOST, dtype=np.int32),
                    "centres": array(MOST, 2, dtype=np.float32),
                    "moves": array(MOST, 2, dtype=np.float32),
                    "tracked": array(MOST, dtype=np.bool_),
                }
            ),
            disable_shuffling=True,  # scenes are drawn independently
        )

    def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
        return {
            split: self._generate_examples(*draw(count, seed=_SEED + i))
            for i, (split, count) in enumerate(COUNTS.items())
        }

    def _generate_examples(
        self, scenes: World, moved: World
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        parts = [slice(i, i + _PART) for i in range(0, len(scenes.kinds), _PART)]

        def examples(part: slice) -> dict[str, np.ndarray]:
            before, after = (World(*(x[part] for x in frame)) for frame in (scenes, moved))
            return look(before, after, self.builder_config.size)

        key = itertools.count()
        with ThreadPoolExecutor(_THREADS) as pool:
            for arrays in pool.map(examples, parts):
                for i in range(len(arrays["image"])):
                    yield next(key), {name: values[i] for name, values in arrays.items()}


def draw(count: int, seed: int) -> tuple[World, World]:
    """Draw scenes of 2 to `MOST` solids that stand apart from one another in both frames.

    Args:
        count: n.
        seed: the same seed gives the same scenes, whatever their resolution will be.

    Returns:
        n scenes, and the same ones in the next frame. A solid that found no room in `_TRIES`
        places is left out.
    """
    random = np.random.default_rng(seed)
    n, shape = count, (count, MOST)
    wanted = np.arange(MOST) < random.integers(2, MOST + 1, n)[:, None]
    kinds = random.integers(len(KINDS), size=shape)
    wide, deep, high = random.uniform(0.32, 0.65, (3, *shape))
    # All but boxes are round, and a sphere is as high as it is wide.
    deep = np.where(kinds == KINDS.index("box"), deep, wide)
    high = np.where(kinds == KINDS.index("sphere"), wide, high)
    half = np.stack([wide, deep, high], -1)
    turn = random.uniform(0, 2 * np.pi, shape)
    reach = np.sqrt(wide**2 + np.where(deep != wide, deep, 0) ** 2)

    places = random.uniform(-1, 1, (n, MOST, _TRIES, 2)) * (1.6, 1.5) + (0.0, 0.3)
    moves = random.uniform(-1, 1, (n, MOST, _TRIES, 2)) * 0.6
    there, place, move = _settle(wanted, reach, places, moves)

    pitch = random.uniform(np.radians(26), np.radians(42), n)
    light = np.stack([*random.uniform(-1, 1, (2, n)), random.uniform(0.9, 1.4, n)], -1)
    scenes = World(
        kinds=np.where(there, kinds, -1),
        half=half,
        turn=np.stack([np.cos(turn), np.sin(turn)], -1),
        centre=np.concatenate([place, high[..., None]], -1),
        colour=random.uniform(0.15, 1.0, (*shape, 3)),
        pitch=np.stack([np.cos(pitch), np.sin(pitch)], -1),
        distance=random.uniform(6.2, 7.4, n),
        light=light / np.sqrt((light**2).sum(-1, keepdims=True)),
        floor=random.uniform(0.5, 0.9, (n, 1)) + random.uniform(-0.1, 0.1, (n, 3)),
        background=random.uniform(0.0, 1.0, (n, 3)),
    )
    moved = np.concatenate([place + move, high[..., None]], -1)
    return scenes, scenes._replace(centre=moved)


def look(scenes: World, moved: World, size: int) -> dict[str, np.ndarray]:
    """Render both frames and read the labels off.

    Args:
        scenes: n scenes.
        moved: the same in the next frame.
        size: S.

    Returns:
        By feature `[n, ...]`, as `Scenes` has them.
    """
    views, after = render(scenes, size), render(moved, size)
    edges, pixels = boxes(views.solid, MOST)
    least = max(1, int(np.ceil(LEAST_SEEN * size * size)))
    seen = pixels >= least
    before, there = project(scenes, scenes.centre), project(moved, moved.centre)
    inside = _inside(before) & _inside(there)
    tracked = seen & (boxes(after.solid, MOST)[1] >= least) & inside
    return {
        "image": views.image,
        "next_image": after.image,
        "segmentation": surfaces(scenes, views),
        "depth": views.depth.astype(np.float32),
        "normals": views.normals.astype(np.float32),
        "boxes": np.where(seen[..., None], edges, 0).astype(np.int32),
        "kinds": np.where(seen, scenes.kinds, -1).astype(np.int32),
        "centres": np.where(tracked[..., None], before, 0).astype(np.float32),
        "moves": np.where(tracked[..., None], there - before, 0).astype(np.float32),
        "tracked": tracked,
    }


def surfaces(scenes: World, views: Views) -> np.ndarray:
    """`[n, S, S]` uint8 positions in `SURFACES`."""
    kinds = np.concatenate([2 + scenes.kinds, np.zeros((len(scenes.kinds), 1), int)], 1)
    kinds = np.concatenate([kinds, np.ones_like(kinds[:, :1])], 1)
    scene = np.arange(len(kinds))[:, None, None]
    return kinds[scene, views.solid].astype(np.uint8)


def _inside(points: Float64[np.ndarray, "n N 2"]) -> Bool[np.ndarray, "n N"]:
    return np.all((points >= 0) & (points <= 1), axis=-1)


def _settle(
    wanted: Bool[np.ndarray, "n N"],
    reach: Float64[np.ndarray, "n N"],
    places: Float64[np.ndarray, "n N T 2"],
    moves: Float64[np.ndarray, "n N T 2"],
) -> tuple[Bool[np.ndarray, "n N"], Float64[np.ndarray, "n N 2"], Float64[np.ndarray, "n N 2"]]:
    """The first try of each solid that is clear of those before it, in both frames."""
    n, count = wanted.shape
    there, choice = np.zeros((n, count), bool), np.zeros((n, count), int)
    rows = np.arange(n)
    for i in range(count):
        clear = np.repeat(wanted[:, i, None], places.shape[2], 1)
        for j in range(i):
            room = (reach[:, i] + reach[:, j] + _GAP)[:, None]
            for still in (places, places + moves):
                other = still[rows, j, choice[:, j]][:, None]
                apart = ((still[:, i] - other) ** 2).sum(-1) >= room**2
                clear &= apart | ~there[:, j, None]
        there[:, i], choice[:, i] = clear.any(1), clear.argmax(1)
    chosen = choice[..., None, None]
    return (
        there,
        np.take_along_axis(places, chosen, 2)[:, :, 0],
        np.take_along_axis(moves, chosen, 2)[:, :, 0],
    )
