"""Augmentation by closed forms: what a map does to pixels, depths, normals and objects."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jmtl.data.affine import Affine, compose, identity, warp, warp_label
from jmtl.data.augment import (
    augmentation,
    colour,
    crop,
    cut_out,
    flip,
    scale_crop,
    shear,
    sometimes,
    zoom,
)
from jmtl.tasks import batch, labels

RNG = np.random.default_rng(0)
B, H, W = 8, 7, 9
KINDS = {
    "surface": "classes",
    "far": "depth",
    "facing": "normals",
    "solids": "boxes",
    "moving": "tracks",
}
FLIP = Affine(jnp.diag(jnp.array([1.0, -1.0])), jnp.zeros(2))


def scene():
    """B examples with a label of every kind; the last object of each is padding."""
    near, far = np.sort(RNG.uniform(0, 1, (2, B, 3, 2)), axis=0)
    boxes = np.concatenate([near, far, RNG.integers(0, 4, (B, 3, 1))], -1)
    boxes[:, -1] = (0, 0, 0, 0, -1)
    places, moves = RNG.uniform(0.3, 0.7, (B, 3, 2)), RNG.uniform(-0.2, 0.2, (B, 3, 2))
    tracks = np.concatenate([places, moves, np.ones((B, 3, 1))], -1)
    tracks[:, -1] = 0
    normals = RNG.standard_normal((B, H, W, 3))
    made = {
        "surface": RNG.integers(0, 5, (B, H, W)).astype(np.uint8),
        "far": RNG.uniform(1, 5, (B, H, W)),
        "facing": normals / np.linalg.norm(normals, axis=-1, keepdims=True),
        "solids": boxes,
        "moving": tracks,
        "kind": RNG.integers(0, 4, B),
    }
    made = {k: v.astype(np.float32) if v.dtype == float else v for k, v in made.items()}
    return batch(RNG.uniform(0, 1, (B, H, W, 3)).astype(np.float32), made)


SCENE = scene()
IMAGE = SCENE.inputs[0]
FIRST = {name: label[0] for name, label in SCENE.labels.items()}

read = jax.jit(warp, static_argnames="new")
read_label = jax.jit(warp_label, static_argnames=("kind", "old", "new", "lens"))


def moved(name, where, label=None, old=(H, W), new=(H, W), lens=False):
    """A label after a map; the first example's unless one is given."""
    label = FIRST[name] if label is None else label
    return np.asarray(read_label(KINDS[name], label, where, old, new, lens))


def rescaled(factor):
    return Affine(jnp.eye(2) / factor, jnp.zeros(2))


# What it is for: everything moves alike


EVERY = jax.jit(
    augmentation(
        KINDS,
        moves=(flip, partial(crop, pad=1), zoom, shear),
        changes=(colour, sometimes(cut_out, 0.8)),
        size=(6, 8),
    )
)


