r"""
recbole_contrec.model.sasrec_all
################################

Reference:
    Wang-Cheng Kang et al. "Self-Attentive Sequential Recommendation." in ICDM 2018.
    https://arxiv.org/abs/1808.09781
"""

from collections import ChainMap
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, cast

import torch
from recbole.data.interaction import Interaction
from recbole.model.sequential_recommender import SASRec
from torch import Tensor, nn

from recbole_contrec.backbone import length_groups, rows_at_once
from recbole_contrec.errors import UserError
from recbole_contrec.interface import Stage
from recbole_contrec.item_vectors.sources import check_source, text_stages, vector_stages
from recbole_contrec.model.parts.learned_vectors import ItemVectorSettings, check_lazy, keep, kept_columns, start
from recbole_contrec.model.parts.pretrained import changed
from recbole_contrec.model.parts.targets import TrainingWindows, candidate_sampler, repeat_rate, targets_with_states
from recbole_contrec.model.parts.text_similarity import TextSimilarity
from recbole_contrec.model.parts.unread import check_unread
from recbole_contrec.retrieval import Retrieval

POSITIONS = 2**18  # of histories that are read at once where nothing is learned: what bounds the memory


class SASRecAllLoss(NamedTuple):
    """The one term; the trainer logs it by its name."""

    ranking: Tensor


