"""Float64 references: the exact block of the reference file, and scipy's nnls."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import nnls

_FILE = Path(__file__).parents[1] / "reference" / "aggregations.json"
CASES: dict[str, dict[str, Any]] = json.loads(_FILE.read_text())["cases"]


def rows_of(case: str) -> np.ndarray:
    """The Jacobian of a reference case, float64."""
    return np.asarray(CASES[case]["J"], np.float64)


def exact(case: str, name: str) -> np.ndarray:
    """The combined gradient of the reference's exact block."""
    return np.asarray(CASES[case]["exact"][name]["vector"], np.float64)


def cases_with(name: str, block: str = "exact") -> list[str]:
    """The reference cases that hold a value for `name`."""
    return [case for case, content in CASES.items() if name in content[block]]


def shortest(rows: np.ndarray) -> np.ndarray:
    """The shortest vector in the hull of nonzero rows."""
    norms = np.linalg.norm(rows, axis=1)
    ratio = norms.min() / norms
    system = np.vstack([(rows / norms[:, None]).T, ratio])
    point, _ = nnls(system, np.eye(len(system))[-1], maxiter=100 * len(rows))
    weights = point * ratio
    return (weights / weights.sum()) @ rows


def onto_dual_cone(rows: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """The nearest point to `vector` with nonnegative products with every row."""
    norms = np.linalg.norm(rows, axis=1)
    units = rows / np.where(norms > 0, norms, 1.0)[:, None]
    length = np.linalg.norm(vector)
    if length == 0:
        return vector
    point, _ = nnls(units.T, -vector / length, maxiter=100 * len(rows))
    return vector + length * (point @ units)


def most_served(rows: np.ndarray, c: float) -> tuple[float, np.ndarray]:
    """CAGrad by its dual: max μ with g_i·d ≥ μ and ‖d − g₀‖ ≤ c ‖g₀‖, for nonzero rows.

    The least-distance problem at a given μ goes to nnls (Lawson and Hanson, 1974, chapter 23.4),
    and a bracketing search finds μ.
    """
    norms = np.linalg.norm(rows, axis=1)
    largest = norms.max()
    units, mean = rows / norms[:, None], rows.mean(0) / largest
    beta = norms.min() / norms

    def nearest(level: float) -> np.ndarray:
        bound = level * beta - units @ mean
        system = np.vstack([units.T, bound])
        point, _ = nnls(system, np.eye(len(system))[-1], maxiter=100 * len(rows))
        rest = system @ point - np.eye(len(system))[-1]
        return np.full_like(mean, np.inf) if rest[-1] >= 0 else -rest[:-1] / rest[-1]

    radius = c * np.linalg.norm(mean)
    low, high = np.min(units @ mean / beta), (1 + c) * np.linalg.norm(mean)
    for _ in range(200):
        level = (low + high) / 2
        if not low < level < high:
            break
        low, high = (level, high) if np.linalg.norm(nearest(level)) <= radius else (low, level)
    return low * norms.min() * largest, (mean + nearest(low)) * largest
