"""Encoders: flax modules from inputs `[B, ...]` to the representation that all tasks share.

An encoder is called as `encoder(inputs, train)`. Parameters are float32; `dtype` is what it
computes in. One that has a field `axis_name` is given pmap's axis by `jmtl.nn.model`. Those here
run in stages: `jmtl.nn.Staged` says how to write one.
"""

import inspect
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import flax.linen as nn

from jmtl.methods import nearest
from jmtl.nn.encoders.lenet import LeNet
from jmtl.nn.encoders.message_passing import SchNet
from jmtl.nn.encoders.mlp import MLP
from jmtl.nn.encoders.resnet import ResNet, deeplab, resnet18, resnet34, resnet50
from jmtl.nn.encoders.segnet import SegNet
from jmtl.nn.encoders.staged import Staged
from jmtl.nn.encoders.text import GRU, Transformer
from jmtl.nn.encoders.vgg import VGG
from jmtl.nn.encoders.vit import ViT

__all__ = [
    "ENCODERS",
    "GRU",
    "MLP",
    "VGG",
    "LeNet",
    "ResNet",
    "SchNet",
    "SegNet",
    "Staged",
    "Transformer",
    "ViT",
    "make_encoder",
]

ENCODERS: Mapping[str, Callable[..., nn.Module]] = MappingProxyType(
    {
        "deeplab": deeplab,
        "gru": GRU,
        "lenet": LeNet,
        "mlp": MLP,
        "resnet": ResNet,
        "resnet18": resnet18,
        "resnet34": resnet34,
        "resnet50": resnet50,
        "schnet": SchNet,
        "segnet": SegNet,
        "transformer": Transformer,
        "vgg16": VGG,
        "vit": ViT,
    }
)


def make_encoder(name: str, **options: Any) -> nn.Module:
    """Build an encoder by its name in `ENCODERS`.

    Args:
        name: "mlp", "lenet", "resnet", "resnet18", "vgg16", "segnet", "gru", "vit", …
        **options: Its attributes.

    Returns:
        The module.

    Raises:
        ValueError: If there is no such encoder, it has no such option, or needs another one.
    """
    if name not in ENCODERS:
        raise ValueError(f"unknown encoder {name!r}; {nearest(name, ENCODERS)}")
    known = dict(inspect.signature(ENCODERS[name]).parameters)
    for flax_own in ("parent", "name"):
        known.pop(flax_own, None)
    for option in options:
        if option not in known:
            raise ValueError(f"{name} has no option {option!r}; {nearest(option, known)}")
    for option, parameter in known.items():
        if parameter.default is parameter.empty and option not in options:
            raise ValueError(f"{name} needs the option {option!r}")
    return ENCODERS[name](**options)
