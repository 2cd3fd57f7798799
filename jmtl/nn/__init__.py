"""Encoders and heads: flax.linen modules behind one functional face, `model`.

Nothing outside this package imports flax.
"""

from jmtl.nn.encoders import ENCODERS, MLP, LeNet, ResNet, make_encoder
from jmtl.nn.heads import (
    HEADS,
    DenseHead,
    MapHead,
    classification,
    make_head,
    make_heads,
    regression,
)
from jmtl.nn.layers import ACTIVATIONS, INITIALISERS, Dropout
from jmtl.nn.model import Model, model, summary

__all__ = [
    "ACTIVATIONS",
    "ENCODERS",
    "HEADS",
    "INITIALISERS",
    "MLP",
    "DenseHead",
    "Dropout",
    "LeNet",
    "MapHead",
    "Model",
    "ResNet",
    "classification",
    "make_encoder",
    "make_head",
    "make_heads",
    "model",
    "regression",
    "summary",
]
