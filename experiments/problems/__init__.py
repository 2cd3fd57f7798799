"""Problems: one file each. `PROBLEMS` maps every name to its problem."""

from collections.abc import Mapping
from importlib import import_module
from types import MappingProxyType

from experiments.problem import Problem

NAMES = (
    "multi_digits",
    "digit_attributes",
    "tabular",
    "smart_home",
    "scenes",
    "multi_mnist",
    "spoken_digit",
    "mnist_svhn",
    "cifar100",
    "smallnorb",
    "shapes3d",
    "celeb_a",
    "oxford_iiit_pet",
    "qm9",
    "nyuv2",
    "nyuv2_published",
    "cityscapes",
    "cityscapes_published",
)
"""Of the files here that hold a problem, in the order in which they are listed."""

PROBLEMS: Mapping[str, Problem] = MappingProxyType(
    {name: import_module(f"{__name__}.{name}").PROBLEM for name in NAMES}
)
