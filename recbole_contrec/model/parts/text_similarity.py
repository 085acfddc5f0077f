"""
recbole_contrec.model.parts.text_similarity
###########################################
What the texts of a history say of the next item, beside what a model has learned: items are ranked higher that read
like the last ones.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_contrec.data.text import has_words, joined
from recbole_contrec.interface import Stage
from recbole_contrec.item_vectors.sources import text_similarity_stage


class TextSimilarity(nn.Module):
    """Cosine between the text of an item and those of the last items of a history, times a weight.

    A softmax over the catalogue learns that an item which nobody takes in training is not taken. Such items are ranked
    low whatever their vectors say, and every step of Adam moves these as far as those of popular items. Their texts
    still tell what they are. Nothing is learned here, so cold items gain as others do. The term is added to scores,
    never to a loss.

    Args:
        n_items: N; row 0 is the padding.
        weight: of the cosine in a score; None leaves it to validation, see
            :class:`~recbole_contrec.interface.ChosenOnValidation`. Until then it is 0.
    """

    WEIGHTS = (0.0, 1.0, 2.0, 4.0, 8.0)  # that validation chooses from
    WIDTH = 256  # of the whitened texts: on amazon-beauty 256 retrieve better than 128 or 64
    ITEMS, DECAY = 5, 0.7  # how many last items of a history count, and what each counts of the one after it

    vectors: Tensor

    def __init__(self, n_items: int, weight: float | None):
        super().__init__()
        self.weight = weight or 0.0
        self.left_to_validation = weight is None
        self.register_buffer("vectors", torch.zeros(n_items, self.WIDTH))  # of unit length, or zero without a text

    @classmethod
    def of(cls, config: Any, dataset: Any, n_items: int) -> "TextSimilarity | None":
        """What the settings ask for; None without a weight, or where it is left open and there are no words."""
        weight = config["text_similarity"]
        if weight is None:
            return cls(n_items, None) if has_words(joined(dataset.item_texts)) else None
        return cls(n_items, weight) if weight else None

    # chosen on validation

    @property
    def candidates(self) -> tuple[str, Sequence[float]]:
        """The setting and the weights that validation chooses from; none where it is given."""
        return "text_similarity", self.WEIGHTS if self.left_to_validation else ()

    def choose(self, value: float) -> None:
        """Take a weight."""
        self.weight = value

    # vectors

    def stages(self, config: Any, dataset: Any, found: dict[str, Tensor]) -> Iterator[Stage]:
        """The stage that makes the vectors.

        Args:
            found: holds ``texts`` [N, D] where a ``text_encoder`` has read the item texts.
        """
        yield text_similarity_stage(config, dataset, found, self.WIDTH, self._take)

    def _take(self, tensors: dict[str, Tensor]) -> None:
        self.vectors.copy_(F.normalize(tensors["vectors"], dim=1))

    def queries(self, history: Tensor) -> Tensor:
        """What the last items of histories [n, L], padded at the end, say together: [n, WIDTH], of unit length."""
        last = (history > 0).sum(1) - 1  # [n]
        total = self.vectors.new_zeros(history.shape[0], self.WIDTH)
        for back in range(self.ITEMS):
            place = last - back
            items = history.gather(1, place.clamp_min(0)[:, None]).squeeze(1).masked_fill(place < 0, 0)  # [n]
            total += self.DECAY**back * self.vectors[items]
        return F.normalize(total, dim=1)

    def forward(self, history: Tensor, first: int, count: int) -> Tensor:
        """What is added to the scores of the items ``first .. first + count - 1``, [n, count]."""
        return self.weight * self.queries(history) @ self.vectors[first : first + count].T

    def paired(self, history: Tensor, numbers: Tensor) -> Tensor:
        """The same for one item a history [n]."""
        return self.weight * (self.queries(history) * self.vectors[numbers]).sum(1)

    @torch.no_grad()
    def add_items(self, count: int) -> None:
        """More rows, of zeros: as those of items without a text."""
        self.vectors = torch.cat([self.vectors, self.vectors.new_zeros(count, self.WIDTH)])
