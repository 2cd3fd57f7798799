"""Encoders, heads and ways of sharing: flax.linen modules behind one functional face, `Model`.

Nothing outside this package imports flax.
"""

from jmtl.nn.atrous import AtrousHead
from jmtl.nn.encoders import (
    ENCODERS,
    GRU,
    MLP,
    VGG,
    LeNet,
    ResNet,
    SchNet,
    SegNet,
    Staged,
    Transformer,
    ViT,
    make_encoder,
)
from jmtl.nn.heads import (
    HEADS,
    DenseHead,
    MapHead,
    PresenceHead,
    classification,
    make_head,
    make_heads,
    regression,
)
from jmtl.nn.layers import ACTIVATIONS, INITIALISERS, Dropout, add_penalty, numbered_rows
from jmtl.nn.model import Model, model, penalties, summary
from jmtl.nn.sharing import SHARINGS, make_sharing
from jmtl.nn.stems import with_stems

__all__ = [
    "ACTIVATIONS",
    "ENCODERS",
    "GRU",
    "HEADS",
    "INITIALISERS",
    "MLP",
    "SHARINGS",
    "VGG",
    "AtrousHead",
    "DenseHead",
    "Dropout",
    "LeNet",
    "MapHead",
    "Model",
    "PresenceHead",
    "ResNet",
    "SchNet",
    "SegNet",
    "Staged",
    "Transformer",
    "ViT",
    "add_penalty",
    "classification",
    "make_encoder",
    "make_head",
    "make_heads",
    "make_sharing",
    "model",
    "numbered_rows",
    "penalties",
    "regression",
    "summary",
    "with_stems",
]
