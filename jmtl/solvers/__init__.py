"""The K×K problems behind gradient surgery: on the device, batched, each with a residual."""

from jmtl.solvers.cagrad import conflict_averse
from jmtl.solvers.dual_cone import project
from jmtl.solvers.min_norm import min_norm
from jmtl.solvers.nonnegative import Solution, solve_nonnegative

__all__ = ["Solution", "conflict_averse", "min_norm", "project", "solve_nonnegative"]
