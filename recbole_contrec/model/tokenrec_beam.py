r"""
recbole_contrec.model.tokenrec_beam
###################################

Reference:
    Shashank Rajput et al. "Recommender Systems with Generative Retrieval." in NeurIPS 2023 (codes by beam search).
    https://arxiv.org/abs/2305.05065
    Haohao Qu et al. "TokenRec: Learning to Tokenize ID for LLM-based Generative Recommendations." in IEEE TKDE 2025.
    https://arxiv.org/abs/2406.10450
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from recbole_contrec.backbone import CausalDecoder, Instructions, Prompt
from recbole_contrec.errors import UserError
from recbole_contrec.interface import Stage
from recbole_contrec.item_vectors.sources import vector_stages
from recbole_contrec.model.parts.code_tokens import ItemCodes, QuantiserSettings, UserCodes
from recbole_contrec.model.parts.history import HistoryEncoder
from recbole_contrec.model.parts.learned_vectors import ItemVectors, ItemVectorSettings
from recbole_contrec.model.parts.pretrained import changed
from recbole_contrec.model.parts.settings import DecoderSettings
from recbole_contrec.model.parts.targets import TrainingWindows
from recbole_contrec.model.semantic_ids import (
    CodeDecoder,
    CodeDecoderSettings,
    SelfImprovement,
    SemanticIdRecommender,
    code_heads,
)
from recbole_contrec.tokenizer import FoldIn, residual_kmeans


class TokenRecBeam(SemanticIdRecommender):
    r"""TokenRec that writes the next item code by code: the control for what its retrieval in one pass is worth.

    Tokenizers, codes and the reading of histories are TokenRec's, with a position for every code. Its parts,
    in the order in which they work:

    - ``users``, ``items``, ``item_vectors``: what is read of users and items,
    - ``history``: lays it out in a ``prompt`` and reads it with the ``backbone``,
    - ``decoder``: writes the codes of the next item, scored by ``code_heads``,
    - ``improvement``: of the codes; None without ``self_improve``.

    NOTE:
        An item's learned vector is read with its last code: earlier, it would give the other codes away.
        There is no repeat bias: a code belongs to many items, so it cannot be told whether it repeats one.
        Items without codes, those that no training history holds, are never generated.

    Axes: B batch, L history length, K codes, D width of the language model, d width of an item vector, N items.

    Raises:
        ValueError: settings that do not go together.
    """

    def __init__(self, config: Mapping[str, Any], dataset: Any):
        super().__init__(config, dataset)

        # load parameters info
        _check_settings(config)
        self.config = config  # also read by the stages before training
        self.windows = self.whole_windows = TrainingWindows(self)
        # every item must have codes of its own
        self.quantiser_settings = replace(QuantiserSettings.from_config(config), distinct=True)
        hidden_size, num_codebooks, num_user_codebooks = (
            config["hidden_size"],
            config["num_codebooks"],
            config["num_user_codebooks"],
        )

        # what the language model reads; the quantisers are fitted by the stages, and frozen
        self.items = ItemCodes(self.quantiser_settings.new(num_codebooks, self.n_items - 1), self.n_items, hidden_size)
        self.users = None
        if num_user_codebooks:
            n_users = dataset.num(self.USER_ID)
            self.users = UserCodes(
                self.quantiser_settings.new(num_user_codebooks, n_users - 1),
                n_users,
                hidden_size,
                dropout=config["user_token_dropout"],
                fold_in=FoldIn(self.n_items, config["vector_size"]) if config["fold_in"] else None,
            )
        self.item_vectors = ItemVectors(self.n_items, hidden_size, ItemVectorSettings.from_config(config), place=-1)

        # prompt and language model
        instructions = None
        if config["instructions"]:
            instructions = Instructions(config["instructions"], config["held_out_instruction"], hidden_size)
        longest = self.max_seq_length + 1  # the prompt holds the item that is generated as well
        self.prompt = Prompt(hidden_size, 0, num_user_codebooks, num_codebooks, "each", longest, instructions)
        self.backbone = CausalDecoder(
            **vars(DecoderSettings.from_config(config)), max_positions=self.prompt.max_positions
        )
        self.history = HistoryEncoder(self.prompt, self.backbone, self.items, self.users, self.item_vectors)

        # what writes codes
        self.code_heads = code_heads(self.items.table)
        settings = CodeDecoderSettings.from_config(config)
        self.decoder = CodeDecoder(self.history, self.items.table, self.code_heads, settings)

        # parameters initialization
        nn.init.normal_(self.item_vectors.weight, std=0.02)
        if not config["id_embedding"]:
            self.item_vectors.requires_grad_(False)  # nothing reads them

        # after all others, so that their random numbers do not depend on it
        self.improvement = SelfImprovement.from_config(config, self.n_items, num_codebooks)

    # stages before training

    def stages(self, dataset: Any) -> Iterator[Stage]:
        """Item vectors, then the quantisers, then what describes the items; see
        :class:`~recbole_contrec.interface.HasStages`. Afterwards every item must have codes of its own."""
        vectors: dict[str, Tensor] = {}
        yield from vector_stages(self.config, dataset, vectors)
        if self.user_fold_in is not None:
            self.user_fold_in.fit(vectors["users"], vectors["items"], *dataset.histories.pairs())
        self.item_vectors.start(vectors["items"])
        yield self.quantiser_settings.stage("item tokenizer", self.items, vectors["items"])
        if self.users is not None:
            yield self.quantiser_settings.stage("user tokenizer", self.users, vectors["users"])
        yield from self._description_stages(dataset, vectors)
        self.decoder.forget_trie()
        try:
            _ = self.decoder.trie
        except ValueError as error:
            size = self.items.table.codebook_size
            raise UserError(f"{error}: raise codebook_size, which is {size} here, or num_codebooks") from error

    # new users, see recbole_contrec.interface

    @property
    def user_fold_in(self) -> FoldIn | None:
        """What makes vectors of users out of the histories that they bring."""
        return None if self.users is None else self.users.fold_in

    # self-improvement

    def quantise(self, vectors: Tensor) -> Tensor:
        """All codes but the last [N, K - 1] of vectors [N, D], by residual k-means."""
        table = self.items.table
        return residual_kmeans(vectors, table.num_codebooks - 1, table.codebook_size, self.config["seed"])


def _check_settings(config: Any) -> None:
    """Settings that would be ignored.

    Raises:
        ValueError: names the settings.
    """
    if not config["id_embedding"]:
        for key in changed(config, "item_vectors_init", "train_item_vectors"):
            raise ValueError(f"{key}={config[key]}: without id_embedding nothing reads item vectors here")
    if not config["train_item_vectors"] and config["item_vectors_init"] == "random":
        raise ValueError("train_item_vectors=False would keep random vectors: set item_vectors_init=vectors")
    if config["held_out_instruction"] and not config["instructions"] and changed(config, "held_out_instruction"):
        raise ValueError("held_out_instruction needs instructions to train with")
