r"""
recbole_contrec.model.sasrec_all
################################################

Reference:
    Wang-Cheng Kang et al. "Self-Attentive Sequential Recommendation." in ICDM 2018.
    https://arxiv.org/abs/1808.09781
"""

from typing import NamedTuple

from recbole.model.sequential_recommender import SASRec
from torch import Tensor

from recbole_contrec.model.windowed import Windowed, repeat_rate
from recbole_contrec.retrieval import Retrieval


class SASRecAllLoss(NamedTuple):
    """The one term; the trainer logs it by its name."""

    ranking: Tensor


class SASRecAll(Windowed, SASRec):
    r"""RecBole's SASRec, its class and its parameters, trained with the softmax at every position of a window.

    NOTE:
        The control for ContRec's training on whole histories: what SASRec gains from the same windows, targets and
        training recipe. Without the repeat bias, scores are those of RecBole; with it, they are the control for that.
    """

    def __init__(self, config, dataset):
        super().__init__(config, dataset)
        self.config = config
        self.catalogue = Retrieval("inner", repeat_rate=repeat_rate(dataset.histories) if config["repeat_bias"] else None)

    def states(self, item_seq: Tensor) -> Tensor:
        """States after every item of histories padded at the end, [B, L] -> [B, L, D]; SASRec's ``forward`` gives
        the last one of each row."""
        positions = self.position_embedding.weight[:item_seq.size(1)]             # [L, D]
        inputs = self.dropout(self.LayerNorm(self.item_embedding(item_seq) + positions))
        return self.trm_encoder(inputs, self.get_attention_mask(item_seq), output_all_encoded_layers=False)[-1]

    def calculate_loss(self, interaction) -> SASRecAllLoss:
        """Mean cross entropy of the next item over the targets of a batch, as SASRec computes it for its one."""
        targets = self._states_with_targets(interaction, lambda item_seq, rows: self.states(item_seq))
        history = targets.histories() if self.config["repeat_bias"] else None
        return SASRecAllLoss(self.catalogue.ranking_loss(targets.states, self.item_embedding.weight, targets.items,
                                                         history=history))

    def predict(self, interaction) -> Tensor:
        """Score of one item a row [B]."""
        item, history = interaction[self.ITEM_ID], interaction[self.ITEM_SEQ]
        state = self.forward(history, interaction[self.ITEM_SEQ_LEN])             # [B, D]
        return self.catalogue.paired_scores(state, self.item_embedding(item), item, history)

    def full_sort_predict(self, interaction) -> Tensor:
        """Scores of the whole catalogue [B, N]."""
        history = interaction[self.ITEM_SEQ]
        state = self.forward(history, interaction[self.ITEM_SEQ_LEN])             # [B, D]
        return self.catalogue.scores(state, self.item_embedding.weight, history)
