"""
recbole_contrec.model.parts.targets
###################################
Which positions of a batch are targets, and the states before them, for every model that trains on whole windows.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import torch
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import SequentialRecommender
from torch import Tensor

from recbole_contrec.backbone import length_groups
from recbole_contrec.data.windows import NEXT_PREFIX, Histories
from recbole_contrec.retrieval import CandidateSampler


class Targets(NamedTuple):
    """The targets of a batch: n items to be predicted."""

    states: Tensor  # [n, ...]  before the target; [n, 0] where a model has still to read a history anew for each
    items: Tensor  # [n]       the target
    item_seq: Tensor  # [B, L]    histories of the batch
    row: Tensor  # [n]       where in `item_seq` the item before the target stands
    place: Tensor  # [n]

    def histories(self) -> Tensor:
        """Items of the window up to each target, [n, L], 0 = none."""
        later = torch.arange(self.item_seq.shape[1], device=self.place.device) > self.place[:, None]
        return self.item_seq[self.row].masked_fill(later, 0)


class WindowBatch(NamedTuple):
    """A training batch: histories, padded at the end, and the target after every position."""

    item_seq: Tensor  # [B, L]
    length: Tensor  # [B]
    next_items: Tensor  # [B, L]    0 = no target
    user: Tensor  # [B]

    def targets(self) -> Targets:
        """All targets, without states."""
        row, place = (self.next_items > 0).nonzero(as_tuple=True)  # [n]
        return Targets(self.item_seq.new_zeros(len(row), 0), self.next_items[row, place], self.item_seq, row, place)


class TrainingWindows:
    """From RecBole's batches to histories and targets. A batch holds windows of
    :class:`~recbole_contrec.data.windows.WindowLoader`, or RecBole's own rows with one target each.

    Args:
        model: whose fields are read.
        sampled_prefixes: targets drawn from a row beside its last one; None trains them all.
    """

    def __init__(self, model: SequentialRecommender, sampled_prefixes: int | None = None):
        self.item_seq, self.length, self.user = model.ITEM_SEQ, model.ITEM_SEQ_LEN, model.USER_ID
        self.positive_item, self.next_items = model.POS_ITEM_ID, NEXT_PREFIX + model.ITEM_SEQ
        self.sampled_prefixes = sampled_prefixes

    def __call__(self, interaction: Interaction) -> WindowBatch:
        """The histories of a training batch and their targets, drawn anew where not all are trained."""
        next_items = self._all_next_items(interaction)
        if self.sampled_prefixes is not None:
            next_items = some_targets(next_items, self.sampled_prefixes)
        return WindowBatch(interaction[self.item_seq], interaction[self.length], next_items, interaction[self.user])

    def count_targets(self, interaction: Interaction) -> int:
        """Targets of a training batch."""
        counts = (self._all_next_items(interaction) > 0).sum(1)  # [B]
        return int((counts if self.sampled_prefixes is None else counts.clamp(max=1 + self.sampled_prefixes)).sum())

    def _all_next_items(self, interaction: Interaction) -> Tensor:
        """The target after every position [B, L], 0 = none."""
        if self.next_items in interaction:
            return interaction[self.next_items]
        item_seq, last = interaction[self.item_seq], interaction[self.length] - 1
        return torch.zeros_like(item_seq).scatter_(1, last[:, None], interaction[self.positive_item][:, None])


class Group(NamedTuple):
    """Rows of a batch that are computed together."""

    item_seq: Tensor  # [b, L']   their histories
    rows: Tensor  # [b]       their numbers


def groups_of(batch: WindowBatch, positions: Tensor | None = None, waste: float = 0.1) -> list[Group]:
    """The rows of a batch by similar length.

    Args:
        positions: what rows cost to read, by which they are grouped [B]; their lengths if not given.
        waste: padding is at most this share of all positions computed.
    """
    groups = length_groups(batch.length if positions is None else positions, waste)
    return [Group(batch.item_seq[rows, : int(batch.length[rows].max())], rows) for rows in groups]


def targets_of(batch: WindowBatch, groups: list[Group], states: Iterable[Tensor]) -> Targets:
    """All targets of a batch and the states before them.

    Args:
        states: of every group, [b, L', ...].
    """
    found, places = [], []
    for (item_seq, rows), states_of_group in zip(groups, states):
        row, place = (batch.next_items[rows, : item_seq.shape[1]] > 0).nonzero(as_tuple=True)
        found.append(states_of_group[row, place])
        places.append(torch.stack([rows[row], place]))
    row, place = torch.cat(places, dim=1)
    return Targets(torch.cat(found), batch.next_items[row, place], batch.item_seq, row, place)


def targets_with_states(
    batch: WindowBatch,
    states_of: Callable[[Tensor, Tensor], Tensor],
    positions: Tensor | None = None,
    waste: float = 0.1,
) -> Targets:
    """All targets of a batch and the states before them; rows of similar length are computed together.

    Args:
        states_of: from histories [b, L'] and the numbers of their rows [b] to states [b, L', ...].
        positions, waste: of :func:`groups_of`.
    """
    groups = groups_of(batch, positions, waste)
    return targets_of(batch, groups, (states_of(*group) for group in groups))


def some_targets(next_items: Tensor, sampled: int) -> Tensor:
    """The last target of every row [B, L] and up to this many drawn ones; the others are 0."""
    is_target = next_items > 0
    place = torch.arange(next_items.shape[1], device=next_items.device)
    last = (place * is_target).amax(1, keepdim=True)  # [B, 1]
    chance = torch.rand(next_items.shape, device=next_items.device).masked_fill(~is_target, -1.0)
    chance.scatter_(1, last, 2.0)
    chosen = chance.topk(min(1 + sampled, next_items.shape[1])).indices
    return next_items * torch.zeros_like(is_target).scatter_(1, chosen, True)


def repeat_rate(histories: Histories) -> float:
    """Share of training targets that stand in their history already, strictly between 0 and 1."""
    users, items = histories.pairs()
    targets = max(len(items) - len(histories.users), 1)
    distinct = len(np.unique(users.astype(np.int64) * (items.max(initial=0) + 1) + items))
    return (len(items) - distinct + 1) / (targets + 2)


def candidate_sampler(config: Any, histories: Histories, n_items: int) -> CandidateSampler | None:
    """What draws the negatives of the ranking loss, N = ``n_items`` with the padding; None for the whole catalogue."""
    count, alpha = config["ranking_negatives"], config["ranking_negatives_alpha"]
    if not count:
        return None
    if config["lazy_adam"] and count >= n_items - 1:
        raise ValueError(
            f"lazy_adam=True updates the item vectors that a step draws, and ranking_negatives={count} are all "
            f"{n_items - 1} items: leave lazy_adam at False"
        )
    popularity = torch.from_numpy(np.bincount(histories.items, minlength=n_items)) if alpha else None
    return CandidateSampler(count, n_items, popularity, alpha)
