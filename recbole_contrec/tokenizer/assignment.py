"""Identifiers handed out anew: every item gets one of its candidates, and no two items the same.

Axes: ``n`` items, ``W`` candidates an item, ``K`` codes of an identifier.
"""

import numpy as np
import torch
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import min_weight_full_bipartite_matching
from torch import Tensor

METHODS = ("optimal", "greedy")


def assign(
    own: Tensor, own_scores: Tensor, candidates: Tensor, scores: Tensor, margin: float = 0.0, method: str = "optimal"
) -> Tensor:
    """An identifier for every item: its own, or a candidate that scores better by more than a margin.

    Args:
        own: identifiers so far, all distinct [n, K] int64.
        own_scores: log-probabilities of them [n].
        candidates: [n, W, K] int64; a row may hold the same one twice, and its own.
        scores: log-probabilities of them [n, W]; -inf for none.
        margin: what a candidate must be better by, in nats.
        method: ``optimal`` maximises the sum of the scores (a sparse assignment problem); ``greedy`` goes through all
            pairs of item and candidate from the largest gain on and takes what is free. An identifier that an item
            gives up is free for others only in the optimal assignment.

    Returns:
        [n, K], all distinct.

    Raises:
        ValueError: an unknown method, or identifiers that are not distinct.
    """
    if method not in METHODS:
        raise ValueError(f"unknown method {method!r}: choose one of {', '.join(METHODS)}")
    own, own_scores, candidates, scores = (part.cpu() for part in (own, own_scores, candidates, scores))
    n, n_candidates, n_tokens = candidates.shape
    tuples, number = torch.cat([own, candidates.flatten(0, 1)]).unique(dim=0, return_inverse=True)
    own_number, candidate_number = number[:n], number[n:].view(n, n_candidates)
    if len(own_number.unique()) < n:
        raise ValueError("two items have the same identifier")
    gain = scores - own_scores[:, None]  # [n, W]
    row, place = ((gain > margin) & (candidate_number != own_number[:, None])).nonzero(as_tuple=True)
    pairs = row, candidate_number[row, place], gain[row, place].double()
    chosen = _optimal(own_number, *pairs, len(tuples)) if method == "optimal" else _greedy(own_number, *pairs)
    return tuples[chosen]


def _optimal(own: Tensor, row: Tensor, tuple_number: Tensor, gain: Tensor, n_tuples: int) -> Tensor:
    """Tuple numbers [n] that maximise the gain: a full matching exists, since everybody may stay."""
    n = len(own)
    rows = torch.cat([torch.arange(n), row]).numpy()
    columns = torch.cat([own, tuple_number]).numpy()
    gains = torch.cat([torch.zeros(n, dtype=torch.double), gain]).numpy()
    order = np.lexsort((-gains, columns, rows))
    rows, columns, gains = rows[order], columns[order], gains[order]
    first = np.ones(len(rows), dtype=bool)  # of a candidate that stands in its row twice
    first[1:] = (rows[1:] != rows[:-1]) | (columns[1:] != columns[:-1])
    costs = 1 + gains.max() - gains[first]  # above zero: scipy takes a zero for a missing pair
    graph = csr_matrix((costs, (rows[first], columns[first])), shape=(n, n_tuples))
    return torch.from_numpy(min_weight_full_bipartite_matching(graph)[1]).long()


def _greedy(own: Tensor, row: Tensor, tuple_number: Tensor, gain: Tensor) -> Tensor:
    """Tuple numbers [n]: pairs from the largest gain on."""
    chosen, taken, moved = own.tolist(), set(own.tolist()), set()
    order = gain.argsort(descending=True, stable=True)
    for item, wanted in zip(row[order].tolist(), tuple_number[order].tolist()):
        if item not in moved and wanted not in taken:
            chosen[item] = wanted
            taken.add(wanted)
            moved.add(item)
    return torch.tensor(chosen)
