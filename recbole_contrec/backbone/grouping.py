"""
recbole_contrec.backbone.grouping
#################################
Which rows of a batch are computed together, so that little padding is computed, and none that do not fit into memory.
"""

import numpy as np
import torch
from torch import Tensor

# Positions at once on a CPU. Tensors above 32 MB get new memory from the system whenever they are made; with them a
# TIGER on ml-1m ranks two thirds as many users a second.
ON_CPU = 2**13


def length_groups(lengths: Tensor, waste: float = 0.1) -> list[Tensor]:
    """Few groups of rows with little padding, longest first.

    Rows of one length stay together. For a price of a group, in positions, the cheapest grouping is found exactly; the
    price is halved until padding is rare enough.

    Args:
        lengths: real positions of every row [B].
        waste: padding is at most this share of all positions computed.

    Returns:
        list: row numbers [b] of every group; together they are a permutation of ``0..B-1``.
    """
    ordered, rows = lengths.sort(descending=True)
    sizes, counts = (part.cpu().numpy() for part in ordered.unique_consecutive(return_counts=True))
    real, price = int(sizes @ counts), float(sizes @ counts)
    while True:
        borders = _cheapest(sizes, counts, price)  # numbers of sizes at which a group begins
        in_group = np.add.reduceat(counts, borders)
        if real >= (1 - waste) * (sizes[borders] @ in_group):
            return list(rows.split(in_group.tolist()))
        price /= 2


def rows_at_once(positions: int, most: int, device: torch.device) -> int:
    """How many rows are read together where nothing is learned.

    Args:
        positions: of a row.
        most: positions that fit into memory.
        device: that reads; a CPU takes :data:`ON_CPU` positions at most.
    """
    return max(1, (min(most, ON_CPU) if device.type == "cpu" else most) // positions)


def _cheapest(sizes: np.ndarray, counts: np.ndarray, price: float) -> list[int]:
    """Where groups begin, such that the positions computed and the price of the groups are least together.

    Args:
        sizes: different lengths [m], longest first.
        counts: rows of each.
    """
    before = np.concatenate([[0], counts.cumsum()])  # [m + 1]
    cost, end = np.zeros(len(sizes) + 1), np.zeros(len(sizes), dtype=int)  # of the best groups from a size on
    for first in reversed(range(len(sizes))):
        costs = sizes[first] * (before[first + 1 :] - before[first]) + price + cost[first + 1 :]
        best = int(costs.argmin())
        cost[first], end[first] = costs[best], first + 1 + best
    borders = [0]
    while end[borders[-1]] < len(sizes):
        borders.append(int(end[borders[-1]]))
    return borders
