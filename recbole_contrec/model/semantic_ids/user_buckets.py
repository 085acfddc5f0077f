"""
recbole_contrec.model.semantic_ids.user_buckets
###############################################
What TIGER's language model reads of a user.
"""

import torch
from torch import Tensor, nn

from recbole_contrec.data.windows import Histories


class UserBuckets(nn.Embedding):
    """Learned vectors that users share by their number.

    Args:
        buckets: of users.
        hidden_size: D.
        histories: of training.
    """

    trained: Tensor  # [buckets] bool

    def __init__(self, buckets: int, hidden_size: int, histories: Histories):
        super().__init__(buckets, hidden_size)
        taken = torch.from_numpy(histories.users).long() % buckets
        trained = torch.zeros(buckets, dtype=torch.bool).index_fill_(0, taken, True)
        self.register_buffer("trained", trained, persistent=False)

    def forward(self, user: Tensor, item_seq: Tensor | None = None) -> Tensor:
        """The vectors of users [B], [B, 1, D]; for somebody new (0) the mean of those that are trained. Histories
        [B, L] are not read."""
        new = self.weight[self.trained].mean(0)  # [D]
        return torch.where((user == 0)[:, None], new, super().forward(user % self.num_embeddings))[:, None]
