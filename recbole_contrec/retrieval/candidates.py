"""
recbole_contrec.retrieval.candidates
####################################
Item numbers of each user [n, C], 0 = none: without repetitions, found in lists, and multiplied with a query.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

GATHERED = 2**24  # numbers of vectors that are gathered at once, 64 MiB in single precision


def distinct(numbers: Tensor) -> Tensor:
    """Item numbers [n, C] with every one once a row, the others 0, in rising order."""
    numbers = numbers.sort(1).values
    again = torch.zeros_like(numbers, dtype=torch.bool)
    again[:, 1:] = numbers[:, 1:] == numbers[:, :-1]
    return numbers.masked_fill(again, 0)


def products(table: Tensor, numbers: Tensor, queries: Tensor, normalised: bool = False) -> Tensor:
    """Inner products of the rows [n, C] of a table [N, d] with the queries [n, d, M] of their user, [n, C, M]. Rows are
    gathered for some users at a time."""
    at_once = max(1, GATHERED // max(1, numbers.shape[1] * table.shape[1]))
    parts = []
    for some, asked in zip(numbers.split(at_once), queries.split(at_once)):
        vectors = table[some]
        parts.append((F.normalize(vectors, dim=-1) if normalised else vectors) @ asked)
    return torch.cat(parts)


def within(numbers: Tensor, lists: Tensor) -> Tensor:
    """Which item numbers [n, C] stand in the list [n, E] of their row."""
    order = lists.sort(1).values.contiguous()
    place = torch.searchsorted(order, numbers).clamp(max=order.shape[1] - 1)
    return order.gather(1, place) == numbers
