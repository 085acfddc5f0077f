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

from recbole_contrec.backbone import CausalDecoder, PretrainedDecoder, Prompt
from recbole_contrec.errors import UserError
from recbole_contrec.interface import Stage
from recbole_contrec.item_vectors.sources import vector_stages
from recbole_contrec.model.parts.code_table import CODE_RMS
from recbole_contrec.model.parts.code_tokens import GivenItemCodes, ItemCodes, QuantiserSettings, user_codes_of
from recbole_contrec.model.parts.history import HistoryEncoder
from recbole_contrec.model.parts.instructions import instructions_of
from recbole_contrec.model.parts.learned_vectors import ItemVectors, ItemVectorSettings
from recbole_contrec.model.parts.pretrained import changed, check_language_model, pretrained_model
from recbole_contrec.model.parts.settings import DecoderSettings, PretrainedSettings
from recbole_contrec.model.parts.targets import TrainingWindows
from recbole_contrec.model.semantic_ids import (
    CodeDecoder,
    CodeDecoderSettings,
    GivenIds,
    SemanticIdRecommender,
    check_self_improvement,
    code_heads,
    names_file,
    positions_of,
    self_improvement_of,
)
from recbole_contrec.tokenizer import FoldIn, residual_kmeans


class TokenRecBeam(SemanticIdRecommender):
    r"""TokenRec that writes the next item code by code: the control for what its retrieval in one pass is worth.

    Tokenizers, codes and the reading of histories are TokenRec's, with a position for every code; ``semantic_ids`` may
    bring the codes of the items in a file. Its parts, in the order in which they work:

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
        self.check_settings(config)
        self.config = config  # also read by the stages before training
        self.windows = self.whole_windows = TrainingWindows(self)
        # every item must have codes of its own
        self.quantiser_settings = replace(QuantiserSettings.from_config(config), distinct=True)
        pretrained = pretrained_model(PretrainedSettings.from_config(config), PretrainedDecoder)
        hidden_size = pretrained.hidden_size if pretrained else config["hidden_size"]

        # what the language model reads; the quantisers are fitted by the stages, and frozen
        self.items: ItemCodes | GivenItemCodes
        if config["semantic_ids"] is not None:
            self.given_ids = GivenIds(config, dataset, without_last=False)
            # codebook_size is that of the items now; users have as many codes as by default
            self.quantiser_settings = replace(self.quantiser_settings, codebook_size=None)
            self.items = GivenItemCodes(
                self.n_items, self.given_ids.num_codebooks, self.given_ids.codebook_size, hidden_size
            )
        else:
            quantiser = self.quantiser_settings.new(config["num_codebooks"], self.n_items - 1)
            self.items = ItemCodes(quantiser, self.n_items, hidden_size)
        num_codebooks = self.items.table.num_codebooks
        n_users = dataset.num(self.USER_ID)
        self.users = user_codes_of(config, self.quantiser_settings, n_users, self.n_items, hidden_size)
        self.item_vectors = ItemVectors(self.n_items, hidden_size, ItemVectorSettings.from_config(config), place=-1)

        # prompt and language model
        self.prompt = Prompt(
            hidden_size,
            0,
            config["num_user_codebooks"],
            num_codebooks,
            "each",
            self.max_seq_length + 1,  # the prompt holds the item that is generated as well
            instructions_of(config, hidden_size, pretrained),
            token_scale=pretrained.word_size / CODE_RMS if pretrained else 1.0,
        )
        room = positions_of(config, self.prompt, pretrained)
        self.backbone: CausalDecoder | PretrainedDecoder = pretrained or CausalDecoder(
            **vars(DecoderSettings.from_config(config)), max_positions=room
        )
        self.history = HistoryEncoder(self.prompt, self.backbone, self.items, self.users, self.item_vectors)

        # what writes codes
        self.code_heads = code_heads(self.items.table)
        settings = CodeDecoderSettings.from_config(config, pretrained)
        self.decoder = CodeDecoder(self.history, self.items.table, self.code_heads, settings)

        # parameters initialization
        nn.init.normal_(self.item_vectors.weight, std=0.02)
        if not config["id_embedding"]:
            self.item_vectors.requires_grad_(False)  # nothing reads them

        # after all others, so that their random numbers do not depend on it
        self.improvement = self_improvement_of(
            config, dataset, num_codebooks, hidden_size, pretrained, self.prompt.token_scale
        )

    @staticmethod
    def check_settings(config: Any) -> None:
        """See :class:`~recbole_contrec.interface.ChecksSettings`."""
        _check_settings(config)

    # stages before training

    def stages(self, dataset: Any) -> Iterator[Stage]:
        """Item vectors, then the quantisers, then what describes the items; see
        :class:`~recbole_contrec.interface.HasStages`. Afterwards every item must have codes of its own."""
        vectors: dict[str, Tensor] = {}
        yield from vector_stages(self.config, dataset, vectors)
        if self.user_fold_in is not None:
            self.user_fold_in.fit(vectors["users"], vectors["items"], *dataset.histories.pairs())
        self.item_vectors.start(vectors["items"])
        if self.given_ids is not None:
            yield self.given_ids.stage(dataset, self.items.table, self.decoder.assign)
        elif isinstance(self.items, ItemCodes):
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
    """Settings that would be ignored, or cannot be.

    Raises:
        ValueError: names the settings.
    """
    if not config["id_embedding"]:
        for key in changed(config, "item_vectors_init", "train_item_vectors"):
            raise ValueError(f"{key}={config[key]}: without id_embedding nothing reads item vectors here")
    if not config["train_item_vectors"] and config["item_vectors_init"] == "random":
        raise ValueError("train_item_vectors=False would keep random vectors: set item_vectors_init=vectors")
    if config["semantic_ids"] is not None and not names_file(config["semantic_ids"]):
        raise ValueError(f"semantic_ids={config['semantic_ids']}: name a .json or .npy file, or ~ for TokenRec's codes")
    check_language_model(config)
    ItemVectorSettings.from_config(config)
    if config["semantic_ids"] is None:
        check_self_improvement(config, config["num_codebooks"])
    else:
        check_self_improvement(config)