def test_labels_stay_at_the_pixels_that_they_are_of():
    row, column = np.meshgrid(np.arange(H), np.arange(W), indexing="ij")
    coordinates = np.stack([row, column, np.ones_like(row)], -1).astype(np.float32)
    number = np.tile(row * W + column, (B, 1, 1))
    pictures = np.tile(coordinates, (B, 1, 1, 1))
    given = batch({"now": pictures, "next": pictures[..., 0]}, {"surface": number})
    moves = (flip, partial(crop, pad=2), zoom, shear)
    augment = jax.jit(augmentation({"surface": "classes"}, moves=moves, size=(6, 8)))
    for seed in range(3):
        found = augment(jax.random.key(seed), given)
        image, pixel = np.asarray(found.inputs["now"]), np.asarray(found.labels["surface"])
        labelled = np.stack([pixel // W, pixel % W], -1)
        # A linear image, read between its pixels, is what it reads; at the edge the fill mixes in.
        inside = image[..., 2] > 1 - 1e-5
        assert inside.mean() > 0.3
        assert (pixel[inside] >= 0).all()
        assert np.abs(image[..., :2] - labelled)[inside].max() < 0.5 + 1e-4
        assert (pixel[image[..., 2] == 0] == -1).all()
        # Several images of an example move alike.
        np.testing.assert_array_equal(found.inputs["next"], image[..., 0])


def from_mask(mask, number):
    """Top, left, bottom, right around the pixels of a number, as shares."""
    rows, columns = np.nonzero((mask == number).any(1))[0], np.nonzero((mask == number).any(0))[0]
    edges = np.array([rows[0], columns[0], rows[-1] + 1, columns[-1] + 1])
    return edges / np.array([*mask.shape, *mask.shape])


def test_boxes_are_those_of_the_moved_instances():
    mask = np.full((12, 14), 255, np.uint8)
    mask[0:3, 2:7], mask[4:10, 1:4], mask[6:12, 8:14] = 0, 1, 2
    boxes = np.stack([[*from_mask(mask, i), i] for i in range(3)]).astype(np.float32)
    given = batch(np.zeros((20, 12, 14), np.float32), {"mask": mask, "solids": boxes})
    given = given._replace(labels={k: np.stack([v] * 20) for k, v in given.labels.items()})
    moves = (flip, partial(crop, pad=2))
    augment = augmentation({"mask": "classes", "solids": "boxes"}, moves=moves, size=(9, 10))
    found = jax.jit(augment)(jax.random.key(0), given).labels
    kept = 0
    for mask, boxes in zip(np.asarray(found["mask"]), np.asarray(found["solids"]), strict=True):
        for i, box in enumerate(boxes):
            if box[4] == -1:
                np.testing.assert_array_equal(box[:4], 0)
                continue
            kept += 1
            assert box[4] == i
            np.testing.assert_allclose(box[:4], from_mask(mask, i), atol=1e-6)
    assert 20 < kept < 60


def test_labels_are_still_what_their_tasks_take():
    found = EVERY(jax.random.key(2), SCENE).labels
    present = np.ones(B, bool)
    for check, name in ((labels.boxes(4), "solids"), (labels.tracks, "moving")):
        assert check(np.asarray(found[name]), present) is None
    assert (found["solids"][:, :2, 4] >= 0).any()
    lengths = np.linalg.norm(found["facing"], axis=-1)
    np.testing.assert_allclose(lengths[lengths > 0], 1, rtol=1e-6)
    assert 0 < (lengths == 0).mean() < 0.5


def test_a_scaled_crop_is_a_window_inside_the_image():
    draw = jax.jit(jax.vmap(lambda key: scale_crop(key, (12, 18), (12, 18), (1.0, 1.5, 3.0))))
    found = draw(jax.random.split(jax.random.key(0), 300))
    scales = 1 / np.asarray(found.matrix[:, 0, 0])
    np.testing.assert_allclose(np.unique(scales.round(4)), [1, 1.5, 3])
    assert min(np.mean(np.abs(scales - s) < 0.01) for s in (1, 1.5, 3)) > 0.2
    np.testing.assert_allclose(found.matrix, np.eye(2) / scales[:, None, None], rtol=1e-6)
    # Its middle is at most so far from the image's that its outer pixels' middles lie inside.
    room = np.array([11, 17]) / 2 * (1 - 1 / scales[:, None])
    assert (np.abs(found.offset) <= room + 1e-5).all()
    far = np.abs(np.asarray(found.offset)[scales > 2]) / room[scales > 2]
    assert far.max(axis=0).min() > 0.9
    with pytest.raises(ValueError, match=r"scales of at least 1, got \(0\.5, 1\.0\)"):
        scale_crop(jax.random.key(0), (12, 18), (12, 18), (0.5, 1.0))


# What leaves things as they are


def test_a_double_flip_is_the_identity():
    augment = jax.jit(augmentation(KINDS, moves=(partial(flip, chance=1.0),)))
    key = jax.random.key(0)
    once = augment(key, SCENE)
    twice = augment(key, once)
    np.testing.assert_array_equal(once.inputs, SCENE.inputs[:, :, ::-1])
    np.testing.assert_array_equal(twice.inputs, SCENE.inputs)
    for name, label in SCENE.labels.items():
        np.testing.assert_allclose(twice.labels[name], label, atol=1e-6)
        assert twice.labels[name].dtype == jnp.asarray(label).dtype
    np.testing.assert_array_equal(once.labels["kind"], SCENE.labels["kind"])


def test_what_happens_with_probability_zero_leaves_every_bit():
    # A crop of the whole is the identity too.
    moves = (partial(flip, chance=0.0), crop, sometimes(zoom, 0.0))
    given = SCENE._replace(inputs=SCENE.inputs - 0.5)
    given.inputs[0, 0, 0] = -0.0
    found = jax.jit(augmentation(KINDS, moves, (sometimes(cut_out, 0.0),)))(
        jax.random.key(3), given
    )
    for new, old in zip(jax.tree.leaves(found), jax.tree.leaves(given), strict=True):
        assert np.asarray(new).tobytes() == np.asarray(jnp.asarray(old)).tobytes()


def test_changes_of_pixels_leave_the_labels():
    found = jax.jit(augmentation(KINDS, changes=(colour, cut_out)))(jax.random.key(0), SCENE)
    assert np.abs(found.inputs - SCENE.inputs).max() > 0.1
    for name, label in SCENE.labels.items():
        np.testing.assert_array_equal(found.labels[name], label)


def test_sometimes_is_as_often_as_it_says():
    image = jnp.broadcast_to(jnp.arange(3.0), (2_000, 1, 3))
    paint = sometimes(lambda key, image: image + 10, 0.3)
    augment = jax.jit(augmentation({}, moves=(flip,), changes=(paint,)))
    first = np.asarray(augment(jax.random.key(1), batch(image, {})).inputs[:, 0, 0])
    for chance, seen in ((0.5, first % 10 == 2), (0.3, first >= 10)):
        assert abs(seen.sum() - 2_000 * chance) < 4 * (2_000 * chance * (1 - chance)) ** 0.5
    assert set(first.tolist()) == {0, 2, 10, 12}


# Moves one by one


def test_a_flip_mirrors_everything():
    np.testing.assert_array_equal(read(IMAGE, FLIP, new=(H, W)), IMAGE[:, ::-1])
    for name in ("surface", "far"):
        np.testing.assert_array_equal(moved(name, FLIP), FIRST[name][:, ::-1])
    mirrored = FIRST["facing"][:, ::-1] * np.float32([-1, 1, 1])
    np.testing.assert_allclose(moved("facing", FLIP), mirrored, rtol=1e-6)
    top, left, bottom, right, kind = FIRST["solids"].T
    expected = np.stack([top, 1 - right, bottom, 1 - left, kind], -1)[:2]
    np.testing.assert_allclose(moved("solids", FLIP)[:2], expected, atol=1e-6)
    y, x, down, along, seen = FIRST["moving"].T
    expected = np.stack([y, 1 - x, down, -along, seen], -1)[:2]
    np.testing.assert_allclose(moved("moving", FLIP)[:2], expected, atol=1e-6)
    np.testing.assert_array_equal(moved("solids", FLIP)[2], [0, 0, 0, 0, -1])
    assert not moved("moving", FLIP)[2].any()


@pytest.mark.parametrize("pad", [0, 2])
def test_a_crop_is_a_slice_that_may_lie_anywhere(pad):
    new = (4, 6)
    padded = np.pad(IMAGE, ((pad, pad), (pad, pad), (0, 0)), constant_values=0.5)
    classes = np.pad(FIRST["surface"], pad, constant_values=255)
    draw = jax.jit(jax.vmap(lambda key: crop(key, (H, W), new, pad=pad)))
    drawn = draw(jax.random.split(jax.random.key(0), 200))
    # The first pixel of each window, in the padded image.
    corners = np.asarray(drawn.offset) + (np.array([H, W]) - new) / 2 + pad
    for axis, room in enumerate((H - 4 + 2 * pad, W - 6 + 2 * pad)):
        assert set(corners[:, axis]) == set(range(room + 1))
    for offset, (i, j) in zip(drawn.offset[:5], corners[:5].astype(int), strict=True):
        where = Affine(jnp.eye(2), offset)
        found = read(IMAGE, where, new=new, fill=0.5)
        np.testing.assert_array_equal(found, padded[i : i + 4, j : j + 6])
        found = moved("surface", where, new=new)
        np.testing.assert_array_equal(found, classes[i : i + 4, j : j + 6])


def test_what_comes_from_outside_has_no_label():
    far = Affine(jnp.eye(2), jnp.array([100.0, 0.0]))
    assert (moved("surface", far) == 255).all()
    assert (moved("surface", far, FIRST["surface"].astype(np.int32)) == -1).all()
    assert not moved("far", far).any()
    assert not moved("facing", far).any()
    assert (moved("solids", far)[:, 4] == -1).all()
    assert not moved("moving", far).any()


def test_a_zoom_by_two_doubles_sides_about_the_middle():
    found = np.asarray(read(IMAGE, rescaled(2.0), new=(H, W)))
    # Odd sizes: every other pixel from the middle's is one of the old image's.
    np.testing.assert_array_equal(found[1::2, ::2], IMAGE[2:5, 2:7])
    np.testing.assert_allclose(found[1, 1], (IMAGE[2, 2] + IMAGE[2, 3]) / 2, rtol=1e-6)
    label = np.float32([[0.4, 0.4, 0.6, 0.7, 3], [0, 0, 0.4, 0.4, 2], FIRST["solids"][2]])
    found = moved("solids", rescaled(2.0), label)
    # The second's middle, at 0.2, goes to -0.1.
    np.testing.assert_allclose(found[:2], [[0.3, 0.3, 0.7, 0.9, 3], [0, 0, 0, 0, -1]], atol=1e-6)
    track = np.float32([[0.5, 0.6, 0.1, -0.05, 1], [0.5, 0.6, 0.3, 0, 1], FIRST["moving"][2]])
    found = moved("moving", rescaled(2.0), track)
    np.testing.assert_allclose(found[:2], [[0.5, 0.7, 0.2, -0.1, 1], [0] * 5], atol=1e-6)


def test_factors_of_zoom_are_uniform_in_their_logarithm():
    draw = lambda key: zoom(key, (H, W), (H, W), low=0.5, high=2.0).matrix
    matrices = jax.jit(jax.vmap(draw))(jax.random.split(jax.random.key(0), 2_000))
    logs = -np.log2(np.asarray(matrices[:, 0, 0]))
    np.testing.assert_array_equal(matrices[:, 0, 0], matrices[:, 1, 1])
    assert -1.001 <= logs.min() < -0.98
    assert 0.98 < logs.max() <= 1.001
    assert abs(logs.mean()) < 4 * (1 / 3 / 2_000) ** 0.5


def test_a_shear_shifts_rows():
    where = Affine(jnp.array([[1.0, 0.0], [1.0, 1.0]]), jnp.zeros(2))
    found = np.asarray(read(IMAGE, where, new=(H, W)))
    for row in range(H):
        by = row - H // 2
        expected = np.zeros((W, 3), np.float32)
        for column in range(max(0, -by), min(W, W - by)):
            expected[column] = IMAGE[row, column + by]
        np.testing.assert_array_equal(found[row], expected)
    # Of a square image: the top edge goes right by its distance from the middle, the bottom left.
    box = np.float32([[0.4, 0.4, 0.7, 0.6, 0]])
    found = moved("solids", where, box, (8, 8), (8, 8))
    np.testing.assert_allclose(found, [[0.4, 0.4 - 0.2, 0.7, 0.6 + 0.1, 0]], atol=1e-6)
    draw = lambda key: shear(key, (H, W), (H, W), most=0.1).matrix
    slopes = np.asarray(jax.vmap(draw)(jax.random.split(jax.random.key(0), 100)))[:, 1, 0]
    assert -0.1 <= slopes.min() < -0.09
    assert 0.09 < slopes.max() <= 0.1


def test_maps_compose_in_the_order_in_which_they_act():
    shift = Affine(jnp.eye(2), jnp.array([0.0, 2.0]))
    for maps in ((FLIP, shift), (shift, FLIP)):
        one_by_one = IMAGE
        for where in maps:
            one_by_one = read(one_by_one, where, new=(H, W))
        np.testing.assert_array_equal(read(IMAGE, compose(*maps), new=(H, W)), one_by_one)
    for part, same in zip(compose(), identity(), strict=True):
        np.testing.assert_array_equal(part, same)


# The camera


@pytest.mark.parametrize("lens", [False, True])
@pytest.mark.parametrize(
    "matrix",
    [np.diag([1.0, -1.0]), np.eye(2) / 2, np.array([[1.0, 0.0], [0.5, 1.0]]) / 2],
    ids=["flip", "zoom", "shear and zoom"],
)
def test_depths_and_normals_are_those_of_a_plane_before_the_camera(matrix, lens):
    size, focal, normal = (21, 21), 40.0, np.array([0.3, -0.2, 0.9])
    u = np.stack(np.meshgrid(*(np.arange(n) - (n - 1) / 2 for n in size), indexing="ij"), -1)

    def rays(focal):
        return np.stack([u[..., 1] / focal, u[..., 0] / focal, np.ones(size)], -1)

    depth = (1 / (rays(focal) @ normal)).astype(np.float32)  # normal · P = 1
    facing = np.broadcast_to(normal, (*size, 3)).astype(np.float32)
    where = Affine(jnp.asarray(matrix, jnp.float32), jnp.zeros(2))
    depths = moved("far", where, depth, size, size, lens)
    found = moved("facing", where, facing, size, size, lens)
    # Where the new image reads a pixel of the old one, and nothing between two.
    exact = (np.abs(u @ matrix.T % 1) < 1e-9).all(-1) & (depths > 0)
    assert exact.sum() >= 50
    np.testing.assert_allclose(np.linalg.norm(found, axis=-1)[exact], np.linalg.norm(normal), 1e-5)
    stretch = abs(np.linalg.det(matrix)) ** -0.5
    # With a longer lens the same points are seen at a longer focal length, but for the shear.
    points = depths[..., None] * rays(focal * stretch if lens else focal)
    along = (points * found).sum(-1)[exact]
    np.testing.assert_allclose(along, along[0], rtol=1e-5)
    expected = depth[10, 10] if lens else depth[10, 10] / stretch
    np.testing.assert_allclose(depths[10, 10], expected, rtol=1e-6)


# Pixels


def test_colour_keeps_what_each_factor_keeps():
    image, key = jnp.asarray(IMAGE), jax.random.key(3)

    @partial(jax.jit, static_argnames="which")
    def changed(image, which):
        none = {"brightness": 0.0, "contrast": 0.0, "saturation": 0.0}
        return colour(key, image, **{**none, which: 0.5})

    ratio = np.asarray(changed(image, "brightness")) / IMAGE
    assert abs(ratio[0, 0, 0] - 1) > 1e-3
    np.testing.assert_allclose(ratio, ratio[0, 0, 0], rtol=1e-5)
    far = np.asarray(changed(image, "contrast"))
    np.testing.assert_allclose(far.mean(), IMAGE.mean(), rtol=1e-5)
    ratio = (far - far.mean()) / (IMAGE - IMAGE.mean())
    assert abs(ratio[0, 0, 0] - 1) > 1e-3
    np.testing.assert_allclose(ratio, ratio[0, 0, 0], rtol=1e-3)
    deep = changed(image, "saturation")
    np.testing.assert_allclose(deep.mean(-1), IMAGE.mean(-1), rtol=1e-5)
    assert not np.allclose(deep, IMAGE, rtol=1e-3)
    np.testing.assert_array_equal(changed(image[..., 0], "saturation"), IMAGE[..., 0])


def test_cut_out_paints_a_square():
    draw = jax.jit(jax.vmap(lambda key: cut_out(key, jnp.ones((40, 20, 3)), value=-1.0)))
    sizes = set()
    for image in np.asarray(draw(jax.random.split(jax.random.key(0), 6))):
        hole = image == -1
        assert (hole == hole[..., :1]).all()
        rows, columns = np.nonzero(hole[..., 0].any(1))[0], np.nonzero(hole[..., 0].any(0))[0]
        assert hole[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        # Whole inside, and at least half of it in each direction where it passes an edge.
        assert 10 <= len(rows) <= 20
        assert 5 <= len(columns) <= 10
        sizes.add((rows[0], columns[0]))
    assert len(sizes) > 3


# Batches


def test_an_example_depends_on_its_key_and_row_alone():
    key = jax.random.key(0)
    whole = EVERY(key, SCENE)
    assert whole.inputs.shape == (B, 6, 8, 3)
    assert whole.labels["facing"].shape == (B, 6, 8, 3)
    # Rows 0 to 3 again, behind other ones.
    other = jax.tree.map(lambda x: np.concatenate([x[:4], x[:4]]), SCENE)
    for a, b in zip(jax.tree.leaves(EVERY(key, other)), jax.tree.leaves(whole), strict=True):
        np.testing.assert_array_equal(a[:4], b[:4])
    assert not np.allclose(EVERY(jax.random.key(1), SCENE).inputs, whole.inputs)
    same = jax.tree.map(lambda x: np.repeat(x[:1], B, 0), SCENE)
    assert len(np.unique(np.asarray(EVERY(key, same).inputs), axis=0)) == B


def test_keys_may_be_vmapped():
    augment = jax.jit(augmentation({}, moves=(flip,)))
    given = batch(jnp.arange(6.0).reshape(2, 1, 3), {})
    keys = jax.random.split(jax.random.key(0), 4)
    many = jax.vmap(augment, (0, None))(keys, given).inputs
    np.testing.assert_array_equal(many, [augment(key, given).inputs for key in keys])


def test_any_number_of_devices_gives_the_same():
    kinds = {name: KINDS[name] for name in ("far", "solids")}
    augment = augmentation(kinds, moves=(flip, partial(crop, pad=1)))
    key, devices = jax.random.key(5), jax.devices()[:4]
    expected = jax.device_get(jax.jit(augment)(key, SCENE))
    over = NamedSharding(Mesh(np.array(devices), ("data",)), PartitionSpec("data"))
    sharded = jax.jit(augment)(key, jax.device_put(SCENE, over))
    stacked = jax.tree.map(lambda x: x.reshape(4, B // 4, *x.shape[1:]), SCENE)
    on_one = lambda key, part: augment(key, part, "data")
    mapped = jax.pmap(on_one, "data", in_axes=(None, 0), devices=devices)(key, stacked)
    joined = jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), mapped)
    for found in (sharded, joined):
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)


# What does not fit


@pytest.mark.parametrize(
    ("kinds", "change", "message"),
    [
        ({"surfaces": "classes"}, {}, "no label 'surfaces'; did you mean 'surface'?"),
        ({"kind": "classes"}, {}, r"'kind', classes, is \[8, 7, 9\], got \(8,\)"),
        ({"far": "normals"}, {}, r"'far', normals, is \[8, 7, 9, 3\], got \(8, 7, 9\)"),
        ({"far": "boxes"}, {}, r"'far', boxes, is \[B, N, 5\], got \(8, 7, 9\)"),
        ({}, {"inputs": np.zeros((B, 5), "f")}, r"takes floating-point images .* got \(8, 5\)"),
        ({}, {"inputs": np.zeros((B, 5, 5), "u1")}, "takes floating-point images"),
    ],
)
def test_what_does_not_fit_is_refused(kinds, change, message):
    augment = augmentation(kinds, moves=(flip,))
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(augment, jax.random.key(0), SCENE._replace(**change))


def test_options_out_of_range_are_refused():
    with pytest.raises(ValueError, match="a kind of label must be one of classes, depth"):
        augmentation({"far": "depths"})
    with pytest.raises(ValueError, match=r"no window of \(9, 9\) lies in an image of \(7, 9\)"):
        crop(jax.random.key(0), (7, 9), (9, 9))
    with pytest.raises(ValueError, match="0 < low <= high, got 2 and 1"):
        zoom(jax.random.key(0), (7, 9), (7, 9), low=2, high=1)
