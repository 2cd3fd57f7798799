"""Solids on a floor, seen by a camera: pictures with exact depth, normals and what is where.

One ray a pixel meets every solid in closed form. A solid is an affine map of a unit solid
(`KINDS`): scaled by its half sizes, turned about the vertical, moved. A ray keeps its parameter
under such a map, so that all intersections are taken with unit solids.

Frames. World: x right, y away from the camera, z up; the floor is z = 0. Camera: x right, y down,
z along the optical axis. Depth is the z of the camera, the distance from its plane. All arithmetic
is float64.
"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Float64, Int, Int64, UInt8

KINDS = ("sphere", "box", "cylinder", "cone")
"""Unit solids: the ball, the cube [-1, 1]³, the cylinder of radius 1 and the cone of base radius 1
with its tip up, both upright in z from -1 to 1."""

TAN_HALF_VIEW = 0.33
"""The tangent of half the angle of view, along both sides of the square picture."""

FLOOR_RADIUS = 4.0
"""The floor is a disc about the origin; beyond it lies nothing."""

TARGET = (0.0, 0.3, 0.3)
"""The point of the world in the middle of the picture."""

AMBIENT = 0.4
"""The share of light that comes from everywhere; the rest has a direction and casts shadows."""

TILE = 0.8
DARK_TILE = 0.8
"""Side of the floor's tiles, in the world, and the brightness of every other one."""

_LIFT = 1e-6  # of the points that look for the light, off their own surface
_TINY = 1e-12  # a ray parallel to a face meets it very far away instead of nowhere


class World(NamedTuple):
    """What n scenes of up to N solids hold.

    Attributes:
        kinds: `[n, N]` positions in `KINDS`, -1 where there is no solid.
        half: `[n, N, 3]` half sizes along the solid's own axes, above 0.
        turn: `[n, N, 2]` cosine and sine of the turn about the vertical.
        centre: `[n, N, 3]` in the world.
        colour: `[n, N, 3]` red, green, blue in [0, 1].
        pitch: `[n, 2]` cosine and sine of the angle by which the camera looks down.
        distance: `[n]` of the camera from `TARGET`.
        light: `[n, 3]` unit vectors of the world, towards the light.
        floor: `[n, 3]` its colour.
        background: `[n, 3]` the colour where nothing is.
    """

    kinds: Int[np.ndarray, "n N"]
    half: Float64[np.ndarray, "n N 3"]
    turn: Float64[np.ndarray, "n N 2"]
    centre: Float64[np.ndarray, "n N 3"]
    colour: Float64[np.ndarray, "n N 3"]
    pitch: Float64[np.ndarray, "n 2"]
    distance: Float64[np.ndarray, " n"]
    light: Float64[np.ndarray, "n 3"]
    floor: Float64[np.ndarray, "n 3"]
    background: Float64[np.ndarray, "n 3"]


class Views(NamedTuple):
    """What the cameras of n scenes see in pictures of S × S pixels.

    Attributes:
        image: `[n, S, S, 3]`.
        solid: `[n, S, S]` the number of the solid, -1 the floor, -2 nothing.
        depth: `[n, S, S]`, 0 where nothing is.
        normals: `[n, S, S, 3]` unit vectors of the camera, towards it; zeros where nothing is.
    """

    image: UInt8[np.ndarray, "n S S 3"]
    solid: Int64[np.ndarray, "n S S"]
    depth: Float64[np.ndarray, "n S S"]
    normals: Float64[np.ndarray, "n S S 3"]


