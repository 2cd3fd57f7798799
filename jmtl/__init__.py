"""jmtl: multi-task learning and gradient surgery in JAX, as pure functions.

Importing this package loads the numeric core, which needs jax and optax alone. Models, training and
data are in `jmtl.nn`, `jmtl.train` and `jmtl.data`.
"""

from jmtl import conflict
from jmtl.gradients import (
    Encoded,
    Result,
    value_and_grads,
    value_and_gramian,
    value_and_task_grads,
)
from jmtl.gramian import Gramian, combine, global_norm, gramian
from jmtl.method import (
    AggregatorState,
    Answer,
    Method,
    Seen,
    aggregator,
    chain,
    info,
)
from jmtl.methods import METHODS, make
from jmtl.methods.known import *  # noqa: F403
from jmtl.methods.norm_matched import norm_matched
from jmtl.methods.per_layer import per_layer
from jmtl.methods.smooth import smooth

__version__ = "0.1.0"

__all__ = [
    "METHODS",
    "AggregatorState",
    "Answer",
    "Encoded",
    "Gramian",
    "Method",
    "Result",
    "Seen",
    "aggregator",
    "chain",
    "combine",
    "conflict",
    "global_norm",
    "gramian",
    "info",
    "make",
    "norm_matched",
    "per_layer",
    "smooth",
    "value_and_grads",
    "value_and_gramian",
    "value_and_task_grads",
    *METHODS,
]
