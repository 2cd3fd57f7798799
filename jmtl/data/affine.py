"""Affine maps of images, and what becomes of the labels in them. Pure functions of one example.

Kinds of labels; what comes from outside the image has none:

- "classes" `[H, W]` integers: outside -1, of unsigned ones their largest number (255);
- "depth" `[H, W]`: outside 0;
- "normals" `[H, W, 3]` as (x right, y down, z): outside zeros; lengths stay;
- "boxes" `[N, 5]` and "tracks" `[N, 5]`, see `jmtl.objects`: cut at the image's edge; padding
  where the middle is outside. Under shear a box is the one around its four sheared corners.

Depths and normals follow the pinhole camera. What is x, y, z before the camera is seen at
(x, y) / z. An image that is stretched by s and deformed by B, of determinant ±1, shows with the
same camera the points (B (x, y), z / s): so depths are divided by s, and a normal n becomes
(B^-T (n_x, n_y), s n_z). With `lens`, zoom is a longer lens before the same scene: s is 1 in both.
The shift of a crop changes neither: that would need the focal length.
"""

from typing import Any, Literal, NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, Num

Kind = Literal["classes", "depth", "normals", "boxes", "tracks"]
Size = tuple[int, int]


class Affine(NamedTuple):
    """Where a new image reads the old one: at `matrix` u + `offset`, for a pixel at u.

    Both positions are (row, column) in pixels from the image's middle.

    Attributes:
        matrix: `[2, 2]`.
        offset: `[2]`.
    """

    matrix: Float[Array, "2 2"]
    offset: Float[Array, "2"]


def identity() -> Affine:
    """The map that leaves an image of the same size as it is."""
    return Affine(jnp.eye(2), jnp.zeros(2))


def compose(*maps: Affine) -> Affine:
    """One map for several that act on an image one after the other; none leave it as it is."""
    total = identity()
    for new in maps:
        columns = [_times(total.matrix, *new.matrix[:, j]) for j in (0, 1)]
        matrix = jnp.stack([jnp.stack(column) for column in columns], axis=1)
        total = Affine(matrix, jnp.stack(_times(total.matrix, *new.offset)) + total.offset)
    return total


def warp(
    image: Float[Array, "H W *C"], where: Affine, new: Size, fill: float = 0.0
) -> Float[Array, "h w *C"]:
    """An image read at other places, between pixels in proportion to what is near.

    Args:
        image: one image.
        where: the map.
        new: h and w.
        fill: what is outside.
    """
    old = (image.shape[0], image.shape[1])
    rows, columns = _places(where, old, new)
    top, left = jnp.floor(rows), jnp.floor(columns)
    total = jnp.zeros((*new, *image.shape[2:]), image.dtype)
    for i, down in ((0, top + 1 - rows), (1, rows - top)):
        for j, right in ((0, left + 1 - columns), (1, columns - left)):
            weight = (down * right).astype(image.dtype)
            weight = weight.reshape(weight.shape + (1,) * (image.ndim - 2))
            total = total + weight * _read(image, top + i, left + j, fill)
    return _unless_identity(image, total, where, old, new)


def warp_label(
    kind: Kind, label: Num[Array, "..."], where: Affine, old: Size, new: Size, lens: bool = False
) -> Num[Array, "..."]:
    """The label of an image that is read at other places.

    Args:
        kind: of the label.
        label: of one example.
        where: the map.
        old: the old image's size.
        new: the new one's.
        lens: see above.
    """
    if kind == "boxes":
        moved = _boxes(label, where, old, new)
    elif kind == "tracks":
        moved = _tracks(label, where, old, new)
    else:
        rows, columns = (jnp.floor(x + 0.5) for x in _places(where, old, new))
        none = jnp.iinfo(label.dtype).max if jnp.isdtype(label.dtype, "unsigned integer") else -1
        moved = _read(label, rows, columns, none if kind == "classes" else 0)
        # Of the image; and of what is before the camera.
        grown = 1 / jnp.sqrt(jnp.abs(_determinant(where.matrix)))
        stretch = jnp.ones(()) if lens else grown
        if kind == "depth":
            moved = (moved / stretch).astype(label.dtype)
        elif kind == "normals":
            moved = _turned(moved, where, grown, stretch)
    return _unless_identity(label, moved, where, old, new)


