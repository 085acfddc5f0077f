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

from recbole_contrec.model.windowed import Windowed
from recbole_contrec.retrieval import CatalogueCrossEntropy


class SASRecAllLoss(NamedTuple):
    """The one term; the trainer logs it by its name."""

    ranking: Tensor


class SASRecAll(Windowed, SASRec):
    r"""RecBole's SASRec, its class and its parameters, trained with the softmax at every position of a window.

    NOTE:
        The control for ContRec's training on whole histories: what SASRec gains from the same windows, targets and
        training recipe. Scores are RecBole's own, to the last line.
    """

    def states(self, item_seq: Tensor) -> Tensor:
        """States after every item of histories padded at the end, [B, L] -> [B, L, D]; SASRec's ``forward`` gives
        the last one of each row."""
        positions = self.position_embedding.weight[:item_seq.size(1)]             # [L, D]
        inputs = self.dropout(self.LayerNorm(self.item_embedding(item_seq) + positions))
        return self.trm_encoder(inputs, self.get_attention_mask(item_seq), output_all_encoded_layers=False)[-1]

    def calculate_loss(self, interaction) -> SASRecAllLoss:
        """Mean cross entropy of the next item over the targets of a batch, as SASRec computes it for its one."""
        states, target = self._states_with_targets(interaction, lambda item_seq, rows: self.states(item_seq))
        return SASRecAllLoss(CatalogueCrossEntropy.apply(states, self.item_embedding.weight, target, 0.0))
