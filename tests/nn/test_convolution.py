import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jmtl.nn.convolution import conv_general_dilated, image_conv

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