def _turned(
    normals: Float[Array, "h w 3"],
    where: Affine,
    grown: Float[Array, ""],
    stretch: Float[Array, ""],
) -> Float[Array, "h w 3"]:
    x, y, z = jnp.moveaxis(normals, -1, 0)
    # B^-T is `matrix`^T times the stretch of the image.
    down, right = _times(where.matrix.T, y, x)
    turned = jnp.stack([right * grown, down * grown, z * stretch], axis=-1)
    length, long = (jnp.linalg.norm(v, axis=-1, keepdims=True) for v in (normals, turned))
    return (turned * (length / jnp.where(long > 0, long, 1))).astype(normals.dtype)


def _boxes(label: Num[Array, "N 5"], where: Affine, old: Size, new: Size) -> Num[Array, "N 5"]:
    top, left, bottom, right, kind = jnp.moveaxis(label, -1, 0)
    corners = [_forward(where, y, x, old, new) for y in (top, bottom) for x in (left, right)]
    rows, columns = (jnp.stack(x) for x in zip(*corners, strict=True))
    sides = [rows.min(0), columns.min(0), rows.max(0), columns.max(0)]
    real = (kind >= 0) & _inside((sides[0] + sides[2]) / 2, (sides[1] + sides[3]) / 2)
    cut = [jnp.where(real, jnp.clip(side, 0, 1), 0) for side in sides]
    return jnp.stack([*cut, jnp.where(real, kind, -1)], axis=-1).astype(label.dtype)


def _tracks(label: Num[Array, "N 5"], where: Affine, old: Size, new: Size) -> Num[Array, "N 5"]:
    row, column, down, right, seen = jnp.moveaxis(label, -1, 0)
    y, x = _forward(where, row, column, old, new)
    next_y, next_x = _forward(where, row + down, column + right, old, new)
    real = (seen > 0) & _inside(y, x) & _inside(next_y, next_x)
    numbers = [y, x, next_y - y, next_x - x, jnp.ones_like(y)]
    return jnp.stack([jnp.where(real, number, 0) for number in numbers], -1).astype(label.dtype)


def _unless_identity(before: Array, after: Array, where: Affine, old: Size, new: Size) -> Array:
    """`after`, but for the identity: there what was before, bit for bit."""
    if old != new:
        return after
    same = [jnp.all(a == b) for a, b in zip(where, identity(), strict=True)]
    return jnp.where(same[0] & same[1], before, after)


def _forward(where: Affine, row: Array, column: Array, old: Size, new: Size) -> tuple[Array, Array]:
    """Where what was at a place of the old image is in the new one, in shares of height, width."""
    (a, b), (c, d) = where.matrix
    inverse = jnp.stack([jnp.stack([d, -b]), jnp.stack([-c, a])]) / _determinant(where.matrix)
    y, x = ((at - 0.5) * n - o for at, n, o in zip((row, column), old, where.offset, strict=True))
    y, x = _times(inverse, y, x)
    return y / new[0] + 0.5, x / new[1] + 0.5


def _inside(row: Array, column: Array) -> Bool[Array, "..."]:
    return (row >= 0) & (row <= 1) & (column >= 0) & (column <= 1)


def _places(where: Affine, old: Size, new: Size) -> tuple[Float[Array, "h w"], Float[Array, "h w"]]:
    """The rows and columns of the old image that the new one's pixels read."""
    middle = [jnp.arange(n) - (n - 1) / 2 for n in new]
    y, x = jnp.meshgrid(*middle, indexing="ij")
    rows, columns = _times(where.matrix, y, x)
    rows, columns = rows + where.offset[0], columns + where.offset[1]
    return rows + (old[0] - 1) / 2, columns + (old[1] - 1) / 2


def _read(
    x: Num[Array, "H W *C"], rows: Float[Array, "h w"], columns: Float[Array, "h w"], fill: Any
) -> Num[Array, "h w *C"]:
    """The pixels at whole places, `fill` where there are none."""
    height, width = x.shape[:2]
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    row: Int[Array, "h w"] = jnp.clip(rows, 0, height - 1).astype(jnp.int32)
    column: Int[Array, "h w"] = jnp.clip(columns, 0, width - 1).astype(jnp.int32)
    inside = inside.reshape(inside.shape + (1,) * (x.ndim - 2))
    return jnp.where(inside, x[row, column], jnp.asarray(fill, x.dtype))


def _times(matrix: Float[Array, "2 2"], y: Array, x: Array) -> tuple[Array, Array]:
    # Written out: a product of matrices would be in TF32 on a GPU.
    (a, b), (c, d) = matrix
    return a * y + b * x, c * y + d * x


def _determinant(matrix: Float[Array, "2 2"]) -> Float[Array, ""]:
    (a, b), (c, d) = matrix
    return a * d - b * c
