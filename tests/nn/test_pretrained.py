"""Weights in torchvision's names: the same outputs as its definition, written here in NCHW."""

import json
import struct

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from jmtl import nn
from jmtl.nn.pretrained import from_torchvision, read_safetensors, torchvision_name

CODES = {"float32": "F32", "float16": "F16", "int64": "I64", "bfloat16": "BF16"}


def write(path, arrays, metadata=None, pad=0):
    """The documented format: the header's length, the header, the bytes."""
    header, at = {} if metadata is None else {"__metadata__": metadata}, 0
    for name, x in arrays.items():
        header[name] = {
            "dtype": CODES[x.dtype.name],
            "shape": list(x.shape),
            "data_offsets": [at, at + x.nbytes],
        }
        at += x.nbytes
    text = json.dumps(header).encode() + b" " * pad
    data = b"".join(np.ascontiguousarray(x).tobytes() for x in arrays.values())
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)
    return path


# torchvision's definitions, by its own names and in its own order of axes. `w` maps names to
# arrays; given None for them, the same walk makes them.


class Weights(dict):
    """Arrays by name, drawn the first time that a forward pass asks for them."""

    def __init__(self, seed=0):
        super().__init__()
        self.rng = np.random.default_rng(seed)

    def draw(self, name, shape, centre, spread):
        if name not in self:
            self[name] = (centre + spread * self.rng.standard_normal(shape)).astype(np.float32)
        return self[name]

    def positive(self, name, shape):
        return self.setdefault(name, self.rng.uniform(0.5, 2, shape).astype(np.float32))