def render(scenes: World, size: int) -> Views:
    """Take the pictures.

    Args:
        scenes: n scenes; no camera may be inside a solid. Their memory is some 100 N S² numbers
            each: render many in parts.
        size: S.
    """
    n = len(scenes.kinds)
    rays = _rays(size)
    axes = _camera_axes(scenes)
    eye = _eye(scenes, axes)
    # The rays in the world: [3, n, P].
    ways = np.stack([_dot(axes[:, :, i].T[:, :, None], rays) for i in range(3)])
    start = eye.T[:, :, None]

    depth, solid = _nearest(scenes, start, ways)
    down = ways[2] < -_TINY
    floor = np.where(down, -start[2] / np.where(down, ways[2], 1.0), np.inf)
    x, y = start[0] + floor * ways[0], start[1] + floor * ways[1]
    floor = np.where(x * x + y * y <= FLOOR_RADIUS**2, floor, np.inf)
    solid = np.where(floor < depth, -1, np.where(np.isinf(depth), -2, solid))
    depth = np.minimum(depth, floor)

    there = solid >= -1
    depth = np.where(there, depth, 0.0)
    points = start + depth * ways
    normals = _normals(scenes, solid, points)
    lit = _lit(scenes, points, normals, there)

    colours = np.concatenate([scenes.colour, scenes.background[:, None], scenes.floor[:, None]], 1)
    albedo = colours[np.arange(n)[:, None], solid]
    tiles = np.floor(points[0] / TILE) + np.floor(points[1] / TILE)
    albedo = albedo * np.where((solid == -1) & (tiles % 2 == 0), DARK_TILE, 1.0)[..., None]
    light = np.where(there, AMBIENT + (1 - AMBIENT) * lit, 1.0)[..., None]
    image = np.rint(255 * np.clip(albedo * light, 0, 1)).astype(np.uint8)

    seen = np.stack([_dot(axes[:, i].T[:, :, None], normals) for i in range(3)], -1)
    square = (n, size, size)
    return Views(
        image.reshape(*square, 3),
        solid.reshape(square),
        depth.reshape(square),
        seen.reshape(*square, 3),
    )


def project(scenes: World, points: Float64[np.ndarray, "n N 3"]) -> Float64[np.ndarray, "n N 2"]:
    """Where points of the world lie in the picture.

    Args:
        scenes: n scenes.
        points: before the camera.

    Returns:
        `[n, N, 2]` y and x as shares of the picture's height and width, in [0, 1] inside it.
    """
    axes = _camera_axes(scenes)
    away = points - _eye(scenes, axes)[:, None]
    x, y, z = (_dot(axes[:, i].T[:, :, None], np.moveaxis(away, -1, 0)) for i in range(3))
    return 0.5 + np.stack([y / z, x / z], -1) / (2 * TAN_HALF_VIEW)


def boxes(
    solid: Int[np.ndarray, "n S S"], count: int
) -> tuple[Int64[np.ndarray, "n N 4"], Int64[np.ndarray, "n N"]]:
    """The boxes around what is seen of each solid, and its pixels.

    Args:
        solid: of `Views`.
        count: N.

    Returns:
        `[n, N, 4]` top, left, bottom, right: the first row and column that hold a pixel of it, and
        those after the last, all 0 where none does; and `[n, N]` the number of its pixels.
    """
    edges = np.zeros((len(solid), count, 4), np.int64)
    pixels = np.zeros((len(solid), count), np.int64)
    size = solid.shape[1]
    for i in range(count):
        mask = solid == i
        pixels[:, i] = mask.sum((1, 2))
        rows, columns = mask.any(2), mask.any(1)
        first = [rows.argmax(1), columns.argmax(1)]
        last = [size - x[:, ::-1].argmax(1) for x in (rows, columns)]
        edges[:, i] = np.where(pixels[:, i, None] > 0, np.stack([*first, *last], 1), 0)
    return edges, pixels


def _rays(size: int) -> Float64[np.ndarray, "3 1 P"]:
    """Through the pixels' middles, row by row, in the camera's frame; z = 1."""
    at = (2 * np.arange(size) + 1 - size) / size * TAN_HALF_VIEW
    y, x = np.meshgrid(at, at, indexing="ij")
    return np.stack([x.ravel(), y.ravel(), np.ones(size * size)])[:, None]


def _camera_axes(scenes: World) -> Float64[np.ndarray, "n 3 3"]:
    """The camera's x, y and z (rows), in the world."""
    cos, sin = scenes.pitch.T
    zero, one = np.zeros_like(cos), np.ones_like(cos)
    rows = [(one, zero, zero), (zero, -sin, -cos), (zero, cos, -sin)]
    return np.stack([np.stack(row, -1) for row in rows], 1)


def _eye(scenes: World, axes: Float64[np.ndarray, "n 3 3"]) -> Float64[np.ndarray, "n 3"]:
    return np.array(TARGET) - scenes.distance[:, None] * axes[:, 2]


