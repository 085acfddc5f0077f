"""
recbole_contrec.model.pop
#########################
"""

from typing import TYPE_CHECKING

import torch
from recbole.model.general_recommender import Pop as RecBolePop

if TYPE_CHECKING:
    from recbole.data.interaction import Interaction


class Pop(RecBolePop):
    r"""RecBole's Pop, which always recommends the most popular items, with every interaction counted.

    NOTE:
        RecBole's own counts an item once a batch, however often it stands there, and sampled negatives like
        interactions, so that its ranking depends on ``train_batch_size`` and on chance.
    """

    def calculate_loss(self, interaction: "Interaction") -> torch.Tensor:
        """Count the items of a batch; there is nothing to learn."""
        counts = torch.bincount(interaction[self.ITEM_ID], minlength=self.n_items)
        self.item_cnt += counts[:, None].to(self.item_cnt)
        self.max_cnt = self.item_cnt.max(dim=0).values
        return torch.nn.Parameter(torch.zeros(1, device=self.device))