class SASRecAll(SASRec):
    r"""RecBole's SASRec, its class and its parameters, trained with the softmax at every position of a window.

    NOTE:
        The control for ContRec's training on whole histories: what SASRec gains from the same windows, targets and
        training recipe. Without the repeat bias, scores are those of RecBole; with it, they are the control for that.
        So is an embedding table that starts at the vectors which ContRec makes its tokens of, and keeps those of its
        columns that texts say.

    Raises:
        ValueError: settings that do not go together.
    """

    def __init__(self, config: Mapping[str, Any], dataset: Any):
        super().__init__(config, dataset)
        self.check_settings(config)
        self.config = config
        self.windows = TrainingWindows(self)
        self.catalogue = Retrieval(
            "inner",
            repeat_rate=repeat_rate(dataset.histories) if config["repeat_bias"] else None,
            text_similarity=TextSimilarity.of(config, dataset, self.n_items),
            sampler=candidate_sampler(config, dataset.histories, self.n_items),
            sparse=bool(config["lazy_adam"]),
        )
        size = self.item_embedding.embedding_dim
        self.vector_config: Any = ChainMap({"vector_size": size}, cast(Any, config))  # for the stages before training
        self.vector_settings = ItemVectorSettings(
            size,
            trained=config["train_item_vectors"],
            start_at_vectors=config["item_vectors_init"] == "vectors",
            read=True,
            kept=kept_columns(config, size),
            lazy=bool(config["lazy_adam"]),
        )
        self.item_embedding.sparse = self.vector_settings.lazy
        self.item_embedding.weight.requires_grad_(self.vector_settings.trained)
        keep(self.item_embedding.weight, self.vector_settings.kept)

    @staticmethod
    def check_settings(config: Any) -> None:
        """Stop where settings would keep random numbers, or columns that there are not.

        Raises:
            ValueError: names the settings.
        """
        if config["item_vectors_init"] != "vectors" and not config["train_item_vectors"]:
            raise ValueError("train_item_vectors=False would keep random vectors: set item_vectors_init=vectors")
        kept_columns(config, config["hidden_size"])
        check_lazy(config)

    @staticmethod
    def check_unread(config: Any) -> None:
        """Stop before anything is loaded where nothing would read a setting.

        Raises:
            UserError: names the settings.
        """
        check_unread(config)
        _refuse_unread(config)

    # stages before training

    @property
    def _from_random(self) -> bool:
        return not self.vector_settings.start_at_vectors and self.vector_config["train_text_columns"]

    def check_sources(self, dataset: Any) -> None:
        """Stop before anything is written where the vectors cannot be had.

        Raises:
            UserError: says what is missing.
        """
        if not self._from_random or self.catalogue.text_similarity is not None:
            check_source(self.vector_config, dataset)

    def stages(self, dataset: Any) -> Iterator[Stage]:
        """Item vectors, where the item embeddings start at some, at the scale of RecBole's random start; see
        :class:`~recbole_contrec.interface.HasStages`."""
        texts = self.catalogue.text_similarity
        if self._from_random and texts is None:
            return
        vectors: dict[str, Tensor] = {}
        if self._from_random:
            yield from text_stages(self.vector_config, dataset, vectors)
        else:
            yield from vector_stages(self.vector_config, dataset, vectors)
            start(self.item_embedding.weight, vectors["items"], self.vector_settings, self.initializer_range)
        if texts is not None:
            yield from texts.stages(self.vector_config, dataset, vectors)

    # RecBole's methods

    def states(self, item_seq: Tensor) -> Tensor:
        """States after every item of histories padded at the end, [B, L] -> [B, L, D]; SASRec's ``forward`` gives
        the last one of each row."""
        positions = self.position_embedding.weight[: item_seq.size(1)]  # [L, D]
        inputs = self.dropout(self.LayerNorm(self.item_embedding(item_seq) + positions))
        return self.trm_encoder(inputs, self.get_attention_mask(item_seq), output_all_encoded_layers=False)[-1]

    def last_states(self, item_seq: Tensor, length: Tensor) -> Tensor:
        """What SASRec's ``forward`` gives for histories [B, L] of some length [B], without their padding: [B, D]. Rows
        of similar length are computed together, no more at once than the processor's cache holds."""
        states, order = [], []
        for group in length_groups(length):
            longest = int(length[group].max())
            for rows in group.split(rows_at_once(longest, POSITIONS, item_seq.device)):
                states.append(self.forward(item_seq[rows, :longest], length[rows]))
                order.append(rows)
        return torch.cat(states)[torch.cat(order).argsort()]

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
        state = self.last_states(history, interaction[self.ITEM_SEQ_LEN])  # [B, D]
        return self.catalogue.paired_scores(state, self.item_embedding(item), item, history)

    def full_sort_predict(self, interaction: Interaction) -> Tensor:
        """Scores of the whole catalogue [B, N]."""
        history = interaction[self.ITEM_SEQ]
        state = self.last_states(history, interaction[self.ITEM_SEQ_LEN])  # [B, D]
        return self.catalogue.scores(state, self.item_embedding.weight, history)

    # beyond RecBole's methods, see :class:`~recbole_contrec.interface.GeneratesPreferences`

    @property
    def retrieval(self) -> Retrieval:
        """From states and item embeddings to scores."""
        return self.catalogue

    @property
    def item_vectors(self) -> nn.Embedding:
        """SASRec's own table."""
        return self.item_embedding

    @torch.no_grad()
    def generate_preferences(self, interaction: Interaction) -> Tensor:
        """States [B, D] after the histories of a batch."""
        return self.last_states(interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN])

    def no_single_pass(self) -> str | None:
        """SASRec's ``forward`` is one."""
        return None

    def preference_in_one_pass(self, item_seq: Tensor, length: Tensor) -> Tensor:
        """States [B, D], see :class:`~recbole_contrec.interface.ReadsHistoriesInOnePass`."""
        return self.forward(item_seq, length)


def _refuse_unread(config: Any) -> None:
    """Settings of vectors that nothing would read. Asked before training alone: afterwards validation may have left
    ``text_similarity`` at 0.

    Raises:
        UserError: names the settings.
    """
    if config["item_vectors_init"] == "vectors" or not config["train_text_columns"]:
        return
    of_texts = ("text_encoder", "random_weights") if config["text_similarity"] == 0 else ()
    if unread := changed(config, "item_vectors", "text_whitening", *of_texts):
        raise UserError(
            f"SASRecAll: {', '.join(unread)}: item embeddings start at random numbers, set item_vectors_init=vectors"
        )
