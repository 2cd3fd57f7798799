"""Encoders and heads: shapes, parameter counts by hand, values by NumPy, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmtl import nn, tasks
from jmtl.nn.encoders import GRU, ViT
from jmtl.nn.encoders.segnet import pool, unpool
from jmtl.nn.encoders.staged import flat, spans
from jmtl.nn.encoders.text import POOLS
from jmtl.nn.encoders.vgg import adaptive_mean
from tests.nn.tiny import TINY, tiny


def shapes_on(module, inputs):
    """Output and variables of an initialisation, as shapes."""
    init = lambda key, x: module.init_with_output(key, x, False)
    return jax.eval_shape(init, jax.random.key(0), inputs)


def shapes(module, shape):
    return shapes_on(module, jax.ShapeDtypeStruct(shape, jnp.float32))


def parameters(module, shape):
    return shapes(module, shape)[1]["params"]


def count(module, shape):
    return sum(leaf.size for leaf in jax.tree.leaves(parameters(module, shape)))


def block(inputs, width):
    """Parameters of a residual block: two convolutions, their norms, the shortcut's of each."""
    shortcut = 0 if inputs == width else inputs * width + 2 * width
    return 9 * inputs * width + 9 * width * width + 4 * width + shortcut


def stem(width):
    return 9 * width + 2 * width


@pytest.mark.parametrize(
    ("encoder", "shape", "features", "size"),
    [
        (nn.MLP(), (2, 10, 10), 64, 100 * 128 + 128 + 128 * 64 + 64),
        (nn.MLP(hidden=(7,), activation="tanh"), (2, 3), 7, 3 * 7 + 7),
        (nn.LeNet(), (2, 28, 28), 50, 25 * 10 + 10 + 25 * 10 * 20 + 20 + 320 * 50 + 50),
        (nn.LeNet(), (2, 16, 16, 3), 50, 25 * 3 * 10 + 10 + 25 * 10 * 20 + 20 + 20 * 50 + 50),
        (nn.ResNet(widths=(4,), blocks=(1,)), (2, 6, 6), 4, stem(4) + block(4, 4)),
        (
            nn.ResNet(widths=(4, 8), blocks=(1, 1)),
            (2, 6, 6, 1),
            8,
            stem(4) + block(4, 4) + block(4, 8),
        ),
        (nn.ResNet(), (2, 10, 10), 64, stem(16) + block(16, 16) + block(16, 32) + block(32, 64)),
    ],
)
def test_shapes_and_parameter_counts(encoder, shape, features, size):
    assert shapes(encoder, shape)[0].shape == (2, features)
    assert count(encoder, shape) == size


@pytest.mark.parametrize(
    ("name", "features", "size"),
    [
        ("resnet18", 512, 11_689_512),
        ("resnet34", 512, 21_797_672),
        ("resnet50", 2048, 25_557_032),
        ("vgg16", 4096, 138_357_544),
    ],
)
def test_torchvisions_architectures_have_its_number_of_parameters(name, features, size):
    encoder, shape = nn.make_encoder(name), (2, 224, 224, 3)
    assert shapes(encoder, shape)[0].shape == (2, features)
    classifier = 1000 * features + 1000
    assert count(encoder, shape) + classifier == size


def test_segnet_has_the_number_of_parameters_that_its_papers_count():
    segmentation = 9 * 64 * 64 + 64 + 13 * 64 + 13  # their head for 13 classes
    assert count(nn.make_encoder("segnet"), (2, 288, 384, 3)) + segmentation == 24_981_069


def test_parameters_have_torchvisions_names():
    resnet = parameters(nn.make_encoder("resnet50"), (1, 64, 64, 3))
    assert {"conv1", "bn1", "layer1_0", "layer4_2"} <= set(resnet)
    assert set(resnet["layer2_0"]) == {
        *("conv1", "conv2", "conv3", "bn1", "bn2", "bn3", "downsample_0", "downsample_1")
    }
    assert set(resnet["layer2_1"]) == {"conv1", "conv2", "conv3", "bn1", "bn2", "bn3"}
    assert resnet["conv1"]["kernel"].shape == (7, 7, 3, 64)
    assert resnet["layer2_0"]["conv2"]["kernel"].shape == (3, 3, 128, 128)
    vgg = parameters(nn.make_encoder("vgg16"), (1, 32, 32, 3))
    convolutions = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28)
    names = {f"features_{i}" for i in convolutions} | {"classifier_0", "classifier_3"}
    assert set(vgg) == names
    assert vgg["classifier_0"]["kernel"].shape == (512 * 7 * 7, 4096)


