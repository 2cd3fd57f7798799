import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen
from jax import lax

from jmtl.nn import convolution
from jmtl.nn.convolution import conv_general_dilated, conv_max_pool, image_conv, pooled_conv

IMAGES = {"dimension_numbers": ("NHWC", "HWIO", "NHWC")}


@pytest.mark.parametrize(
    ("kernel", "strides", "padding", "dilation"),
    [
        ((3, 3), (1, 1), "SAME", (1, 1)),
        ((5, 5), (1, 1), "VALID", (1, 1)),
        ((1, 1), (2, 2), ((0, 0), (0, 0)), (1, 1)),
        ((7, 7), (2, 2), ((3, 3), (3, 3)), (1, 1)),
        ((3, 2), (2, 1), "SAME", (2, 3)),
        ((4, 4), (4, 4), "VALID", (1, 1)),
        ((2, 3), (3, 2), ((0, 2), (1, 0)), (1, 1)),
    ],
)
def test_products_of_matrices_are_the_convolution(kernel, strides, padding, dilation):
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (2, 11, 13, 3))
    w = jax.random.normal(keys[1], (*kernel, 3, 4))

    def pulled(conv):
        def run(x, w):
            y, back = jax.vjp(
                lambda x, w: conv(x, w, strides, padding, rhs_dilation=dilation, **IMAGES), x, w
            )
            return y, back(jax.random.normal(keys[2], y.shape))

        return jax.jit(run)(x, w)

    found, expected = pulled(conv_general_dilated), pulled(lax.conv_general_dilated)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("spread", [False, True])
def test_gradients_image_by_image_are_those_of_all(spread, monkeypatch):
    """Their own gradients too, over many kernels, and over devices."""
    keys = jax.random.split(jax.random.key(0), 2)
    x = jax.random.normal(keys[0], (4, 6, 5, 3))
    kernels = jax.random.normal(keys[1], (2, 3, 3, 3, 4))

    def loss(w, x):
        return jnp.sum(conv_general_dilated(x, w, (2, 1), "SAME", **IMAGES) ** 3)

    def gradients(w, x):
        first = jax.grad(loss, (0, 1))
        _, second = jax.jvp(lambda w: first(w, x), (w,), (w,))
        return (first(w, x)[0], second[0]), (first(w, x)[1], second[1])

    def many(w, x):
        return jax.vmap(gradients, (0, None))(w, x)

    def devices(w, x):
        axes = (jax.sharding.AxisType.Auto,)
        mesh = jax.make_mesh((2,), ("d",), devices=jax.devices()[:2], axis_types=axes)
        spec = jax.sharding.PartitionSpec("d")
        whole = jax.sharding.PartitionSpec()
        cut = jax.shard_map(gradients, mesh=mesh, in_specs=(whole, spec), out_specs=(whole, spec))
        return cut(w[0], x)

    ways, texts = [], []
    for limit in (2**21, 1):
        monkeypatch.setattr(convolution, "COLUMNS", limit)
        way = jax.jit(lambda w, x: (devices if spread else many)(w, x))
        ways.append(way(kernels, x))
        texts.append(str(jax.make_jaxpr(jax.grad(loss, (0, 1)))(kernels[0], x)))
    assert ["scan" in text for text in texts] == [False, True]
    for a, b in zip(*map(jax.tree.leaves, ways), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-4)


def test_groups_and_transposed_convolutions_are_jaxs_own():
    x, w = jnp.ones((1, 5, 5, 4)), jnp.ones((3, 3, 2, 4))
    groups = {"feature_group_count": 2, **IMAGES}
    found = conv_general_dilated(x, w, (1, 1), "SAME", **groups)
    np.testing.assert_array_equal(found, lax.conv_general_dilated(x, w, (1, 1), "SAME", **groups))
    wide = {"lhs_dilation": (2, 2), **IMAGES}
    w = jnp.ones((3, 3, 4, 4))
    found = conv_general_dilated(x, w, (1, 1), ((2, 2), (2, 2)), **wide)
    assert found.shape == (1, 11, 11, 4)


def test_no_convolution_is_left_in_a_program_on_a_cpu():
    layer = image_conv(4, (3, 3))
    x = jnp.ones((1, 5, 5, 2), jnp.bfloat16)
    params = layer.init(jax.random.key(0), x)
    assert params["params"]["kernel"].shape == (3, 3, 2, 4)
    text = str(jax.make_jaxpr(lambda p: layer.apply(p, x))(params))
    assert "dot_general" in text
    assert "conv_general_dilated[" not in text


def plain(window):
    def run(x, w):
        y = lax.conv_general_dilated(x, w, (1, 1), "VALID", **IMAGES)
        return linen.max_pool(y, (window, window), strides=(window, window))

    return run


@pytest.mark.parametrize(
    ("shape", "size", "window", "whole"),
    [((3, 28, 28, 1), 5, 2, False), ((2, 11, 13, 3), 3, 3, False), ((2, 9, 8, 2), 2, 2, True)],
)
def test_a_pooled_convolution_is_the_pool_of_the_convolution(shape, size, window, whole):
    """Of whole numbers many are equal: the first has the gradient."""
    keys = jax.random.split(jax.random.key(0), 3)
    draw = (
        (lambda key, shape: jax.random.randint(key, shape, -1, 2).astype(float))
        if whole
        else (jax.random.normal)
    )
    x, w = draw(keys[0], shape), draw(keys[1], (size, size, shape[-1], 4))

    def pulled(conv):
        def run(x, w):
            y, back = jax.vjp(conv, x, w)
            return y, back(jax.random.normal(keys[2], y.shape))

        return jax.jit(run)(x, w)

    found = pulled(lambda x, w: conv_max_pool(x, w, window))
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(pulled(plain(window))), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_a_pooled_convolution_keeps_what_is_no_number_and_is_differentiated_forwards():
    x, w = jnp.ones((1, 6, 6, 1)), jnp.ones((3, 3, 1, 2))
    broken = conv_max_pool(x.at[0, 0, 0, 0].set(jnp.nan), w)
    assert jnp.isnan(broken[0, 0, 0]).all()
    assert jnp.isfinite(broken[0, 1, 1]).all()
    _, moved = jax.jvp(lambda w: conv_max_pool(x, w), (w,), (w,))
    np.testing.assert_array_equal(moved, np.full((1, 2, 2, 2), 9.0))


def test_the_layer_has_the_parameters_of_a_convolution_and_no_window_is_reduced_on_a_cpu():
    class Layer(linen.Module):
        @linen.compact
        def __call__(self, x):
            return pooled_conv(x, 2, 3, name="conv")

    x = jax.random.normal(jax.random.key(0), (2, 10, 7, 1))
    params = Layer().init(jax.random.key(0), x)["params"]["conv"]
    params["bias"] += jnp.array([1.0, -2.0])
    expected = plain(2)(x, params["kernel"]) + params["bias"].reshape(1, 1, 1, 2)
    run = lambda x: Layer().apply({"params": {"conv": params}}, x)
    np.testing.assert_allclose(run(x), expected, rtol=1e-5, atol=1e-5)
    text = str(jax.make_jaxpr(run)(x))
    assert "reduce_window" not in text
    assert "conv_general_dilated[" not in text
