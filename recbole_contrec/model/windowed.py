"""
recbole_contrec.model.windowed
##############################
What every model that trains on whole windows shares: which positions are targets, and their states.
"""

from typing import Callable

import torch
from torch import Tensor

from recbole_contrec.backbone import length_groups
from recbole_contrec.data.windows import NEXT_PREFIX


class Windowed:
    """Mixin over a RecBole ``SequentialRecommender`` whose batches are windows of
    :class:`~recbole_contrec.data.windows.WindowLoader`, or RecBole's own rows with one target each.
    """

    def count_targets(self, interaction) -> int:
        """Targets of a training batch."""
        return int((self._next_items(interaction) > 0).sum())

    def _next_items(self, interaction) -> Tensor:
        """The target after every position [B, L], 0 = none."""
        if NEXT_PREFIX + self.ITEM_SEQ in interaction:
            return interaction[NEXT_PREFIX + self.ITEM_SEQ]
        item_seq, last = interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN] - 1
        return torch.zeros_like(item_seq).scatter_(1, last[:, None], interaction[self.POS_ITEM_ID][:, None])

    def _states_with_targets(self, interaction, states_of: Callable[[Tensor, Tensor], Tensor]) -> tuple[Tensor, Tensor]:
        """States [n, D] and next items [n] of all targets; rows of similar length are computed together.

        Args:
            states_of: from histories [b, L'] and the numbers of their rows [b] to states [b, L', D].
        """
        item_seq, length = interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN]
        next_items = self._next_items(interaction)                                # [B, L]
        found, targets = [], []
        for rows in length_groups(length):
            longest = int(length[rows[0]])
            states = states_of(item_seq[rows, :longest], rows)                    # [b, L', D]
            next_of_group = next_items[rows, :longest]                            # [b, L']
            found.append(states[next_of_group > 0])
            targets.append(next_of_group[next_of_group > 0])
        return torch.cat(found), torch.cat(targets)