@pytest.mark.parametrize("name", sorted(nn.ENCODERS))
def test_parameters_and_statistics_stay_float32_in_half_precision(name):
    encoder, x = tiny(name, dtype="bfloat16")
    variables = jax.eval_shape(lambda key: encoder.init(key, x, False), jax.random.key(0))
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))
    rngs = {"dropout": jax.random.key(0)}
    train = lambda v: encoder.apply(v, x, True, mutable=["batch_stats"], rngs=rngs)
    output, state = jax.eval_shape(train, variables)
    assert all(leaf.dtype == jnp.bfloat16 for leaf in jax.tree.leaves(output))
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(state))


SAME_CODE = {"deeplab", "resnet", "resnet18", "resnet34", "vit"}  # as resnet50, transformer


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=pytest.mark.slow if n in SAME_CODE else ()) for n in sorted(TINY)],
)
def test_stages_one_after_the_other_are_the_encoder(name):
    encoder, x = tiny(name, dropout=0.5) if name != "segnet" else tiny(name)
    rngs = {"dropout": jax.random.key(1)}

    @jax.jit
    def both(key):
        variables = encoder.init(key, x, False)
        run = lambda x, blocks: encoder.apply(
            variables, x, True, blocks, rngs=rngs, mutable=["batch_stats"]
        )
        parts, own = x, {}
        stages, neck = spans(encoder)
        for blocks in (*stages, neck):
            init = lambda x, blocks=blocks: encoder.init(jax.random.key(0), x, False, blocks)
            names = jax.eval_shape(init, parts).get("params", {})
            assert not own.keys() & names.keys()
            own |= names
            parts, state = run(parts, blocks)
        assert jax.tree.structure(own) == jax.tree.structure(variables.get("params", {}))
        whole, moved = run(x, None)
        # Running statistics of other stages pass through as they are.
        assert jax.tree.structure(state) == jax.tree.structure(moved)
        return whole, parts

    for one, other in zip(*map(jax.tree.leaves, both(jax.random.key(0))), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)


def test_a_head_is_at_least_float32():
    head = nn.DenseHead(3, hidden=(4,), dtype="bfloat16")
    assert head.init_with_output(jax.random.key(0), jnp.zeros((2, 5)), False)[0].dtype == "float32"


def test_mlp_is_the_formula():
    x = jax.random.normal(jax.random.key(0), (3, 2, 2))
    encoder = nn.MLP(hidden=(5, 4), activation="tanh")
    variables = encoder.init(jax.random.key(1), x, False)
    expected = np.asarray(x, np.float64).reshape(3, 4)
    for layer in ("Dense_0", "Dense_1"):
        p = variables["params"][layer]
        p = jax.tree.map(lambda x: np.asarray(x, np.float64), p)
        expected = np.tanh(expected @ p["kernel"] + p["bias"])
    np.testing.assert_allclose(encoder.apply(variables, x, False), expected, rtol=1e-5, atol=1e-6)


def test_a_residual_block_with_zero_convolutions_passes_its_input_on():
    # Zero kernels make batch norm's output its bias, 0: what is left is the shortcut.
    x = jax.random.normal(jax.random.key(0), (2, 4, 4, 1))
    encoder = nn.ResNet(widths=(3,), blocks=(2,))
    variables = encoder.init(jax.random.key(1), x, False)
    stem = variables["params"]["conv1"]["kernel"]
    params = jax.tree.map(jnp.zeros_like, variables["params"]) | {
        "conv1": {"kernel": stem},
        "bn1": variables["params"]["bn1"],
    }
    actual = encoder.apply({**variables, "params": params}, x, False)
    convolved = jax.lax.conv_general_dilated(
        x, stem, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    expected = jax.nn.relu(convolved / np.sqrt(1 + 1e-5)).mean((1, 2))
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


def test_deeplab_is_resnet50_on_a_map_eight_times_smaller():
    # Thus torchvision's weights of the one are those of the other.
    shape = (1, 64, 96, 3)
    (found, variables), (_, plain) = (
        shapes(nn.make_encoder(name), shape) for name in ("deeplab", "resnet50")
    )
    assert {part: x.shape for part, x in found.items()} == {
        "map": (1, 8, 12, 2048),
        "vector": (1, 2048),
    }
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, plain)


