"""A model of one's own: the next item by the last one."""

from recbole.model.abstract_recommender import SequentialRecommender
from torch import nn


class LastItem(SequentialRecommender):
    """Scores are a matrix product of the last item's vector with all others."""

    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        self.last = nn.Embedding(self.n_items, config["width"], padding_idx=0)
        self.next = nn.Linear(config["width"], self.n_items)
        self.loss = nn.CrossEntropyLoss()

    def _scores(self, interaction):
        """[B, N], of all items."""
        sequence, length = interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN]
        return self.next(self.last(sequence.gather(1, length[:, None] - 1).squeeze(1)))

    def calculate_loss(self, interaction):
        """Cross entropy over the catalogue."""
        return self.loss(self._scores(interaction), interaction[self.POS_ITEM_ID])

    def predict(self, interaction):
        """[B], of the items that are asked for."""
        return self._scores(interaction).gather(1, interaction[self.ITEM_ID][:, None]).squeeze(1)

    def full_sort_predict(self, interaction):
        """[B, N]"""
        return self._scores(interaction)