def _nearest(
    scenes: World, start: Float64[np.ndarray, "3 n p"], ways: Float64[np.ndarray, "3 n p"]
) -> tuple[Float64[np.ndarray, "n P"], Int64[np.ndarray, "n P"]]:
    """The least parameter above 0 at which rays meet a solid, infinite without, and which."""
    rays = np.broadcast_shapes(start.shape, ways.shape)[1:]
    found = np.full((scenes.kinds.shape[1], *rays), np.inf)
    for kind, meet in enumerate(_MEET):
        scene, slot = np.nonzero(scenes.kinds == kind)
        if len(scene):
            unit = scene, slot
            moved = start[:, scene] - scenes.centre[unit].T[..., None]
            o = _into(scenes, unit, moved)
            d = _into(scenes, unit, ways[:, scene])
            with np.errstate(invalid="ignore"):
                found[slot, scene] = meet(o, d)
    return found.min(0), found.argmin(0)


def _into(
    scenes: World, unit: tuple[np.ndarray, np.ndarray], v: Float64[np.ndarray, "3 M p"]
) -> Float64[np.ndarray, "3 M p"]:
    """Vectors of the world in the frames of some solids, made unit."""
    cos, sin = scenes.turn[unit].T[..., None]
    a, b, c = scenes.half[unit].T[..., None]
    x, y, z = v
    return np.stack([(cos * x + sin * y) / a, (cos * y - sin * x) / b, z / c])


def _normals(
    scenes: World, solid: Int64[np.ndarray, "n P"], points: Float64[np.ndarray, "3 n P"]
) -> Float64[np.ndarray, "3 n P"]:
    """Outward unit normals in the world at points on the surfaces; zeros where nothing is."""
    normals = np.zeros_like(points)
    normals[2, solid == -1] = 1.0
    scene, pixel = np.nonzero(solid >= 0)
    slot = solid[scene, pixel]
    kinds = scenes.kinds[scene, slot]
    for kind, direct in enumerate(_DIRECT):
        chosen = np.nonzero(kinds == kind)[0]
        unit = scene[chosen], slot[chosen]
        where = scene[chosen], pixel[chosen]
        moved = points[:, *where] - scenes.centre[unit].T
        p = _into(scenes, unit, moved[..., None])[..., 0]
        # Normals map by the inverse transpose: divided by the half sizes, as points are.
        x, y, z = direct(p) / scenes.half[unit].T
        cos, sin = scenes.turn[unit].T
        n = np.stack([cos * x - sin * y, sin * x + cos * y, z])
        normals[:, *where] = n / np.sqrt(_dot(n, n))
    return normals


def _lit(
    scenes: World,
    points: Float64[np.ndarray, "3 n P"],
    normals: Float64[np.ndarray, "3 n P"],
    there: Bool[np.ndarray, "n P"],
) -> Float64[np.ndarray, "n P"]:
    """The cosine between normal and light, 0 in shadow."""
    light = scenes.light.T[..., None]
    cosine = np.maximum(_dot(normals, light), 0.0)
    blocked, _ = _nearest(scenes, points + _LIFT * normals, light)
    return np.where(there & np.isinf(blocked), cosine, 0.0)


def _dot(a: Float[np.ndarray, "3 *p"], b: Float[np.ndarray, "3 *p"]) -> Float[np.ndarray, "*p"]:
    # Written out: BLAS and einsum may add in another order on another machine.
    return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]


def _first(
    enter: Float64[np.ndarray, "M p"], leave: Float64[np.ndarray, "M p"]
) -> Float64[np.ndarray, "M p"]:
    """Where a ray from outside enters a convex solid that holds it from `enter` to `leave`."""
    return np.where((enter <= leave) & (enter > 0), enter, np.inf)


def _slab(
    o: Float64[np.ndarray, "M p"], d: Float64[np.ndarray, "M p"]
) -> tuple[Float64[np.ndarray, "M p"], Float64[np.ndarray, "M p"]]:
    """Where a ray enters and leaves [-1, 1] along one axis."""
    d = np.where(np.abs(d) < _TINY, _TINY, d)
    one, other = (-1 - o) / d, (1 - o) / d
    return np.minimum(one, other), np.maximum(one, other)


