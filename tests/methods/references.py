"""PCGrad as the paper writes it: a loop over explicit float64 vectors."""

import numpy as np


def pcgrad(rows: np.ndarray, orders: np.ndarray) -> np.ndarray:
    """The projected gradients `[K, n]` of algorithm 1; row i of `orders` is task i's order."""
    projected = rows.astype(np.float64).copy()
    for i, order in enumerate(orders):
        for j in order:
            if j == i:
                continue
            product = projected[i] @ rows[j]
            if product < 0:
                projected[i] -= product / (rows[j] @ rows[j]) * rows[j]
    return projected
