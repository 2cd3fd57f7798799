"""Encoders and heads: shapes, parameter counts by hand, values by NumPy, errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jmtl import nn, tasks


def shapes(module, shape):
    """Output and variables of an initialisation, as shapes."""
    init = lambda key, x: module.init_with_output(key, x, False)
    return jax.eval_shape(init, jax.random.key(0), jax.ShapeDtypeStruct(shape, jnp.float32))


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


@pytest.mark.parametrize("name", sorted(nn.ENCODERS))
def test_parameters_and_statistics_stay_float32_in_half_precision(name):
    encoder, x = nn.make_encoder(name, dtype="bfloat16"), jnp.zeros((2, 16, 16))
    _, variables = shapes(encoder, x.shape)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))
    train = lambda v: encoder.apply(v, x, True, mutable=["batch_stats"])
    output, state = jax.eval_shape(train, variables)
    assert output.dtype == jnp.bfloat16
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(state))
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
    stem = variables["params"]["Conv_0"]["kernel"]
    params = jax.tree.map(jnp.zeros_like, variables["params"]) | {
        "Conv_0": {"kernel": stem},
        "BatchNorm_0": variables["params"]["BatchNorm_0"],
    }
    actual = encoder.apply({**variables, "params": params}, x, False)
    convolved = jax.lax.conv_general_dilated(
        x, stem, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    expected = jax.nn.relu(convolved / np.sqrt(1 + 1e-5)).mean((1, 2))
    np.testing.assert_allclose(actual, expected, rtol=1e-5, atol=1e-6)


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
    ],
)
def test_errors_name_what_was_meant(build, message):
    with pytest.raises(ValueError, match=message) as error:
        build()
    assert "\n" not in str(error.value)
