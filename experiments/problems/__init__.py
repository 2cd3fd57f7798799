"""Problems: one file each. `PROBLEMS` maps every name to its problem."""

from collections.abc import Mapping
from types import MappingProxyType

from experiments.problem import Problem
from experiments.problems import digit_attributes, multi_digits, multi_mnist, smart_home, tabular

PROBLEMS: Mapping[str, Problem] = MappingProxyType(
    {
        module.PROBLEM.name: module.PROBLEM
        for module in (multi_digits, digit_attributes, tabular, smart_home, multi_mnist)
    }
)
