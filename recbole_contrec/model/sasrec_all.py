r"""
recbole_contrec.model.sasrec_all
################################

Reference:
    Wang-Cheng Kang et al. "Self-Attentive Sequential Recommendation." in ICDM 2018.
    https://arxiv.org/abs/1808.09781
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from recbole.data.interaction import Interaction
from recbole.model.sequential_recommender import SASRec
from torch import Tensor

from recbole_contrec.model.parts.targets import TrainingWindows, repeat_rate, targets_with_states
from recbole_contrec.retrieval import Retrieval
from recbole_contrec.tokenizer import standardise, svd_vectors

if TYPE_CHECKING:
    from recbole.data.interaction import Interaction


class SASRecAllLoss(NamedTuple):
    """The one term; the trainer logs it by its name."""

    ranking: Tensor


class SASRecAll(SASRec):
    r"""RecBole's SASRec, its class and its parameters, trained with the softmax at every position of a window.

    NOTE:
        The control for ContRec's training on whole histories: what SASRec gains from the same windows, targets and
        training recipe. Without the repeat bias, scores are those of RecBole; with it, they are the control for that.
        So is an embedding table that starts at the vectors which ContRec makes its tokens of.
    """

    def __init__(self, config: Mapping[str, Any], dataset: Any):
        super().__init__(config, dataset)
        self.windows = TrainingWindows(self)
        self.catalogue = Retrieval(
            "inner", repeat_rate=repeat_rate(dataset.histories) if config["repeat_bias"] else None
        )
        if config["item_embedding_init"] == "svd":
            self._start_at_vectors(dataset, config["seed"])

    @torch.no_grad()
    def _start_at_vectors(self, dataset: Any, seed: int) -> None:
        """As ContRec's retrieval space does: truncated SVD of the training interactions, at the scale of RecBole's
        random start."""
        size, scale = self.item_embedding.embedding_dim, self.initializer_range
        users, items = dataset.histories.pairs()
        vectors = svd_vectors(users, items, dataset.user_num, dataset.item_num, size, seed=seed)
        self.item_embedding.weight.copy_(scale * standardise(vectors.items))

    def states(self, item_seq: Tensor) -> Tensor:
        """States after every item of histories padded at the end, [B, L] -> [B, L, D]; SASRec's ``forward`` gives
        the last one of each row."""
        positions = self.position_embedding.weight[: item_seq.size(1)]  # [L, D]
        inputs = self.dropout(self.LayerNorm(self.item_embedding(item_seq) + positions))
        return self.trm_encoder(inputs, self.get_attention_mask(item_seq), output_all_encoded_layers=False)[-1]

    def calculate_loss(self, interaction: Interaction) -> SASRecAllLoss:
        """Mean cross entropy of the next item over the targets of a batch, as SASRec computes it for its one."""
        targets = targets_with_states(self.windows(interaction), lambda item_seq, rows: self.states(item_seq))
        history = None if self.catalogue.repeat_bias is None else targets.histories()
        return SASRecAllLoss(
            self.catalogue.ranking_loss(targets.states, self.item_embedding.weight, targets.items, history=history)
        )

    def predict(self, interaction: Interaction) -> Tensor:
        """Score of one item a row [B]."""
        item, history = interaction[self.ITEM_ID], interaction[self.ITEM_SEQ]
        state = self.forward(history, interaction[self.ITEM_SEQ_LEN])  # [B, D]
        return self.catalogue.paired_scores(state, self.item_embedding(item), item, history)

    def full_sort_predict(self, interaction: Interaction) -> Tensor:
        """Scores of the whole catalogue [B, N]."""
        history = interaction[self.ITEM_SEQ]
        state = self.forward(history, interaction[self.ITEM_SEQ_LEN])  # [B, D]
        return self.catalogue.scores(state, self.item_embedding.weight, history)
