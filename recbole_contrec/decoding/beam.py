"""
recbole_contrec.decoding.beam
#############################
Beam search for tuples of codes, code by code, over all rows of a batch at once.
"""

from collections.abc import Callable
from typing import NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from recbole_contrec.decoding.trie import Children, CodeTrie

NextLogProbs = Callable[[Tensor | None, Tensor | None], Tensor]


class Beams(NamedTuple):
    """The items that a search found, best first. Where fewer than W exist, item 0 of log-probability -inf fills up."""

    items: Tensor  # [B, W]
    log_probs: Tensor  # [B, W]


class Tuples(NamedTuple):
    """The tuples of codes that a search found, best first; w <= W of them."""

    codes: Tensor  # [B, w, K]
    log_probs: Tensor  # [B, w]    -inf where fewer exist
    nodes: Tensor  # [B, w]    of the tree's last level


class Tree(Protocol):
    """What a search needs to know of the tuples of codes that may be found."""

    depth: int  # K

    def children(self, level: int, nodes: Tensor) -> Children:
        """The children of some nodes [...] of a level; node 0 of level 0 is the root."""


class AllTuples:
    """The tree of all C^K tuples.

    Args:
        depth: K.
        n_codes: C.
    """

    def __init__(self, depth: int, n_codes: int):
        self.depth, self.n_codes = depth, n_codes

    def children(self, level: int, nodes: Tensor) -> Children:
        """As :class:`Tree` says. Nodes keep no number: whatever led there, all codes follow."""
        codes = torch.arange(self.n_codes, device=nodes.device).expand(*nodes.shape, -1)
        return Children(torch.zeros_like(codes), codes, torch.ones_like(codes, dtype=torch.bool))


@torch.no_grad()
def beam_search(trie: CodeTrie, width: int, next_log_probs: NextLogProbs, excluded: Tensor | None = None) -> Beams:
    """The likeliest items, as far as the best ``width`` (W) prefixes of every level lead to them.

    Log-probabilities are those of all C codes: what a model gives to a tuple that is no item is lost, not shared out.

    Args:
        trie: of the items.
        width: W, beams that stay alive at each level.
        next_log_probs: called once a level as ``next_log_probs(codes, parents)``; gives log-probabilities of the next
            code [B, w, C] for the w <= W beams alive. ``codes`` [B, w] were chosen last and ``parents`` [B, w] are the
            beams that they continue, by their place in the call before; both are None in the first call, where w = 1.
        excluded: item numbers [B, E] not to be found, 0 = none. A prefix that leads to no other item takes no beam.
    """
    allowed = None
    if excluded is not None:
        without = trie.leaves(excluded)

        def allowed(level: int, nodes: Tensor) -> Tensor:
            return trie.remaining(level, nodes, without)

    found = _search(trie, width, next_log_probs, 1, 0.0, allowed)
    items = trie.items[found.nodes].masked_fill(found.log_probs == -torch.inf, 0)
    missing = (0, width - items.shape[1])
    return Beams(F.pad(items, missing), F.pad(found.log_probs, missing, value=-torch.inf))


@torch.no_grad()
def diverse_beam_search(
    tree: Tree, width: int, next_log_probs: NextLogProbs, groups: int = 1, penalty: float = 0.0
) -> Tuples:
    """Beam search in groups that avoid each other's codes (Vijayakumar et al., AAAI 2018,
    https://arxiv.org/abs/1610.02424, with the Hamming distance).

    Args:
        tree: of the tuples that may be found.
        width: W, beams of all groups together.
        next_log_probs: as :func:`beam_search` calls it.
        groups: that share the beams evenly; one group searches as :func:`beam_search` does.
        penalty: taken from the score of a code for each beam of a group before that has chosen it at this level.

    Returns:
        Tuples: sorted by their log-probabilities, which know nothing of the penalty. Groups may find the same tuple.

    Raises:
        ValueError: the groups cannot share the beams evenly.
    """
    if groups < 1 or width % groups:
        raise ValueError(f"{groups} groups cannot share {width} beams evenly")
    found = _search(tree, width, next_log_probs, groups, penalty)
    order = found.log_probs.argsort(dim=1, descending=True)
    return Tuples(
        found.codes.gather(1, order[..., None].expand_as(found.codes)),
        found.log_probs.gather(1, order),
        found.nodes.gather(1, order),
    )


def _search(
    tree: Tree,
    width: int,
    next_log_probs: NextLogProbs,
    groups: int,
    penalty: float,
    allowed: Callable[[int, Tensor], Tensor] | None = None,
) -> Tuples:
    """Level by level, and within a level group by group.

    Args:
        allowed: from a level and its nodes alive [B, w] to whether their children may be found [B, w, F].
    """
    codes: Tensor | None = None
    parents: Tensor | None = None
    written = torch.empty(0)
    for level in range(tree.depth):
        log_probs = next_log_probs(codes, parents)  # [B, w, C]
        if level == 0:  # every group begins at the root
            scores, of_group = log_probs.new_zeros(len(log_probs), 1), [slice(0, 1)] * groups
            nodes = torch.zeros_like(scores, dtype=torch.long)
        children = tree.children(level, nodes)  # [B, w, F] each
        real = children.real
        if allowed is not None:
            real = real & allowed(level, nodes)
        ahead = (scores[..., None] + log_probs.gather(2, children.codes)).masked_fill(~real, -torch.inf)
        times = torch.zeros_like(log_probs[:, 0])  # [B, C]  chosen by groups before
        chosen, sizes, fan_out = [], [0], ahead.shape[2]
        for group in of_group:
            part = ahead[:, group]  # [B, w', F]
            penalised = part - penalty * times.unsqueeze(1).expand(-1, part.shape[1], -1).gather(
                2, children.codes[:, group]
            )
            best = penalised.flatten(1).topk(min(width // groups, penalised[0].numel()), dim=1).indices  # [B, w'']
            best = best + group.start * fan_out
            chosen.append(best)
            sizes.append(sizes[-1] + best.shape[1])
            taken = children.codes.flatten(1).gather(1, best)
            times = times.scatter_add(1, taken, torch.ones_like(taken, dtype=times.dtype))
        best = torch.cat(chosen, dim=1)  # [B, w]
        of_group = [slice(*borders) for borders in zip(sizes, sizes[1:])]
        scores, nodes, codes = (part.flatten(1).gather(1, best) for part in (ahead, children.nodes, children.codes))
        parents = best // fan_out
        before = [written.gather(1, parents[..., None].expand(-1, -1, level))] if level else []
        written = torch.cat([*before, codes[..., None]], dim=2)  # [B, w, level + 1]
    return Tuples(written, scores, nodes)
