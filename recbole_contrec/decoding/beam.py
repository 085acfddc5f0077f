"""
recbole_contrec.decoding.beam
#############################
Beam search for items, code by code, over all rows of a batch at once.
"""

from typing import Callable, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from recbole_contrec.decoding.trie import CodeTrie


class Beams(NamedTuple):
    """What a search found, best first. Where fewer than W items exist, item 0 of log-probability -inf fills up."""

    items: Tensor       # [B, W]
    log_probs: Tensor   # [B, W]


@torch.no_grad()
def beam_search(trie: CodeTrie, width: int, next_log_probs: Callable[[Tensor | None, Tensor | None], Tensor],
                excluded: Tensor | None = None) -> Beams:
    """The likeliest items, as far as the best ``width`` (W) prefixes of every level lead to them.

    Log-probabilities are those of all C codes: what a model gives to a tuple that is no item is lost, not shared out.

    Args:
        trie: of the items.
        width: W, beams that stay alive at each level.
        next_log_probs: called once a level as ``next_log_probs(codes, parents)``; gives log-probabilities of the next
            code [B, w, C] for the w <= W beams alive. ``codes`` [B, w] were chosen last and ``parents`` [B, w] are the
            beams that they continue, by their place in the call before; both are None in the first call, where w = 1.
        excluded: item numbers [B, E] not to be found, 0 = none. They hold their beams until the last level, whose W
            places all go to other items.
    """
    codes = parents = None
    for level in range(trie.depth):
        log_probs = next_log_probs(codes, parents)                                # [B, w, C]
        if level == 0:
            scores = log_probs.new_zeros(len(log_probs), 1)                       # [B, w]
            nodes = torch.zeros_like(scores, dtype=torch.long)
        children = trie.children(level, nodes)                                    # [B, w, F] each
        scores = scores[..., None] + log_probs.gather(2, children.codes)
        scores = scores.masked_fill(~children.real, -torch.inf).flatten(1)        # [B, w F]
        if level == trie.depth - 1 and excluded is not None:
            scores = scores.masked_fill(_among(trie.items[children.nodes].flatten(1), excluded), -torch.inf)
        scores, best = scores.topk(min(width, scores.shape[1]), dim=1)            # [B, w]
        nodes, codes = (part.flatten(1).gather(1, best) for part in (children.nodes, children.codes))
        parents = best // children.nodes.shape[2]
    items = trie.items[nodes].masked_fill(scores == -torch.inf, 0)
    missing = (0, width - items.shape[1])
    return Beams(F.pad(items, missing), F.pad(scores, missing, value=-torch.inf))


def _among(numbers: Tensor, chosen: Tensor) -> Tensor:
    """Which of some numbers [B, n] are among the chosen ones [B, E] of their row, without [B, n, E]."""
    if not chosen.shape[1]:
        return torch.zeros_like(numbers, dtype=torch.bool)
    chosen = chosen.sort(1).values
    place = torch.searchsorted(chosen, numbers).clamp(max=chosen.shape[1] - 1)
    return chosen.gather(1, place) == numbers
