import hashlib

import numpy as np
import pytest

from jmtl.data import scenes, source
from jmtl.data.solids import (
    AMBIENT,
    DARK_TILE,
    FLOOR_RADIUS,
    KINDS,
    TAN_HALF_VIEW,
    TARGET,
    TILE,
    World,
    boxes,
    project,
    render,
)

SIZE = 33


@pytest.fixture(scope="module")
def drawn():
    return scenes.draw(12, seed=7)


@pytest.fixture(scope="module")
def views(drawn):
    return render(drawn[0], SIZE)


@pytest.fixture(scope="module")
def looked(drawn):
    return scenes.look(*drawn, SIZE)


def camera(world, i):
    """Position and axes from a pinhole that looks at its target, by cross products."""
    cos, sin = world.pitch[i]
    forward = np.array([0, cos, -sin])
    right = np.cross(forward, [0, 0, 1.0])
    right /= np.linalg.norm(right)
    return np.array(TARGET) - world.distance[i] * forward, right, np.cross(forward, right), forward


def own_frame(world, i, j, points):
    """Points `[..., 3]` of the world in a solid's frame, as shares of its half sizes."""
    angle = np.arctan2(world.turn[i, j, 1], world.turn[i, j, 0])
    turn = np.array(
        [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    )
    return (points - world.centre[i, j]) @ turn / world.half[i, j]


def surfaces(kind, p):
    """`[..., surfaces]`: a point is inside the solid where all of them are below 0."""
    x, y, z = np.moveaxis(p, -1, 0)
    rho = np.hypot(x, y)
    return {
        "sphere": np.stack([np.linalg.norm(p, axis=-1) - 1], -1),
        "box": np.concatenate([p - 1, -p - 1], -1),
        "cylinder": np.stack([rho - 1, z - 1, -z - 1], -1),
        "cone": np.stack([rho - (1 - z) / 2, -z - 1], -1),
    }[kind]


def inside(world, i, points):
    """`[...]` the number of a solid that holds the point, -1 if none does."""
    found = np.full(points.shape[:-1], -1)
    for j, kind in enumerate(world.kinds[i]):
        if kind >= 0:
            found[surfaces(KINDS[kind], own_frame(world, i, j, points)).max(-1) < -1e-9] = j
    return found


def some_pixels(views, i, random, count=25):
    """Pixels of a picture, half of them on solids."""
    on = np.argwhere(views.solid[i] >= 0)
    off = np.argwhere(views.solid[i] < 0)
    return [tuple(x) for part in (on, off) for x in random.permutation(part)[:count]]


def test_depth_and_normal_of_a_sphere_in_the_middle():
    def one(*x):
        return np.array([x], float)

    world = World(
        kinds=np.array([[0]]),
        half=one([0.25] * 3),
        turn=one([1, 0]),
        centre=one(TARGET),
        colour=one([0.5, 0.25, 1.0]),
        pitch=one(np.cos(0.6), np.sin(0.6)),
        distance=np.array([6.0]),
        light=one(0, 0, 1),
        floor=one(1, 1, 1),
        background=one(0, 0, 0),
    )
    views = render(world, SIZE)
    middle = (0, SIZE // 2, SIZE // 2)
    np.testing.assert_allclose(views.depth[middle], 5.75, rtol=1e-14)
    np.testing.assert_allclose(views.normals[middle], [0, 0, -1], atol=1e-14)
    np.testing.assert_allclose(project(world, world.centre), [[[0.5, 0.5]]], atol=1e-14)
    # The outline of a ball is a cone about the axis: tan = r / sqrt(d² - r²).
    radius = 0.25 / np.sqrt(36 - 0.25**2) / TAN_HALF_VIEW * SIZE / 2
    rows, columns = np.indices((SIZE, SIZE)) - SIZE // 2
    np.testing.assert_array_equal(views.solid[0] == 0, np.hypot(rows, columns) < radius)
    light = AMBIENT + (1 - AMBIENT) * np.sin(0.6)
    np.testing.assert_array_equal(
        views.image[middle], np.rint(255 * light * np.array([0.5, 0.25, 1.0]))
    )


def test_every_ray_ends_at_the_first_surface(drawn, views):
    world, random = drawn[0], np.random.default_rng(0)
    seen = set()
    for i in range(len(world.kinds)):
        eye, right, down, forward = camera(world, i)
        for row, column in some_pixels(views, i, random):
            x, y = ((2 * k + 1) / SIZE - 1 for k in (column, row))
            way = forward + TAN_HALF_VIEW * (x * right + y * down)
            depth, j = views.depth[i, row, column], views.solid[i, row, column]
            end = eye + depth * way
            floor = -eye[2] / way[2]
            if j == -2:
                assert depth == 0
                assert not views.normals[i, row, column].any()
                assert np.linalg.norm((eye + floor * way)[:2]) > FLOOR_RADIUS
                depth = 15.0
            elif j == -1:
                np.testing.assert_allclose(depth, floor, rtol=1e-12)
                normal = np.array([right[2], down[2], forward[2]])
                np.testing.assert_allclose(views.normals[i, row, column], normal, atol=1e-12)
            else:
                kind = KINDS[world.kinds[i, j]]
                seen.add(kind)
                at = surfaces(kind, own_frame(world, i, j, end))
                np.testing.assert_allclose(at.max(), 0, atol=1e-9)
                assert depth < floor
            steps = np.linspace(3.0, depth - 1e-6, 1500)
            assert (inside(world, i, eye + steps[:, None] * way) == -1).all()
    assert seen == set(KINDS)


def test_normals_are_the_gradients_of_the_surfaces(drawn, views):
    world, random = drawn[0], np.random.default_rng(1)
    norms = np.linalg.norm(views.normals, axis=-1)
    np.testing.assert_allclose(norms, views.solid > -2, atol=1e-12)
    checked = 0
    for i in range(len(world.kinds)):
        eye, right, down, forward = camera(world, i)
        for row, column in some_pixels(views, i, random):
            j = views.solid[i, row, column]
            if j < 0:
                continue
            x, y = ((2 * k + 1) / SIZE - 1 for k in (column, row))
            way = forward + TAN_HALF_VIEW * (x * right + y * down)
            end = eye + views.depth[i, row, column] * way
            steps = np.concatenate([np.eye(3), -np.eye(3)]) * 1e-6
            values = surfaces(
                KINDS[world.kinds[i, j]], own_frame(world, i, j, np.vstack([end, end + steps]))
            )
            if values.shape[1] > 1 and np.diff(np.sort(values[0])[-2:]) < 1e-4:
                continue  # an edge
            ahead, behind = np.split(values[1:, values[0].argmax()], 2)
            normal = (ahead - behind) / np.linalg.norm(ahead - behind)
            found = views.normals[i, row, column]
            np.testing.assert_allclose(
                found, [normal @ right, normal @ down, normal @ forward], atol=1e-6
            )
            assert found @ [x * TAN_HALF_VIEW, y * TAN_HALF_VIEW, 1] < 0
            checked += 1
    assert checked > 100


def test_colours_are_light_and_shadow(drawn, views):
    world, random = drawn[0], np.random.default_rng(2)
    shadows = 0
    for i in range(len(world.kinds)):
        eye, right, down, forward = camera(world, i)
        for row, column in some_pixels(views, i, random, 12):
            x, y = ((2 * k + 1) / SIZE - 1 for k in (column, row))
            way = forward + TAN_HALF_VIEW * (x * right + y * down)
            j = views.solid[i, row, column]
            if j == -2:
                expected = world.background[i]
            else:
                end = eye + views.depth[i, row, column] * way
                normal = views.normals[i, row, column] @ [right, down, forward]
                cosine = max(normal @ world.light[i], 0)
                path = end + 1e-5 * normal + np.linspace(0, 6, 3000)[:, None] * world.light[i]
                hidden = (inside(world, i, path) >= 0).any()
                shadows += hidden and cosine > 0
                expected = world.colour[i, j] if j >= 0 else world.floor[i]
                if j == -1 and int(end[0] // TILE + end[1] // TILE) % 2 == 0:
                    expected = expected * DARK_TILE
                expected = expected * (AMBIENT + (1 - AMBIENT) * cosine * (not hidden))
            np.testing.assert_allclose(
                views.image[i, row, column], 255 * np.clip(expected, 0, 1), atol=0.51
            )
    assert shadows > 5


def test_boxes_are_tight_around_the_solids(views, looked):
    edges, pixels = boxes(views.solid, scenes.MOST)
    least = np.ceil(scenes.LEAST_SEEN * SIZE**2)
    for i, j in np.ndindex(pixels.shape):
        at = np.argwhere(views.solid[i] == j)
        assert pixels[i, j] == len(at)
        expected = [*at.min(0), *(at.max(0) + 1)] if len(at) else [0] * 4
        assert edges[i, j].tolist() == expected
        assert looked["boxes"][i, j].tolist() == (expected if len(at) >= least else [0] * 4)
        assert (looked["kinds"][i, j] >= 0) == (len(at) >= least)


def test_segmentation_names_what_is_seen(drawn, views, looked):
    for i, solid in enumerate(views.solid):
        names = np.array(["floor", "nothing"] + [KINDS[k] for k in drawn[0].kinds[i]])
        found = np.array(scenes.SURFACES)[looked["segmentation"][i]]
        np.testing.assert_array_equal(found, names[np.where(solid < 0, -1 - solid, solid + 2)])
        np.testing.assert_array_equal(found == "nothing", looked["depth"][i] == 0)


def test_moves_are_those_of_the_middles(drawn, looked):
    world, moved = drawn
    count = 0
    for i, j in np.argwhere(looked["tracked"]):
        eye, right, down, forward = camera(world, i)
        where = []
        for frame in (world, moved):
            away = frame.centre[i, j] - eye
            where.append(np.array([away @ down, away @ right]) / (away @ forward))
        before, after = (0.5 + x / (2 * TAN_HALF_VIEW) for x in where)
        np.testing.assert_allclose(looked["centres"][i, j], before, atol=1e-6)
        np.testing.assert_allclose(looked["moves"][i, j], after - before, atol=1e-6)
        assert (world.centre[i, j] != moved.centre[i, j]).tolist() == [True, True, False]
        count += 1
    assert count > 20
    for name in ("centres", "moves"):
        assert not looked[name][~looked["tracked"]].any()
    # The next image is a picture of the moved solids, and of nothing else that changed.
    np.testing.assert_array_equal(looked["next_image"], render(moved, SIZE).image)


def test_solids_stand_apart_on_the_floor():
    world, moved = scenes.draw(300, seed=3)
    counts = (world.kinds >= 0).sum(1)
    assert counts.min() >= 1
    assert counts.max() == scenes.MOST
    assert np.bincount(world.kinds[world.kinds >= 0]).min() > 100
    np.testing.assert_array_equal(world.centre[..., 2], world.half[..., 2])
    wide, deep, _ = np.moveaxis(world.half, -1, 0)
    reach = np.where(world.kinds == KINDS.index("box"), np.hypot(wide, deep), wide)
    there = world.kinds >= 0
    pairs = there[:, :, None] & there[:, None] & ~np.eye(scenes.MOST, dtype=bool)
    for frame in (world, moved):
        between = frame.centre[:, :, None, :2] - frame.centre[:, None, :, :2]
        room = reach[:, :, None] + reach[:, None]
        assert (np.linalg.norm(between, axis=-1) - room)[pairs].min() > 0


def digest(arrays):
    found = hashlib.sha256()
    for name in sorted(arrays):
        found.update(arrays[name].tobytes())
    return found.hexdigest()[:16]


def test_same_seed_same_scenes_at_every_resolution():
    one, other = (scenes.draw(5, seed=2) for _ in range(2))
    assert digest(scenes.look(*one, 16)) == digest(scenes.look(*other, 16))
    assert digest(scenes.look(*scenes.draw(5, seed=3), 16)) != digest(scenes.look(*one, 16))
    # Each pixel of 16 × 16 is the middle one of 3 × 3.
    fine = scenes.look(*one, 48)
    np.testing.assert_array_equal(fine["image"][:, 1::3, 1::3], scenes.look(*one, 16)["image"])


def test_version_1_is_these_scenes():
    # A change of the pictures needs a new VERSION, as prepared copies of the old one exist.
    arrays = scenes.look(*scenes.draw(4, scenes._SEED), 32)
    exact = {name: values for name, values in arrays.items() if values.dtype != np.float32}
    assert digest(exact) == "60ca996109d7e229"


def test_prepared_scenes_are_what_was_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(scenes, "COUNTS", {"train": 20, "validation": 3, "test": 3})
    builder = source.prepare("scenes/16", tmp_path)
    for i, (split, count) in enumerate(scenes.COUNTS.items()):
        split = source.load(builder, split)
        arrays = source.as_arrays(split)
        expected = scenes.look(*scenes.draw(count, scenes._SEED + i), 16)
        assert arrays.keys() == expected.keys()
        for name, values in expected.items():
            assert arrays[name].dtype == values.dtype
            np.testing.assert_array_equal(arrays[name], values)
        assert source.nbytes(split) == sum(values.nbytes for values in arrays.values())


def test_the_default_resolution_has_a_name(tmp_path):
    for name, size in (("scenes", 64), ("scenes/64", 64), ("scenes/96", 96)):
        builder = source._builder(name, tmp_path)
        assert builder.info.features["image"].shape == (size, size, 3)
        assert builder.data_path == tmp_path / "scenes" / str(size) / "1.0.0"


@pytest.mark.parametrize("size", ["8", "large", "-3"])
def test_a_resolution_is_a_number(size, tmp_path):
    with pytest.raises(ValueError, match=f"scenes are 16×16 or more, as scenes/64; got '{size}'"):
        source.prepare(f"scenes/{size}", tmp_path)
