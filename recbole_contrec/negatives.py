"""
recbole_contrec.negatives
#########################
Negatives of a user: items that he has not interacted with in training. Knows torch alone.
"""

import numpy as np
import torch
from torch import Tensor, nn

SOURCES = ("uniform", "popularity", "batch")


class NegativeSampler(nn.Module):
    """Draws items outside of the users' training histories, exactly and without a loop over users.

    Give every item a weight, one (``uniform``) or its number of interactions (``popularity``), and lay the items out
    on a line, each as long as its weight. Cutting a user's own items out leaves a shorter line, on which a draw is a
    single random place; where that place lies on the uncut line follows from the own items cut out before it,
    which one binary search finds for all users at once. So no draw is rejected, and memory is that of the
    interactions and of the draws.

    With ``batch``, negatives are targets of the same batch, as in PreferDiff (Liu et al., ICLR 2025): each as
    likely as it is often a target. An item of the user's own is drawn again; after ``ATTEMPTS`` of them the draw is
    a uniform one.

    Args:
        users: [I], user of every training interaction.
        items: [I], its item, from 1 on.
        n_users: U, users with the padding.
        n_items: N, items with the padding, which is never drawn.
        source: one of ``SOURCES``.

    Raises:
        ValueError: unknown source, or a user to whom no negative is left.
    """

    ATTEMPTS = 8

    def __init__(self, users: np.ndarray, items: np.ndarray, n_users: int, n_items: int, source: str = "uniform"):
        super().__init__()
        if source not in SOURCES:
            raise ValueError(f"negative_source={source!r}: choose one of {', '.join(SOURCES)}")
        of_users, of_items = torch.as_tensor(users).long(), torch.as_tensor(items).long()  # [I] each
        pairs = torch.unique(of_users * n_items + of_items)  # [I'], sorted by user, then item
        weight = (
            of_items.bincount(minlength=n_items) if source == "popularity" else torch.ones(n_items, dtype=torch.long)
        )
        weight[0] = 0
        self.source, self.n_items = source, n_items
        end = weight.cumsum(0)  # [N], where an item ends on the line
        owner, own = pairs.div(n_items, rounding_mode="floor"), pairs % n_items  # [I'] each
        first = torch.searchsorted(owner, torch.arange(n_users + 1))  # [U + 1], of a user's pairs
        cut = nn.functional.pad(weight[own].cumsum(0), (1, 0))  # [I' + 1], length of all pairs before
        left = end[-1] - (cut[first[1:]] - cut[first[:-1]])  # [U], length of the user's line
        if (left == 0).any():
            raise ValueError(
                f"negatives: {int((left == 0).sum())} of {n_users - 1} users have interacted with every "
                f"item that negative_source={source} can draw; train with contrastive_weight=0"
            )
        # where on the user's line the user's own items were cut out; lines of all users lie one behind the other
        begin = end[own] - weight[own] - (cut[:-1] - cut[first[owner]])  # [I']
        self.span = int(end[-1]) + 1
        # functions of the data: not worth a place in checkpoints
        for name, tensor in dict(
            end=end,
            first=first[:-1],
            cut=cut,
            left=left,
            cuts=owner * self.span + begin,
            pairs=pairs if source == "batch" else pairs[:0],
        ).items():
            self.register_buffer(name, tensor, persistent=False)

    def forward(self, users: Tensor, count: int, targets: Tensor) -> Tensor:
        """Negatives of some users, drawn with replacement.

        Args:
            users: [n].
            count: R, negatives of each.
            targets: item numbers [n] of the batch, which the source ``batch`` draws from.

        Returns:
            Tensor: item numbers [n, R].
        """
        if self.source != "batch":
            return self._draw(users, count)
        drawn = self._redraw(targets, len(users), count)  # [n, R]
        for _ in range(self.ATTEMPTS - 1):
            drawn = torch.where(self._is_own(users, drawn), self._redraw(targets, *drawn.shape), drawn)
        return torch.where(self._is_own(users, drawn), self._draw(users, count), drawn)

    def _draw(self, users, count):
        # the remainder of a division prefers small numbers by less than one in 2^62 / left
        place = torch.randint(2**62, (len(users), count), device=users.device) % self.left[users, None]  # [n, R]
        passed = torch.searchsorted(self.cuts, users[:, None] * self.span + place, right=True)  # [n, R]
        place = place + self.cut[passed] - self.cut[self.first[users], None]
        return torch.searchsorted(self.end, place, right=True)  # [n, R]

    def _redraw(self, targets, n, count):
        return targets[torch.randint(len(targets), (n, count), device=targets.device)]

    def _is_own(self, users, items):
        """Whether items [n, R] stand in the users' histories."""
        wanted = users[:, None] * self.n_items + items  # [n, R]
        place = torch.searchsorted(self.pairs, wanted).clamp(max=len(self.pairs) - 1)
        return self.pairs[place] == wanted