@pytest.mark.parametrize("block", ["basic", pytest.param("bottleneck", marks=pytest.mark.slow)])
def test_dilation_keeps_the_features_of_the_strides_it_replaces(block):
    # À trous: at every second position, the same sums over the same pixels.
    options = {"widths": (2, 3, 4), "blocks": (1, 2, 2), "block": block, "dense": True}
    x = jax.random.normal(jax.random.key(0), (2, 16, 16, 1))
    strided, dilated = (nn.ResNet(**options, output_stride=s) for s in (None, 2))

    @jax.jit
    def both(key):
        variables = strided.init(key, x, False)
        return [encoder.apply(variables, x, False)["map"] for encoder in (strided, dilated)]

    coarse, fine = both(jax.random.key(1))
    assert fine.shape == (2, 8, 8, 16 if block == "bottleneck" else 4)
    np.testing.assert_allclose(fine[:, ::2, ::2], coarse, rtol=1e-5, atol=1e-6)


def test_a_large_stem_pads_alike_on_all_sides():
    x = np.random.default_rng(0).normal(size=(1, 8, 8, 1)).astype(np.float32)
    encoder = nn.ResNet(widths=(1,), blocks=(1,), stem="large", dense=True)
    variables = encoder.init(jax.random.key(0), jnp.asarray(x), False)
    stages, _ = spans(encoder)
    stem = encoder.apply(variables, x, False, range(1))
    kernel = np.asarray(variables["params"]["conv1"]["kernel"], np.float64)[:, :, 0, 0]
    padded = np.pad(x[0, :, :, 0].astype(np.float64), 3)
    sums = [
        [(padded[i : i + 7, j : j + 7] * kernel).sum() for j in (0, 2, 4, 6)] for i in (0, 2, 4, 6)
    ]
    normed = np.pad(np.maximum(np.array(sums) / np.sqrt(1 + 1e-5), 0), 1)
    largest = [[normed[i : i + 3, j : j + 3].max() for j in (0, 2)] for i in (0, 2)]
    np.testing.assert_allclose(stem[0, :, :, 0], largest, rtol=1e-4, atol=1e-5)
    assert stages[0] == range(2)


@pytest.mark.parametrize(("height", "width", "side"), [(3, 5, 2), (1, 7, 7), (4, 4, 4), (9, 2, 3)])
def test_adaptive_means_are_torchs(height, width, side):
    x = np.random.default_rng(0).normal(size=(2, height, width, 3))
    cell = lambda i, n: slice(int(np.floor(i * n / side)), int(np.ceil((i + 1) * n / side)))
    expected = np.zeros((2, side, side, 3))
    for i in range(side):
        for j in range(side):
            expected[:, i, j] = x[:, cell(i, height), cell(j, width)].mean((1, 2))
    actual = adaptive_mean(jnp.asarray(x, jnp.float32), side)
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


def test_an_unpool_puts_back_what_the_pool_found():
    x = np.random.default_rng(0).normal(size=(2, 4, 6, 3)).astype(np.float32)
    pooled, choice = pool(jnp.asarray(x))
    back, pooled = np.asarray(unpool(pooled, choice)), np.asarray(pooled)
    for b, i, j, c in np.ndindex(2, 2, 3, 3):
        cell = x[b, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2, c]
        assert pooled[b, i, j, c] == cell.max()
        expected = np.where(cell == cell.max(), cell, 0)
        np.testing.assert_array_equal(back[b, 2 * i : 2 * i + 2, 2 * j : 2 * j + 2, c], expected)
    # Of equals, as after a ReLU, one is chosen.
    assert pool(jnp.zeros((1, 2, 2, 1)))[1].sum() == 1


