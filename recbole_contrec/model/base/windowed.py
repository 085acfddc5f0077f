"""
recbole_contrec.model.base.windowed
###################################
What every model that trains on whole windows shares: which positions are targets, and their states.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from recbole_contrec.backbone import length_groups
from recbole_contrec.data.windows import NEXT_PREFIX, Histories


class Targets(NamedTuple):
    """The targets of a batch: n items to be predicted."""

    states: Tensor | None  # [n, ...]  before the target
    items: Tensor  # [n]       the target
    item_seq: Tensor  # [B, L]    histories of the batch
    row: Tensor  # [n]       where in `item_seq` the item before the target stands
    place: Tensor  # [n]

    def histories(self) -> Tensor:
        """Items of the window up to each target, [n, L], 0 = none."""
        later = torch.arange(self.item_seq.shape[1], device=self.place.device) > self.place[:, None]
        return self.item_seq[self.row].masked_fill(later, 0)


class Windowed:
    """Mixin over a RecBole ``SequentialRecommender`` whose batches are windows of
    :class:`~recbole_contrec.data.windows.WindowLoader`, or RecBole's own rows with one target each.
    """

    @property
    def windows(self):
        """See :class:`~recbole_contrec.interface.CountsTargets`."""
        return self

    sampled_prefixes: int | None = None  # targets drawn from a row beside its last one; None trains them all

    def count_targets(self, interaction) -> int:
        """Targets of a training batch."""
        counts = (self._all_next_items(interaction) > 0).sum(1)  # [B]
        return int((counts if self.sampled_prefixes is None else counts.clamp(max=1 + self.sampled_prefixes)).sum())

    def _next_items(self, interaction) -> Tensor:
        """The target after every position [B, L], 0 = none."""
        next_items = self._all_next_items(interaction)
        return next_items if self.sampled_prefixes is None else some_targets(next_items, self.sampled_prefixes)

    def _all_next_items(self, interaction) -> Tensor:
        if NEXT_PREFIX + self.ITEM_SEQ in interaction:
            return interaction[NEXT_PREFIX + self.ITEM_SEQ]
        item_seq, last = interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN] - 1
        return torch.zeros_like(item_seq).scatter_(1, last[:, None], interaction[self.POS_ITEM_ID][:, None])

    def _fitting(self, item_seq: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
        """Histories [B, L] as far as they can be read, and what goes with them: here all."""
        return item_seq, *others

    def _positions(self, item_seq: Tensor, length: Tensor) -> Tensor:
        """What rows of some length [B] cost to read, by which they are grouped [B]."""
        return length

    def _targets_without_states(self, interaction) -> Targets:
        """All targets of a batch, for models that read a history anew for each."""
        item_seq, next_items = interaction[self.ITEM_SEQ], self._next_items(interaction)  # [B, L]
        row, place = (next_items > 0).nonzero(as_tuple=True)  # [n]
        return Targets(None, next_items[row, place], item_seq, row, place)

    def _states_with_targets(
        self, interaction, states_of: Callable[[Tensor, Tensor], Tensor], beside: Tensor | int = 0
    ) -> Targets:
        """All targets of a batch and the states before them; rows of similar length are computed together.

        Args:
            states_of: from histories [b, L'] and the numbers of their rows [b] to states [b, L', D].
            beside: positions that rows cost beside those of their histories [B].
        """
        item_seq, length = interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN]
        next_items = self._next_items(interaction)  # [B, L]
        item_seq, length, next_items = self._fitting(item_seq, length, next_items)
        states, places = [], []
        # The longest history and the most words beside may be of two rows of a group: some more padding than it counts on.
        waste = 0.1 if isinstance(beside, int) else 0.05
        for rows in length_groups(self._positions(item_seq, length) + beside, waste):
            longest = int(length[rows].max())
            row, place = (next_items[rows, :longest] > 0).nonzero(as_tuple=True)
            states.append(states_of(item_seq[rows, :longest], rows)[row, place])  # of [b, L', D]
            places.append(torch.stack([rows[row], place]))
        row, place = torch.cat(places, dim=1)
        return Targets(torch.cat(states), next_items[row, place], item_seq, row, place)


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
