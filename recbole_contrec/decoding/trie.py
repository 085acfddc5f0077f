"""
recbole_contrec.decoding.trie
#############################
Which tuples of codes are items: a prefix tree on tensors, in memory that grows with items and not with nodes times
codes.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Children(NamedTuple):
    """The children of some nodes; F is the most that any node of their level has.

    Attributes:
        nodes: numbers of the children in the next level [..., F].
        codes: the codes that lead to them [..., F].
        real: false behind a node's last child [..., F].
    """

    nodes: Tensor
    codes: Tensor
    real: Tensor


class _Level(NamedTuple):
    """Edges below a level, in order of their upper node."""

    first: Tensor  # [nodes + 1]  the edges of node i are first[i] .. first[i + 1] - 1
    codes: Tensor  # [edges]      edge j leads to node j of the next level
    widest: int  # F
    leaves: Tensor  # [edges + 1]  the leaves below edge j are leaves[j] .. leaves[j + 1] - 1


class CodeTrie:
    """A prefix tree of the items' codes. Level 0 holds the root, node 0; level K a leaf for every item.

    Args:
        codes: [N, K]. Row 0 is the padding; an item with a number outside ``0 .. n_codes - 1`` has no codes. Both are
            left out.
        n_codes: codes of a level (C).

    Attributes:
        depth: K.
        items: item number of every leaf.

    Raises:
        ValueError: two items have the same codes, or none has any.
    """

    def __init__(self, codes: Tensor, n_codes: int):
        items = ((codes >= 0) & (codes < n_codes)).all(1).nonzero().squeeze(1)  # [n]
        items = items[items > 0]
        if not len(items):
            raise ValueError("no item has codes")
        self.depth = codes.shape[1]
        self._levels = []
        node, n_nodes = torch.zeros_like(items), 1  # [n], of every item
        for code in codes[items].T.long():
            # In order of (node, code) the children of a node stand together, and their places number the next level.
            edges, child, below = (node * n_codes + code).unique(return_inverse=True, return_counts=True)
            first = torch.searchsorted(edges, torch.arange(n_nodes + 1, device=edges.device) * n_codes)
            leaves = torch.cat([below.new_zeros(1), below.cumsum(0)])  # numbered in the order of the tree
            self._levels.append(_Level(first, edges % n_codes, int(first.diff().max()), leaves))
            node, n_nodes = child, len(edges)
        if n_nodes < len(items):
            raise ValueError(f"{len(items)} items have only {n_nodes} different tuples of codes")
        self.items = torch.empty_like(items).scatter_(0, node, items)
        self._leaf_of = torch.full((len(codes),), n_nodes, device=codes.device).scatter_(
            0, self.items, torch.arange(n_nodes, device=codes.device)
        )

    @property
    def widest(self) -> list[int]:
        """The most children of any node, by level."""
        return [level.widest for level in self._levels]

    @property
    def nbytes(self) -> int:
        """Memory that it takes."""
        tensors = [
            self.items,
            self._leaf_of,
            *(part for level in self._levels for part in level if torch.is_tensor(part)),
        ]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def children(self, level: int, nodes: Tensor) -> Children:
        """The children of some nodes [...] of a level."""
        first, codes, widest, _ = self._levels[level]
        place = first[nodes][..., None] + torch.arange(widest, device=nodes.device)  # [..., F]
        real = place < first[nodes + 1][..., None]
        place = place.clamp(max=len(codes) - 1)
        return Children(place, codes[place], real)

    def leaves(self, items: Tensor) -> Tensor:
        """Leaves of items [B, E] in rising order; for what is no item of the tree, and for an item named before in its
        row, the number of leaves."""
        leaves = self._leaf_of[items].sort(1).values
        again = torch.zeros_like(leaves, dtype=torch.bool)
        again[:, 1:] = leaves[:, 1:] == leaves[:, :-1]
        return leaves.masked_fill(again, len(self.items)).sort(1).values

    def remaining(self, level: int, nodes: Tensor, without: Tensor) -> Tensor:
        """Whether the children of some nodes [B, w] of a level, as :meth:`children` gives them, lead to any leaf but
        those in ``without`` [B, E], which :meth:`leaves` gave: [B, w, F]."""
        first, codes, widest, leaves = self._levels[level]
        remaining = torch.ones(*nodes.shape, widest + 1, dtype=torch.bool, device=nodes.device)
        # Only E edges a row can have lost all their leaves; the children, far more, are not looked at one by one.
        edges = torch.searchsorted(leaves, without, right=True) - 1  # [B, E]  that lead there
        begin, end = leaves[edges.clamp(max=len(codes) - 1)], leaves[(edges + 1).clamp(max=len(codes))]
        lost = torch.searchsorted(without, end) - torch.searchsorted(without, begin) >= end - begin
        edges = edges.masked_fill(~lost, len(codes))[:, None]  # [B, 1, E]  no node has the last number
        below = (edges >= first[nodes][..., None]) & (edges < first[nodes + 1][..., None])  # [B, w, E]
        place = torch.where(below, edges - first[nodes][..., None], widest)
        return remaining.scatter_(2, place, False)[..., :widest]
