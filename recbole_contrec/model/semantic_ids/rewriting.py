"""
recbole_contrec.model.semantic_ids.rewriting
############################################
New semantic ids that a model writes behind descriptions of the items.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from recbole_contrec.decoding import AllTuples, diverse_beam_search
from recbole_contrec.interface import Refined
from recbole_contrec.model.semantic_ids.code_decoder import CodeDecoder
from recbole_contrec.model.semantic_ids.self_improvement_settings import SelfImprovementSettings
from recbole_contrec.tokenizer.assignment import assign

ITEMS_A_SEARCH = 512  # whose semantic ids are generated at once


class Written(NamedTuple):
    """What semantic ids are written behind."""

    vectors: Tensor  # [m, P, D]    padded at the end
    length: Tensor | None = None  # [m]    real positions; None for all


class Described(NamedTuple):
    """Which items have codes and a description."""

    items: Tensor  # [n]
    others: Tensor  # [N] bool: items that have codes only
    prompts: Callable[[Tensor], Written]  # from items [m] to what their semantic ids are written behind


class Candidates(NamedTuple):
    """What a model writes for n items, and what it makes of the semantic ids that they have."""

    codes: Tensor  # [n, W, K]
    log_probs: Tensor  # [n, W]
    own_log_probs: Tensor  # [n]    of the semantic ids of now


def rewritten(decoder: CodeDecoder, described: Described, settings: SelfImprovementSettings) -> Refined:
    """Semantic ids [N, K] that the model writes behind descriptions, handed out so that all are distinct.

    None is less likely than the one before. The likeliest semantic ids are generic ones, so no item moves to where more
    items shared the first codes before (``refine_crowding``): items that share them are harder to tell apart, as
    targets and in a history.

    Axes: n described items, h other items with codes, W candidates, K codes.
    """
    table = decoder.item_codes
    own, held = table.codes[described.items], table.codes[described.others]  # [n, K], [h, K]
    found = written(decoder, described, settings)
    scores = found.log_probs
    if not settings.crowding:
        scores = scores.masked_fill(more_crowded(own, found.codes, held), -torch.inf)
    # Items without a description ask for nothing, and nobody gets what they have.
    width = found.codes.shape[1]
    nothing = scores.new_full((len(held), width), -torch.inf)
    codes = table.codes.clone()
    codes[described.items] = assign(
        torch.cat([own, held]),
        torch.cat([found.own_log_probs, nothing[:, 0]]),
        torch.cat([found.codes, held[:, None].expand(-1, width, -1)]),
        torch.cat([scores, nothing]),
        settings.margin,
        settings.assignment,
    )[: len(own)].to(own.device)
    other = (found.codes != own[:, None]).any(2)  # its own, found again, may score higher by rounding
    better = (scores - found.own_log_probs[:, None] > settings.margin) & other  # [n, W]
    return Refined(codes, {"share_wanting_change": round(float(better.any(1).double().mean()), 4)})


def written(decoder: CodeDecoder, described: Described, settings: SelfImprovementSettings) -> Candidates:
    """The semantic ids that a model writes for the described items."""
    table = decoder.item_codes
    tree, found, likely = AllTuples(table.num_codebooks, table.unknown_code), [], []
    for part in described.items.split(ITEMS_A_SEARCH):
        prompts, length = described.prompts(part)  # [m, P, D], [m]
        writer = decoder.writer(prompts, settings.candidates, length)
        found.append(diverse_beam_search(tree, settings.candidates, writer, settings.groups, settings.diversity))
        likely.append(decoder.log_probs(prompts, table.codes[part], length))
    width = min(tuples.codes.shape[1] for tuples in found)
    return Candidates(
        torch.cat([tuples.codes[:, :width] for tuples in found]),
        torch.cat([tuples.log_probs[:, :width] for tuples in found]),
        torch.cat(likely),
    )


def more_crowded(own: Tensor, candidates: Tensor, held: Tensor) -> Tensor:
    """Which candidates [n, W, K] share their first codes, all but the last two, with more other items than the item's
    own semantic id does, [n, W] bool; with K up to 2, where nothing is left to share, none.

    Args:
        own: semantic ids of the items [n, K].
        held: those of all other items [h, K].
    """
    n, first = len(own), max(own.shape[1] - 2, 0)
    if not first:
        return candidates.new_zeros(candidates.shape[:2], dtype=torch.bool)
    prefixes = torch.cat([own, held, candidates.flatten(0, 1)])[:, :first]
    _, number = prefixes.unique(dim=0, return_inverse=True)  # [n + h + n W]
    holders = torch.bincount(number[: n + len(held)], minlength=int(number.max()) + 1)  # items with a prefix
    own_number, number = number[:n, None], number[n + len(held) :].view(n, -1)  # [n, 1], [n, W]
    return holders[number] - (number == own_number).long() > holders[own_number] - 1
