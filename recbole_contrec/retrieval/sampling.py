"""
recbole_contrec.retrieval.sampling
##################################
Negatives of the ranking loss: a sample of the catalogue that stands for all of it.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn


class SampledItems(NamedTuple):
    """Items that stand for the catalogue.

    Attributes:
        numbers: item numbers [S], rising and distinct.
        log_weights: log of how many items each stands for [S]: its draws over their expected number.
    """

    numbers: Tensor
    log_weights: Tensor


class CandidateSampler(nn.Module):
    """Draws negatives that all targets of a batch share, with the correction that makes the sampled softmax estimate
    the full one.

    An item is drawn with a probability q that is proportional to its number of interactions to the power ``alpha``. Its
    score then gets ``log(draws) - log(count q)``, the importance weight of Bengio and Senecal (IEEE TNN 2008) and the
    logQ correction of Yi et al. (RecSys 2019): the sum of the exponentials over the sample has that over the whole
    catalogue as its expectation, whatever q is. Without it, items that are drawn often would be held down.

    The draws are stratified: the k-th falls into the k-th of ``count`` equal shares of the probability. That leaves the
    expectation as it is and lowers the variance; as many draws as there are items, with ``alpha=0``, give the whole
    catalogue, each item once. A step takes time and memory of the draws, not of the catalogue.

    Args:
        count: draws, with items drawn twice counted twice.
        n_items: N, with the padding, which is never drawn.
        popularity: interactions of every item [N]; an item without any counts as one with one, as every
            item must be drawn sooner or later.
        alpha: 0 draws uniformly, 1 by popularity; word2vec takes 0.75.

    Raises:
        ValueError: ``alpha`` without numbers of interactions.
    """

    cumulative: Tensor | None  # [N - 1], of the probabilities of the items from 1 on; None for equal ones

    def __init__(self, count: int, n_items: int, popularity: Tensor | None = None, alpha: float = 0.0):
        super().__init__()
        self.count, self.n_items, self.alpha = count, n_items, alpha
        if alpha and popularity is None:
            raise ValueError(f"alpha={alpha:g} needs the number of interactions of every item")
        weights = None if not alpha or popularity is None else popularity[1:].double().clamp_min(1).pow(alpha)
        # a function of the data: not worth a place in checkpoints
        self.register_buffer("cumulative", None if weights is None else weights.cumsum(0), persistent=False)

    @property
    def covers_all(self) -> bool:
        """Whether there are as many draws as items, so that the whole catalogue is cheaper."""
        return self.count >= self.n_items - 1

    def forward(self, device: torch.device | None = None) -> SampledItems:
        """A new sample."""
        shares = torch.arange(self.count, dtype=torch.float64, device=device)
        places = (
            shares + torch.rand(self.count, dtype=torch.float64, device=device)
        ) / self.count  # [count], in [0, 1)
        if self.cumulative is None:
            drawn = (places * (self.n_items - 1)).long()
        else:
            drawn = torch.searchsorted(self.cumulative, places * self.cumulative[-1], right=True)
        drawn, draws = drawn.clamp_(max=self.n_items - 2).unique_consecutive(return_counts=True)  # they rise already
        if self.cumulative is None:
            expected = torch.full_like(draws, self.count / (self.n_items - 1), dtype=torch.float64)
        else:
            before = torch.where(drawn > 0, self.cumulative[drawn - 1], 0.0)
            expected = self.count * (self.cumulative[drawn] - before) / self.cumulative[-1]
        return SampledItems(drawn + 1, (draws / expected).log().float())

    def add_items(self, count: int) -> None:
        """More items at the end of the catalogue, each like one with a single interaction."""
        self.n_items += count
        if self.cumulative is not None:
            ones = torch.arange(1, count + 1, dtype=torch.float64, device=self.cumulative.device)
            self.cumulative = torch.cat([self.cumulative, self.cumulative[-1] + ones])
