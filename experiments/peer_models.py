"""The models of `experiments.speed` in PyTorch, and how jmtl's parameters become theirs.

Attributes have the names of flax's layers, so that parameters go over by name.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from experiments.speed.models import CLASSES, Sizes


class MLP(nn.Module):
    """`jmtl.nn.MLP`."""

    def __init__(self, inputs: int, hidden: Sequence[int], dropout: float = 0.0) -> None:
        super().__init__()
        self.dropout = dropout
        self.widths = [inputs, *hidden]
        for i, width in enumerate(hidden):
            setattr(self, f"Dense_{i}", nn.Linear(self.widths[i], width))

    def forward(self, x: Tensor) -> Tensor:
        """`[B, ...]` to `[B, F]`."""
        x = x.flatten(1)
        for i in range(len(self.widths) - 1):
            x = F.relu(getattr(self, f"Dense_{i}")(x))
            x = F.dropout(x, self.dropout) if self.dropout else x
        return x


class LeNet(nn.Module):
    """`jmtl.nn.LeNet`."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv_0 = nn.Conv2d(1, 10, 5)
        self.Conv_1 = nn.Conv2d(10, 20, 5)
        self.Dense_0 = nn.Linear(320, 50)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, 1, 28, 28]` to `[B, 50]`."""
        x = F.relu(F.max_pool2d(self.Conv_0(x), 2))
        x = F.relu(F.max_pool2d(self.Conv_1(x), 2))
        return F.relu(self.Dense_0(x.flatten(1)))


class Residual(nn.Module):
    """A basic block of `jmtl.nn.ResNet`."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, width, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.changes = stride != 1 or inputs != width
        if self.changes:
            self.downsample_0 = nn.Conv2d(inputs, width, 1, stride, bias=False)
            self.downsample_1 = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, H, W]` to `[B, C2, H2, W2]`."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return F.relu(y + (self.downsample_1(self.downsample_0(x)) if self.changes else x))


class ResNet(nn.Module):
    """`jmtl.nn.ResNet` with basic blocks and the small stem."""

    def __init__(self, channels: int, widths: Sequence[int], blocks: Sequence[int]) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, widths[0], 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.names, before = [], widths[0]
        for stage, (width, count) in enumerate(zip(widths, blocks, strict=True)):
            for i in range(count):
                self.names.append(f"layer{stage + 1}_{i}")
                stride = 2 if stage > 0 and i == 0 else 1
                setattr(self, self.names[-1], Residual(before, width, stride))
                before = width

    def forward(self, x: Tensor) -> Tensor:
        """`[B, C, H, W]` to `[B, F]`."""
        x = F.relu(self.bn1(self.conv1(x)))
        for name in self.names:
            x = getattr(self, name)(x)
        return x.mean((2, 3))


class Positions(nn.Module):
    """Learned positions, a module of their own since TorchJD's engine hooks modules."""

    def __init__(self, length: int, width: int) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.empty(length, width))

    def forward(self, x: Tensor) -> Tensor:
        """`x + positions`."""
        return x + self.value[: x.shape[1]]


class Attention(nn.Module):
    """`flax.linen.MultiHeadDotProductAttention` of a sequence with itself."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        """`[B, T, F]` to the same."""
        query, key, value = (
            part(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.query, self.key, self.value)
        )
        y = F.scaled_dot_product_attention(query, key, value)
        return self.out(y.transpose(1, 2).flatten(2))


class Transformer(nn.Module):
    """`jmtl.nn.Transformer` of sequences without padding, their mean."""

    def __init__(
        self, vocabulary: int, width: int, layers: int, heads: int, max_length: int
    ) -> None:
        super().__init__()
        self.layers = layers
        self.embedding = nn.Embedding(vocabulary, width)
        self.positions = Positions(max_length, width)
        self.norm = nn.LayerNorm(width, eps=1e-6)
        for i in range(layers):
            setattr(self, f"layer{i}_attention_norm", nn.LayerNorm(width, eps=1e-6))
            setattr(self, f"layer{i}_attention", Attention(width, heads))
            setattr(self, f"layer{i}_dense_norm", nn.LayerNorm(width, eps=1e-6))
            setattr(self, f"layer{i}_dense_0", nn.Linear(width, 4 * width))
            setattr(self, f"layer{i}_dense_1", nn.Linear(4 * width, width))

    def forward(self, tokens: Tensor) -> Tensor:
        """`[B, T]` to `[B, F]`."""
        x = self.positions(self.embedding(tokens))
        for i in range(self.layers):
            part = {
                name: getattr(self, f"layer{i}_{name}")
                for name in ("attention_norm", "attention", "dense_norm", "dense_0", "dense_1")
            }
            x = x + part["attention"](part["attention_norm"](x))
            hidden = F.gelu(part["dense_0"](part["dense_norm"](x)), approximate="tanh")
            x = x + part["dense_1"](hidden)
        return self.norm(x).mean(1)


def encoder_of(sizes: Sizes) -> nn.Module:
    """The encoder of a model in `experiments.speed.models.MODELS`."""
    if sizes.encoder == "mlp":
        return MLP(int(np.prod(sizes.shape)), **sizes.options)
    if sizes.encoder == "lenet":
        return LeNet()
    if sizes.encoder == "resnet":
        return ResNet(sizes.shape[-1], **sizes.options)
    return Transformer(**sizes.options)


class Net(nn.Module):
    """An encoder and K linear heads."""

    def __init__(self, sizes: Sizes, k: int, width: int) -> None:
        super().__init__()
        self.encoder = encoder_of(sizes)
        self.heads = nn.ModuleList(nn.Linear(width, CLASSES) for _ in range(k))


def named(params: Any, sizes: Sizes) -> dict[str, np.ndarray]:
    """Parameters of jmtl under `Net`'s names, in PyTorch's layouts.

    Args:
        params: `{"shared", "tasks"}` of `experiments.speed.models.build`.
        sizes: of the model.
    """
    found = {}
    trees = {"encoder": params["shared"]}
    for i, tree in enumerate(params["tasks"].values()):
        trees[f"heads.{i}"] = tree
    for prefix, tree in trees.items():
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            keys = [entry.key for entry in path]
            name, value = _translated(keys, np.asarray(leaf))
            if sizes.encoder == "lenet" and prefix == "encoder" and keys == ["Dense_0", "kernel"]:
                # Height, width, channels there; channels first here.
                value = value.reshape(-1, 4, 4, 20).transpose(0, 3, 1, 2).reshape(len(value), -1)
            found[f"{prefix}.{name}"] = value
    # Heads lie under "Dense_0" in jmtl.
    return {
        name.replace(".Dense_0.", ".") if name.startswith("heads.") else name: value
        for name, value in found.items()
    }


def _translated(keys: Sequence[str], value: np.ndarray) -> tuple[str, np.ndarray]:
    *path, kind = keys
    if kind == "positions":
        return "positions.value", value
    if kind == "kernel" and value.ndim == 4:
        value = value.transpose(3, 2, 0, 1)
    elif kind == "kernel":  # of attention [F, heads, D], its output's [heads, D, F]
        value = value.reshape(-1, value.shape[-1]) if path[-1] == "out" else value
        value = value.reshape(len(value), -1).T
    elif kind == "bias":
        value = value.reshape(-1)
    return ".".join([*path, "bias" if kind == "bias" else "weight"]), value
