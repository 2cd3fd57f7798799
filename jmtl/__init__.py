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
from jmtl.methods import (
    METHODS,
    difficulty,
    dwa,
    equal,
    famo,
    geometric,
    go4align,
    imtl_l,
    make,
    mgda,
    pcgrad,
    random,
    round_robin,
    scale_invariant,
    static,
    stch,
    uncertainty,
)

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
    "difficulty",
    "dwa",
    "equal",
    "famo",
    "geometric",
    "global_norm",
    "go4align",
    "gramian",
    "imtl_l",
    "info",
    "make",
    "mgda",
    "pcgrad",
    "random",
    "round_robin",
    "scale_invariant",
    "static",
    "stch",
    "uncertainty",
    "value_and_grads",
    "value_and_gramian",
    "value_and_task_grads",
]