def conv(w, name, x, wide, size, stride=1, bias=False):
    shape = (wide, x.shape[1], size, size)
    kernel = w.draw(f"{name}.weight", shape, 0, (2 / (shape[1] * size**2)) ** 0.5)
    pads = [(size // 2, size // 2)] * 2
    dims = ("NCHW", "OIHW", "NCHW")
    y = lax.conv_general_dilated(x, kernel, (stride, stride), pads, dimension_numbers=dims)
    return y + w.draw(f"{name}.bias", (wide,), 0, 0.1)[None, :, None, None] if bias else y


def norm(w, name, x):
    shape = (x.shape[1],)
    gain, bias = w.draw(f"{name}.weight", shape, 1, 0.1), w.draw(f"{name}.bias", shape, 0, 0.1)
    mean = w.draw(f"{name}.running_mean", shape, 0, 0.1)
    var = w.positive(f"{name}.running_var", shape)
    w[f"{name}.num_batches_tracked"] = np.array(7)
    scale, shift, mean = (a[None, :, None, None] for a in (gain / np.sqrt(var + 1e-5), bias, mean))
    return (x - mean) * scale + shift


def pool(x, size, stride, pad):
    window, strides = (1, 1, size, size), (1, 1, stride, stride)
    pads = [(0, 0), (0, 0), (pad, pad), (pad, pad)]
    return lax.reduce_window(x, -jnp.inf, lax.max, window, strides, pads)


def relu(x):
    return jnp.maximum(x, 0)


def basic(w, name, x, wide, stride):
    y = relu(norm(w, f"{name}.bn1", conv(w, f"{name}.conv1", x, wide, 3, stride)))
    y = norm(w, f"{name}.bn2", conv(w, f"{name}.conv2", y, wide, 3))
    return relu(y + shortcut(w, name, x, wide, stride))


def bottleneck(w, name, x, wide, stride):
    y = relu(norm(w, f"{name}.bn1", conv(w, f"{name}.conv1", x, wide, 1)))
    y = relu(norm(w, f"{name}.bn2", conv(w, f"{name}.conv2", y, wide, 3, stride)))
    y = norm(w, f"{name}.bn3", conv(w, f"{name}.conv3", y, 4 * wide, 1))
    return relu(y + shortcut(w, name, x, 4 * wide, stride))


def shortcut(w, name, x, wide, stride):
    if stride == 1 and x.shape[1] == wide:
        return x
    return norm(w, f"{name}.downsample.1", conv(w, f"{name}.downsample.0", x, wide, 1, stride))


def resnet(w, x, block, blocks, widths):
    x = pool(relu(norm(w, "bn1", conv(w, "conv1", x, widths[0], 7, 2))), 3, 2, 1)
    for i, (count, wide) in enumerate(zip(blocks, widths, strict=True)):
        for j in range(count):
            x = block(w, f"layer{i + 1}.{j}", x, wide, 2 if i > 0 and j == 0 else 1)
    w["fc.weight"], w["fc.bias"] = np.zeros((5, x.shape[1]), "f"), np.zeros(5, "f")
    return x.mean((2, 3))


def vgg(w, x, widths, dense):
    index = 0
    for wide, count in zip(widths, (2, 2, 3, 3, 3), strict=True):
        for _ in range(count):
            x = relu(conv(w, f"features.{index}", x, wide, 3, bias=True))
            index += 2
        x, index = pool(x, 2, 2, 0), index + 1
    # The adaptive pool to 7×7 of a map that divides it, or repeats evenly into it.
    x = jnp.repeat(jnp.repeat(x, 7 // x.shape[2], 2), 7 // x.shape[3], 3).reshape(len(x), -1)
    for i, wide in enumerate(dense):
        shape = (wide, x.shape[1])
        kernel = w.draw(f"classifier.{3 * i}.weight", shape, 0, (2 / shape[1]) ** 0.5)
        x = relu(x @ kernel.T + w.draw(f"classifier.{3 * i}.bias", (wide,), 0, 0.1)[None])
    w["classifier.6.weight"], w["classifier.6.bias"] = np.zeros((5, dense[-1]), "f"), np.zeros(5)
    w["classifier.6.bias"] = w["classifier.6.bias"].astype("f")
    return x


NARROW = (8, 12, 16, 24)
CASES = {
    "resnet18": (lambda w, x: resnet(w, x, basic, (2, 2, 2, 2), NARROW), {"widths": NARROW}),
    "resnet34": (lambda w, x: resnet(w, x, basic, (3, 4, 6, 3), NARROW), {"widths": NARROW}),
    "resnet50": (lambda w, x: resnet(w, x, bottleneck, (3, 4, 6, 3), NARROW), {"widths": NARROW}),
    "vgg16": (
        lambda w, x: vgg(w, x, (4, 6, 8, 8, 8), (16, 12)),
        {"widths": (4, 6, 8, 8, 8), "classifier": (16, 12)},
    ),
}


def images(shape=(2, 32, 32, 3)):
    return jnp.asarray(np.random.default_rng(1).standard_normal(shape), jnp.float32)


def variables(encoder, x):
    """Parameters and state of an encoder as `jmtl.nn.Model` has them, shapes only."""
    found = jax.eval_shape(lambda key: encoder.init(key, x, False), jax.random.key(0))
    return found["params"], {name: tree for name, tree in found.items() if name != "params"}


@pytest.mark.parametrize(
    "name",
    [
        # resnet18 has the stem and the basic blocks of resnet34.
        pytest.param(name, marks=[pytest.mark.slow] if name == "resnet34" else [])
        for name in CASES
    ],
)
def test_outputs_are_those_of_torchvisions_definition(name, tmp_path):
    reference, options = CASES[name]
    encoder, x, weights = nn.make_encoder(name, **options), images(), Weights()
    expected = reference(weights, jnp.moveaxis(x, -1, 1))
    arrays = read_safetensors(write(tmp_path / "w.safetensors", weights))
    params, state = from_torchvision(arrays, *variables(encoder, x))
    found = encoder.apply({"params": params, **state}, x, False)
    assert float(jnp.abs(expected).max()) > 0.1
    np.testing.assert_allclose(found, expected, atol=1e-4, rtol=0)
    leaves = jax.tree.leaves((params, state))
    read = [n for n in weights if not n.startswith(("fc", "classifier.6")) and "num_b" not in n]
    assert len(leaves) == len(read)
    assert all(isinstance(leaf, jax.Array) and leaf.dtype == jnp.float32 for leaf in leaves)


def test_state_without_statistics_is_left_as_it_is(tmp_path):
    encoder, x, weights = nn.make_encoder("vgg16", **CASES["vgg16"][1]), images(), Weights()
    CASES["vgg16"][0](weights, jnp.moveaxis(x, -1, 1))
    _, state = from_torchvision(weights, variables(encoder, x)[0], {"other": 3})
    assert state == {"other": 3}


def test_what_does_not_fit_is_listed_in_one_message():
    encoder, x, weights = nn.make_encoder("resnet18", widths=NARROW), images(), Weights()
    CASES["resnet18"][0](weights, jnp.moveaxis(x, -1, 1))
    del weights["layer1.0.bn1.running_var"]
    weights["layer9.0.weight"] = weights["bn1.weight"]
    weights["conv1.weight"] = weights["conv1.weight"][:, :1]
    weights["bn1.bias"] = weights["bn1.bias"].astype(int)
    with pytest.raises(ValueError, match="missing") as error:
        from_torchvision(weights, *variables(encoder, x))
    assert str(error.value) == (
        "missing: layer1.0.bn1.running_var; "
        "of another kind: bn1.bias (int64 [8], expected [8]), "
        "conv1.weight (float32 [8, 1, 7, 7], expected [8, 3, 7, 7]); "
        "without a place: layer9.0.weight"
    )


def test_many_that_do_not_fit_are_counted():
    encoder = nn.make_encoder("resnet18", widths=NARROW)
    with pytest.raises(
        ValueError, match=r"^missing: bn1\.bias, bn1.weight, conv1.weight, .* and 92 more$"
    ):
        from_torchvision({}, *variables(encoder, images()))


@pytest.mark.parametrize(
    ("path", "name"),
    [
        (("conv1", "kernel"), "conv1.weight"),
        (("layer2_0", "downsample_1", "var"), "layer2.0.downsample.1.running_var"),
        (("features_28", "bias"), "features.28.bias"),
        (("layer1_0", "bn3", "scale"), "layer1.0.bn3.weight"),
    ],
)
def test_names(path, name):
    assert torchvision_name(path) == name


def test_a_file_is_read_as_it_was_written(tmp_path):
    arrays = {
        "empty": np.zeros((0, 3), np.float32),
        "number": np.array(-2.5, np.float16),
        "odd": np.arange(6, dtype=np.float32).reshape(2, 3).astype(jnp.bfloat16),
        "after": np.arange(5),
    }
    found = read_safetensors(write(tmp_path / "w", arrays, metadata={"format": "pt"}, pad=3))
    assert list(found) == list(arrays)
    for name, x in arrays.items():
        assert found[name].dtype == x.dtype
        np.testing.assert_array_equal(found[name], x)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: b"", r"no safetensors file, or was cut off: it has no header \(0 bytes\)"),
        (lambda data: data[:30], r"it has no header \(30 bytes\)"),
        (lambda data: b"PK\x03\x04" + data, "it has no header"),
        (lambda data: data[:-1], r"was cut off or damaged: a, F32 \[3\], has 11 bytes"),
        (lambda data: data.replace(b"[3]", b"[4]"), r"damaged: a, F32 \[4\], has 12 bytes"),
        (lambda data: data.replace(b"F32", b"F33"), "a has the dtype F33; known: F16, F32"),
        (lambda data: data.replace(b'"shape"', b'"shave"'), "it has no header"),
    ],
)
def test_files_that_are_none_are_refused_in_one_line(damage, message, tmp_path):
    path = write(tmp_path / "w.safetensors", {"a": np.zeros(3, np.float32)})
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ValueError, match=message) as error:
        read_safetensors(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)