def _roots(
    a: Float64[np.ndarray, "M p"], b: Float64[np.ndarray, "M p"], c: Float64[np.ndarray, "M p"]
) -> tuple[Float64[np.ndarray, "M p"], Float64[np.ndarray, "M p"]]:
    """The roots of a t² + 2 b t + c, NaN without; no difference of near numbers is taken."""
    q = -(b + np.copysign(np.sqrt(b * b - a * c), b))
    q = np.where(np.abs(q) < _TINY, _TINY, q)
    return q / np.where(np.abs(a) < _TINY, _TINY, a), c / q


def _meet_sphere(
    o: Float64[np.ndarray, "3 M p"], d: Float64[np.ndarray, "3 M p"]
) -> Float64[np.ndarray, "M p"]:
    one, other = _roots(_dot(d, d), _dot(o, d), _dot(o, o) - 1)
    return _first(np.minimum(one, other), np.maximum(one, other))


def _meet_box(
    o: Float64[np.ndarray, "3 M p"], d: Float64[np.ndarray, "3 M p"]
) -> Float64[np.ndarray, "M p"]:
    (x0, x1), (y0, y1), (z0, z1) = (_slab(o[i], d[i]) for i in range(3))
    return _first(np.maximum(np.maximum(x0, y0), z0), np.minimum(np.minimum(x1, y1), z1))


def _meet_cylinder(
    o: Float64[np.ndarray, "3 M p"], d: Float64[np.ndarray, "3 M p"]
) -> Float64[np.ndarray, "M p"]:
    one, other = _roots(*_flat(o, d, 0.0))
    z0, z1 = _slab(o[2], d[2])
    return _first(np.maximum(np.minimum(one, other), z0), np.minimum(np.maximum(one, other), z1))


def _meet_cone(
    o: Float64[np.ndarray, "3 M p"], d: Float64[np.ndarray, "3 M p"]
) -> Float64[np.ndarray, "M p"]:
    """The nearest of the mantle's two meetings and the base's one that lie on the solid."""
    mantle = []
    for t in _roots(*_flat(o, d, 0.5)):
        on = (t > 0) & (np.abs(o[2] + t * d[2]) <= 1)
        mantle.append(np.where(on, t, np.inf))
    t = (-1 - o[2]) / np.where(np.abs(d[2]) < _TINY, _TINY, d[2])
    x, y = o[0] + t * d[0], o[1] + t * d[1]
    base = np.where((t > 0) & (x * x + y * y <= 1), t, np.inf)
    return np.minimum(np.minimum(*mantle), base)


def _flat(
    o: Float64[np.ndarray, "3 M p"], d: Float64[np.ndarray, "3 M p"], slope: float
) -> tuple[Float64[np.ndarray, "M p"], Float64[np.ndarray, "M p"], Float64[np.ndarray, "M p"]]:
    """a, b, c of a ray and x² + y² = r², r = 1 for a slope of 0 and slope (1 - z) else."""
    a = d[0] * d[0] + d[1] * d[1] - slope**2 * d[2] * d[2]
    rest = 1.0 if slope == 0 else slope**2 * (1 - o[2]) * (1 - o[2])
    b = o[0] * d[0] + o[1] * d[1] + slope**2 * (1 - o[2]) * d[2]
    return a, b, o[0] * o[0] + o[1] * o[1] - rest


def _direct_box(p: Float64[np.ndarray, "3 M"]) -> Float64[np.ndarray, "3 M"]:
    face = np.abs(p).argmax(0)
    return np.where(np.arange(3)[:, None] == face, np.sign(p), 0.0)


def _direct_cylinder(p: Float64[np.ndarray, "3 M"]) -> Float64[np.ndarray, "3 M"]:
    x, y, z = p
    lid = z * z >= x * x + y * y
    return np.stack([np.where(lid, 0, x), np.where(lid, 0, y), np.where(lid, np.sign(z), 0)])


def _direct_cone(p: Float64[np.ndarray, "3 M"]) -> Float64[np.ndarray, "3 M"]:
    x, y, z = p
    base = z <= -1 + 1e-9
    return np.stack([np.where(base, 0, x), np.where(base, 0, y), np.where(base, -1, (1 - z) / 4)])


_MEET = (_meet_sphere, _meet_box, _meet_cylinder, _meet_cone)
_DIRECT = (lambda p: p, _direct_box, _direct_cylinder, _direct_cone)
