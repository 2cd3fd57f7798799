"""The K×K problems behind gradient surgery: on the device, batched, each with a residual."""

from jmtl.solvers.cagrad import conflict_averse
from jmtl.solvers.dual_cone import project
from jmtl.solvers.equal_angles import at_angles, equal_projections
from jmtl.solvers.min_norm import min_norm
from jmtl.solvers.nonnegative import Solution, solve_nonnegative
from jmtl.solvers.power_root import power_root
from jmtl.solvers.simplex import project_on_simplex
from jmtl.solvers.spectral import balance

__all__ = [
    "Solution",
    "at_angles",
    "balance",
    "conflict_averse",
    "equal_projections",
    "min_norm",
    "power_root",
    "project",
    "project_on_simplex",
    "solve_nonnegative",
]