TEXT = jnp.array([[3, 1, 2, 0], [4, 0, 0, 0], [5, 6, 7, 8], [0, 0, 0, 0]])


@pytest.mark.parametrize("name", ["gru", "transformer"])
def test_padding_changes_nothing(name):
    encoder = nn.make_encoder(name, vocabulary=9, width=4, layers=1)
    mask = TEXT != 0

    @jax.jit
    def run(key):
        variables = encoder.init(key, TEXT, False)
        answer = lambda inputs: encoder.apply(variables, inputs, False)
        noise = {"tokens": jnp.where(mask, TEXT, 8), "mask": mask}
        return answer(TEXT), answer(noise), answer(TEXT[:2, :3])

    given, noise, short = run(jax.random.key(0))
    for part in ("sequence", "vector"):
        np.testing.assert_array_equal(given[part], noise[part])
        assert np.isfinite(given[part]).all()
    assert (given["sequence"] == 0).all(-1)[~mask].all()
    # Fewer places for padding: the same sentence.
    np.testing.assert_allclose(short["vector"], given["vector"][:2], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(short["sequence"], given["sequence"][:2, :3], rtol=1e-5, atol=1e-6)


def test_a_recurrent_layer_is_the_formula():
    encoder = GRU(vocabulary=9, width=3, bidirectional=True, pool="last")
    init = jax.jit(lambda key: encoder.init_with_output(key, TEXT, False))
    answer, variables = init(jax.random.key(0))
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), variables["params"])
    sigmoid = lambda x: 1 / (1 + np.exp(-x))

    def step(p, h, x):
        dense = lambda gate, y: y @ p[gate]["kernel"] + p[gate].get("bias", 0)
        r, z = (sigmoid(dense("i" + g, x) + dense("h" + g, h)) for g in "rz")
        n = np.tanh(dense("in", x) + r * dense("hn", h))
        return (1 - z) * n + z * h

    x = params["embedding"]["embedding"][np.asarray(TEXT[0, :3])]
    forward, backward = [np.zeros(3)], [np.zeros(3)]
    for i in range(3):
        forward.append(step(params["layer0_forward"], forward[-1], x[i]))
        backward.append(step(params["layer0_backward"], backward[-1], x[2 - i]))
    expected = np.concatenate([forward[1:], backward[:0:-1]], axis=1)
    np.testing.assert_allclose(answer["sequence"][0, :3], expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(answer["vector"][0], answer["sequence"][0, 2])


def test_pools_of_a_sequence():
    x = jnp.arange(1.0, 7.0).reshape(2, 3, 1) * jnp.array([[[1.0, -1.0]]])
    mask = jnp.array([[True, True, False], [False, False, False]])[..., None]
    pooled = {name: pool(x, mask) for name, pool in POOLS.items()}
    np.testing.assert_allclose(pooled["mean"], [[1.5, -1.5], [0, 0]])
    np.testing.assert_allclose(pooled["max"], [[2, -1], [0, 0]])
    np.testing.assert_allclose(pooled["first"], x[:, 0])
    np.testing.assert_allclose(pooled["last"][0], [2, -2])


def test_what_a_gate_reads():
    text = nn.make_encoder("gru", vocabulary=9).gate_inputs(jnp.array([[3, 3, 1, 0], [0] * 4]))
    expected = np.zeros((2, 9))
    expected[0, [3, 1]] = 2 / 3, 1 / 3
    np.testing.assert_allclose(text, expected)
    given = {"a": jnp.ones((2, 3, 1)), "b": jnp.zeros((2, 2))}
    np.testing.assert_array_equal(nn.MLP().gate_inputs(given), [[1, 1, 1, 0, 0]] * 2)


@pytest.mark.parametrize(
    ("name", "spread"),
    [("he_normal", 2 / 400), ("lecun_normal", 1 / 400), ("glorot_uniform", 2 / 700)],
)
def test_initialisers_by_name(name, spread):
    encoder = nn.MLP(hidden=(300,), kernel_init=name)
    params = encoder.init(jax.random.key(0), jnp.zeros((1, 400)), False)["params"]["Dense_0"]
    np.testing.assert_allclose(params["kernel"].var(), spread, rtol=0.02)
    np.testing.assert_array_equal(params["bias"], 0)


def test_heads_answer_what_their_tasks_ask():
    given = (
        tasks.classification("kind", 7),
        tasks.regression("place", dim=2),
        tasks.regression("own")._replace(head=nn.DenseHead(1, hidden=(3,))),
    )
    heads = nn.make_heads(given, hidden=(5,))
    assert list(heads) == ["kind", "place", "own"]
    assert count(heads["kind"], (2, 4)) == 4 * 5 + 5 + 5 * 7 + 7
    assert count(heads["place"], (2, 4)) == 4 * 5 + 5 + 5 * 2 + 2
    assert count(heads["own"], (2, 4)) == 4 * 3 + 3 + 3 + 1


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: nn.make_encoder("lennet"), "unknown encoder 'lennet'; did you mean 'lenet'"),
        (lambda: nn.make_encoder("mlp", hiden=(3,)), "no option 'hiden'; did you mean 'hidden'"),
        (lambda: nn.make_head(tasks.Head("clasification", 3)), "did you mean 'classification'"),
        (lambda: nn.make_heads([tasks.regression("a")] * 2), "2 tasks are named 'a'"),
        (lambda: parameters(nn.MLP(kernel_init="he"), (1, 2)), "unknown initialiser 'he'"),
        (lambda: parameters(nn.MLP(activation="rely"), (1, 2)), "did you mean 'relu'"),
        (lambda: parameters(nn.LeNet(), (1, 10, 10)), r"at least 16×16, got \(1, 10, 10\)"),
        (lambda: parameters(nn.ResNet(), (1, 100)), r"takes images .* got \(1, 100\)"),
        (lambda: parameters(nn.ResNet(blocks=(1,)), (1, 8, 8)), "one entry a stage"),
        (lambda: nn.model(nn.MLP(), {}), "at least one head"),
        (lambda: nn.make_encoder("gru"), "gru needs the option 'vocabulary'"),
        (lambda: nn.make_encoder("resnet18", width=3), "did you mean 'widths'"),
        (lambda: parameters(nn.ResNet(block="basics"), (1, 8, 8)), "block must be one of basic"),
        (
            lambda: parameters(nn.ResNet(stem="large", output_stride=2), (1, 8, 8)),
            "output_stride must be at least 4, the stem's own, got 2",
        ),
        (
            lambda: parameters(nn.make_encoder("vgg16"), (1, 16, 16)),
            "vgg takes images .* at least 32×32",
        ),
        (
            lambda: parameters(nn.make_encoder("vgg16", widths=(3,)), (1, 16, 16)),
            "one entry a stage",
        ),
        (
            lambda: parameters(nn.make_encoder("segnet"), (1, 48, 64)),
            "multiples of 32, got 48×64",
        ),
        (
            lambda: parameters(nn.make_encoder("segnet", widths=(3,)), (1, 16, 16)),
            "one entry a level",
        ),
        (lambda: parameters(ViT(patch=3), (1, 8, 8)), "patches of 3 do not divide images of 8×8"),
        (lambda: parameters(ViT(heads=5), (1, 8, 8)), "width of 64 does not divide into 5"),
        (
            lambda: shapes_on(
                nn.make_encoder("transformer", vocabulary=3, max_length=2), jnp.ones((1, 3), int)
            ),
            "has 3 tokens, and max_length is 2",
        ),
        (
            lambda: shapes_on(GRU(3, pool="sum"), jnp.ones((1, 3), int)),
            "pool must be one of mean, max",
        ),
        (lambda: parameters(GRU(3), (1, 4)), r"integers \[B, T\], got float32 \(1, 4\)"),
        (
            lambda: shapes_on(GRU(3), {"tokens": jnp.ones((1, 3), int), "mask": jnp.ones((1, 3))}),
            r"is booleans \(1, 3\), got float32",
        ),
        (lambda: flat(jnp.ones((2, 3), int)), "a gate reads floating-point inputs, got int32"),
    ],
)
def test_errors_name_what_was_meant(build, message):
    with pytest.raises(ValueError, match=message) as error:
        build()
    assert "\n" not in str(error.value)
