"""The models that are timed, their tasks, and data drawn on the device."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp
import optax

from jmtl.nn import Model, make_encoder, make_heads, model
from jmtl.tasks import Batch, Task, batch, classification

CLASSES = 10
LEARNING_RATE = 1e-6
"""So small that thousands of timed steps leave the losses where they began."""

Dtype = Literal["float32", "bfloat16"]
Kind = Literal["normal", "bytes", "tokens"]


class Sizes(NamedTuple):
    """A model to be timed.

    Attributes:
        encoder: a name in `jmtl.nn.ENCODERS`.
        options: the encoder's.
        shape: of an example.
        rows: B, examples a step.
        kind: what an example is: normal numbers, bytes that become [0, 1], or token ids.
    """

    encoder: str
    options: Mapping[str, Any]
    shape: tuple[int, ...]
    rows: int
    kind: Kind = "normal"


_RESNET18 = {"widths": (64, 128, 256, 512), "blocks": (2, 2, 2, 2)}
_TRANSFORMER = {"vocabulary": 8192, "width": 512, "layers": 6, "heads": 8, "max_length": 128}

MODELS: Mapping[str, Sizes] = MappingProxyType(
    {
        "mlp": Sizes("mlp", {"hidden": (128, 64)}, (100,), 128),
        "deep": Sizes("mlp", {"hidden": (512,) * 12}, (512,), 64),
        "lenet": Sizes("lenet", {}, (28, 28), 256),
        "resnet18": Sizes("resnet", _RESNET18, (32, 32, 3), 16),
        "resnet18-64": Sizes("resnet", _RESNET18, (64, 64, 3), 16),
        "transformer": Sizes("transformer", _TRANSFORMER, (128,), 16, "tokens"),
        "study": Sizes("mlp", {"hidden": (256, 128), "dropout": 0.3}, (10, 10), 128, "bytes"),
    }
)
"""By name. "study" is the recipe of MultiDigits."""


class Built(NamedTuple):
    """A model with its tasks.

    Attributes:
        sizes: of the model.
        net: the functions.
        tasks: K classifications.
        optimizer: Adam.
    """

    sizes: Sizes
    net: Model
    tasks: tuple[Task, ...]
    optimizer: optax.GradientTransformation


def build(sizes: Sizes, k: int, dtype: Dtype = "float32") -> Built:
    """A model with K tasks; parameters are float32, `dtype` is what it computes in."""
    tasks = tuple(classification(f"task{i}", CLASSES) for i in range(k))
    compute = jnp.bfloat16 if dtype == "bfloat16" else None
    encoder = make_encoder(sizes.encoder, **sizes.options, dtype=compute)
    net = model(encoder, make_heads(tasks, dtype=compute))
    return Built(sizes, net, tasks, optax.adam(LEARNING_RATE))


def draw(sizes: Sizes, k: int, rows: int | None = None) -> dict[str, Any]:
    """Raw examples on the device: `inputs` `[rows, ...]` and `labels` `[rows, K]`."""
    rows = rows or sizes.rows
    image, label = jax.random.split(jax.random.key(0))
    shape = (rows, *sizes.shape)
    if sizes.kind == "normal":
        inputs = jax.random.normal(image, shape)
    elif sizes.kind == "bytes":
        inputs = jax.random.bits(image, shape, jnp.uint8)
    else:  # token 0 is padding
        inputs = jax.random.randint(image, shape, 1, sizes.options["vocabulary"])
    return {"inputs": inputs, "labels": jax.random.randint(label, (rows, k), 0, CLASSES)}


def to_batch(sizes: Sizes, tasks: Sequence[Task], raw: Mapping[str, Any]) -> Batch:
    """What the model reads of raw examples."""
    inputs = raw["inputs"]
    if sizes.kind == "bytes":
        inputs = inputs.astype(jnp.float32) / 255
    return batch(inputs, {task.name: raw["labels"][:, i] for i, task in enumerate(tasks)})
