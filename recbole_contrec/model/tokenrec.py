r"""
recbole_contrec.model.tokenrec
##############################

Reference:
    Haohao Qu et al. "TokenRec: Learning to Tokenize ID for LLM-based Generative Recommendations." in IEEE TKDE 2025.
    https://arxiv.org/abs/2406.10450
"""

import logging
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import torch
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import SequentialRecommender
from torch import Tensor, nn

from recbole_contrec.backbone import (
    CausalDecoder,
    EncoderDecoder,
    PretrainedDecoder,
    PretrainedModel,
    PretrainedT5,
    Prompt,
)
from recbole_contrec.interface import Stage
from recbole_contrec.item_vectors.sources import check_source, vector_stages
from recbole_contrec.model.parts.code_table import CODE_RMS, CodeTable
from recbole_contrec.model.parts.code_tokens import ItemCodes, QuantiserSettings, user_codes_of
from recbole_contrec.model.parts.history import (
    EncoderDecoderHistory,
    HistoryEncoder,
    HistoryEncoding,
    distinct_histories,
    room_for_history,
)
from recbole_contrec.model.parts.instructions import instructions_of
from recbole_contrec.model.parts.learned_vectors import ItemVectors, ItemVectorSettings, check_lazy
from recbole_contrec.model.parts.pretrained import changed, check_language_model, pretrained_model
from recbole_contrec.model.parts.settings import DecoderSettings, PretrainedSettings, RetrievalSettings
from recbole_contrec.model.parts.targets import TrainingWindows, candidate_sampler, repeat_rate
from recbole_contrec.model.parts.text_similarity import TextSimilarity
from recbole_contrec.model.parts.unread import check_unread
from recbole_contrec.retrieval import Retrieval, pairwise_cosine_loss
from recbole_contrec.tokenizer import FoldIn, seen_rows

logger = logging.getLogger("recbole_contrec")

SAME_CODES = 0.9  # of the codes of items; those of other vectors agree by chance, and rounding moves few


class TokenRecLoss(NamedTuple):
    """Weighted terms; the trainer minimises their sum and logs each by its name."""

    ranking: Tensor
    pairwise: Tensor


class TokenRec(SequentialRecommender):
    r"""TokenRec reads users and items as discrete codes and generates the next preference in one pass.

    A masked vector quantiser turns collaborative vectors into K codes a user and an item; each code is a new word of a
    language model, which reads one of several instructions, the user's codes and the history; its states
    are projected to the space of the item vectors, and similarity to these ranks the catalogue: nothing is decoded word
    by word, and there is no beam.

    Its parts, in the order in which they work:

    - ``users``, ``items``, ``item_vectors``: what is read of users and items,
    - ``history``: lays it out in a ``prompt`` and reads it with the ``backbone``,
    - ``projection``: from a state to a preference,
    - ``retrieval``: scores items by it.

    NOTE:
        What the paper leaves open or what ranks badly as published is decided in ``properties/model/TokenRec.yaml``
        (ranks best) and ``TokenRec-paper.yaml`` (the recipe as far as it is known); both say where and why.
        The instruction stands in front of the codes instead of around them, so that one pass trains every position.

    Axes: B batch, L history length, K tokens, C codes, P states of an answer, D width of the language model,
    d width of an item vector, N items, n targets of a batch.

    Raises:
        ValueError: settings that do not go together.
        UserError: a pretrained language model that cannot be had, or is of another kind.
    """

    def __init__(self, config: Mapping[str, Any], dataset: Any):
        super().__init__(config, dataset)

        # load parameters info
        self.check_settings(config)
        self.config = config  # also read by the stages before training
        self.n_users = dataset.num(self.USER_ID)
        self.causal = config["backbone"] == "causal"  # every position of a window then has a state of its own
        self.windows = TrainingWindows(self, None if self.causal else config["sampled_prefixes"])
        self.quantiser_settings = QuantiserSettings.from_config(config)
        self.ranking_weight = config["ranking_weight"]
        self.pairwise_weight, self.pairwise_margin = config["pairwise_weight"], config["pairwise_margin"]
        retrieval = RetrievalSettings.from_config(config)
        size, num_codebooks = config["vector_size"], config["num_codebooks"]
        pretrained = self._pretrained(config)
        hidden_size = pretrained.hidden_size if pretrained else config["hidden_size"]

        # what the language model reads; the quantisers are fitted by the stages, and frozen
        self.items = ItemCodes(self.quantiser_settings.new(num_codebooks, self.n_items - 1), self.n_items, hidden_size)
        self.users = user_codes_of(config, self.quantiser_settings, self.n_users, self.n_items, hidden_size)
        self.item_vectors = ItemVectors(self.n_items, hidden_size, ItemVectorSettings.from_config(config))

        # prompt and language model
        self.prompt = Prompt(
            hidden_size,
            soft_prompt_length=0,
            n_user_tokens=config["num_user_codebooks"],
            n_item_tokens=num_codebooks,
            item_positions=config["item_positions"],
            max_items=self.max_seq_length,
            instructions=instructions_of(config, hidden_size, pretrained),
            token_scale=pretrained.word_size / CODE_RMS if pretrained else 1.0,
        )
        sizes = vars(DecoderSettings.from_config(config))
        parts = self.items, self.users, self.item_vectors
        self.backbone: Any  # a decoder or an encoder-decoder, whose parts are different ones
        if self.causal:
            self.backbone = pretrained or CausalDecoder(**sizes, max_positions=self.prompt.max_positions)
            limit: int = min(self.prompt.max_positions, self.backbone.max_positions)
            self.history = HistoryEncoder(
                self.prompt, self.backbone, *parts, room=room_for_history(self.prompt, limit, 0)
            )
        else:
            self.backbone = pretrained or EncoderDecoder(**sizes, decoder_query_tokens=config["decoder_query_tokens"])
            self.history = EncoderDecoderHistory(self.prompt, self.backbone, *parts, shuffled=config["shuffle_history"])

        # from a state to a preference, and from a preference to scores
        states = 1 if self.causal else self.backbone.decoder_query_tokens
        self.projection = projection(states * hidden_size, config["projection_size"], size, config["dropout"])
        self.retrieval = Retrieval(
            **vars(retrieval),
            repeat_rate=repeat_rate(dataset.histories) if config["repeat_bias"] else None,
            text_similarity=TextSimilarity.of(config, dataset, self.n_items),
            sampler=candidate_sampler(config, dataset.histories, self.n_items),
            sparse=bool(config["lazy_adam"]),
        )

        # parameters initialization
        nn.init.normal_(self.item_vectors.weight, std=0.02)

    def _pretrained(self, config: Any) -> PretrainedModel | None:
        """The pretrained language model that the settings name, None for the compact ones."""
        settings = PretrainedSettings.from_config(config)
        if self.causal:
            return pretrained_model(settings, PretrainedDecoder)
        return pretrained_model(settings, PretrainedT5, answer_prefix=config["answer_prefix"])

    # before anything is loaded, see :mod:`recbole_contrec.interface`

    @staticmethod
    def check_settings(config: Any) -> None:
        """Stop where settings contradict each other; leave the shuffling out that a preset has for another backbone.

        Raises:
            ValueError: names the settings.
        """
        _keep_order(config)
        _check_settings(config)

    check_unread = staticmethod(check_unread)

    # stages before training

    def check_sources(self, dataset: Any) -> None:
        """Stop before anything is written where the stages lack what they are made of.

        Raises:
            UserError: says what is missing.
        """
        check_source(self.config, dataset)

    def stages(self, dataset: Any) -> Iterator[Stage]:
        """Item vectors, then the quantisers; see :class:`~recbole_contrec.interface.HasStages`."""
        vectors: dict[str, Tensor] = {}
        yield from self.vector_stages(dataset, vectors)
        self.item_vectors.start(vectors["items"])
        yield self.quantiser_settings.stage("item tokenizer", self.items, vectors["items"])
        if self.users is not None:
            yield self.quantiser_settings.stage("user tokenizer", self.users, vectors["users"])
        if self.retrieval.text_similarity is not None:
            yield from self.retrieval.text_similarity.stages(self.config, dataset, vectors)

    # RecBole's methods

    def forward(self, item_seq: Tensor, user: Tensor) -> Tensor:
        """States after every item [B, L, D] for histories [B, L] padded at the end and users [B]. With the causal
        backbone alone: T5 gives one answer a history."""
        return self.history.states(item_seq, user)

    def calculate_loss(self, interaction: Interaction) -> TokenRecLoss:
        """Mean loss over the targets of a batch: every position of a window with the causal backbone, the last one and
        some drawn ones with T5, or the one of RecBole's own rows."""
        targets = self.history.targets(self.windows(interaction))  # states [n, D] or [n, P D]
        preference = self.projection(targets.states)  # [n, d]
        table = self.item_vectors.weight  # [N, d]
        ranking = pairwise = preference.new_zeros(())
        if self.ranking_weight:
            ranking = self.retrieval.ranking_loss(
                preference,
                table,
                targets.items,
                None if self.retrieval.repeat_bias is None else targets.histories(),
            )
        if self.pairwise_weight:
            sparse = self.item_vectors.sparse
            pairwise = pairwise_cosine_loss(preference, table, targets.items, self.pairwise_margin, sparse)
        return TokenRecLoss(self.ranking_weight * ranking, self.pairwise_weight * pairwise)

    def predict(self, interaction: Interaction) -> Tensor:
        """Score of one item a row [B]."""
        item_seq, item = interaction[self.ITEM_SEQ], interaction[self.ITEM_ID]  # [B, L], [B]
        first, of_row = distinct_histories(item_seq, interaction[self.USER_ID])
        preference = self.generate_preferences(interaction[first])[of_row]  # [B, d]
        return self.retrieval.paired_scores(preference, self.item_vectors(item), item, item_seq)

    def full_sort_predict(self, interaction: Interaction) -> Tensor:
        """Scores of the whole catalogue [B, N], fresh and writable."""
        preference = self.generate_preferences(interaction)  # [B, d]
        return self.retrieval.scores(preference, self.item_vectors.weight, interaction[self.ITEM_SEQ])

    # beyond RecBole's methods, see :mod:`recbole_contrec.interface`

    @torch.no_grad()
    def generate_preferences(self, interaction: Interaction) -> Tensor:
        """Preference vectors [B, d] for the histories of a batch."""
        return self.projection(self.encode_histories(interaction).conditions)

    @torch.no_grad()
    def encode_histories(self, interaction: Interaction) -> HistoryEncoding:
        """Read the histories of a batch, each once."""
        histories = interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN], interaction[self.USER_ID]
        return HistoryEncoding(self.history.conditions(*histories))

    @torch.no_grad()
    def top_k(
        self, interaction: Interaction, k: int, excluded: Tensor | None = None, encoding: HistoryEncoding | None = None
    ) -> tuple[Tensor, Tensor]:
        """Scores [B, k] and item numbers [B, k] of the best items, in memory that does not grow with the catalogue.

        Args:
            excluded: item numbers [B, E] not to be returned, 0 = none.
            encoding: of :meth:`encode_histories`, where the batch has been read already.
        """
        preference = self.projection((encoding or self.encode_histories(interaction)).conditions)
        return self.retrieval.top_k(preference, self.item_vectors.weight, k, excluded, interaction[self.ITEM_SEQ])

    def no_single_pass(self) -> str | None:
        """Why preferences take more than one pass over a history; None where they do not."""
        return self.history.no_single_pass()

    def preference_in_one_pass(self, item_seq: Tensor, length: Tensor) -> Tensor:
        """Preference vectors [B, d], see :class:`~recbole_contrec.interface.ReadsHistoriesInOnePass`."""
        return self.projection(self.history.in_one_pass(item_seq, length))

    @property
    def code_table(self) -> CodeTable:
        """Of the items."""
        return self.items.table

    # new users and new items

    @property
    def user_fold_in(self) -> FoldIn | None:
        """What makes vectors of users out of the histories that they bring."""
        return None if self.users is None else self.users.fold_in

    def vector_stages(self, dataset: Any, vectors: dict[str, Tensor]) -> Iterator[Stage]:
        """The stages that fill ``vectors`` with ``users`` [U, d] and ``items`` [N, d], and with that the fold-in."""
        yield from vector_stages(self.config, dataset, vectors)
        if self.user_fold_in is not None:
            self.user_fold_in.fit(vectors["users"], vectors["items"], *dataset.histories.pairs())

    def reads_items_as(self, vectors: Tensor) -> bool:
        """Whether the codes of the items are those that collaborative vectors [N, d] give."""
        codes = self.quantiser_settings.codes(self.items.quantiser, vectors)  # [N, K]
        same = codes == self.items.table.codes.cpu()
        return bool(same[seen_rows(vectors)].double().mean() > SAME_CODES)

    def retrieval_vectors(self, vectors: Tensor, known_vectors: Tensor, known: Tensor) -> Tensor:
        """Where items that were not in training lie among the item vectors [m, d], see
        :meth:`ItemVectors.predicted`."""
        return self.item_vectors.predicted(vectors, known_vectors, known)

    def add_items(self, count: int) -> None:
        """Room for more items at the end of every table."""
        self.n_items += count
        of_retrieval = self.retrieval.text_similarity, self.retrieval.sampler
        parts: Any = filter(None, (self.item_vectors, self.items, self.user_fold_in, *of_retrieval))
        for part in parts:
            part.add_items(count)

    @torch.no_grad()
    def set_items(self, items: Tensor, vectors: Tensor, retrieval: Tensor) -> None:
        """Write items [m] that were not in training: codes from their collaborative vectors [m, d], and their vectors
        in the retrieval space [m, d]."""
        items = items.to(self.device)
        self.item_vectors.weight[items] = retrieval.to(self.device)
        self.items.set(items, vectors.to(self.device))

    @property
    def text_vectors(self) -> Tensor | None:
        """By which the texts of items are compared [N, w], for writing as well; None where they are not."""
        texts = self.retrieval.text_similarity
        return None if texts is None else texts.vectors

    def hold_back(self, penalty: Tensor | None) -> None:
        """Take a penalty [N] off the scores of the items; None for no penalty."""
        self.retrieval.score_penalty = penalty


def projection(inputs: int, width: int, outputs: int, dropout: float) -> nn.Module:
    """From states to preference vectors: one hidden layer of this width, or a linear map where it is 0."""
    if not width:
        return nn.Linear(inputs, outputs)
    return nn.Sequential(nn.Linear(inputs, width), nn.GELU(), nn.Dropout(dropout), nn.Linear(width, outputs))


def _keep_order(config: Any) -> None:
    """Leave out the shuffling that a preset asks for with its T5, where a causal backbone takes the place of that."""
    if config["backbone"] == "causal" and config["shuffle_history"] and not config.is_given("shuffle_history"):
        config.resolve(shuffle_history=False)
        logger.warning(
            "shuffle_history=False, not True as in %s: in one causal pass every item is also the next target",
            config["model"],
        )


def _check_settings(config: Any) -> None:
    """Settings that would be ignored, or train nothing.

    Raises:
        ValueError: names the settings.
    """
    if not config["ranking_weight"] and not config["pairwise_weight"]:
        raise ValueError("ranking_weight and pairwise_weight are both 0: nothing would be learned")
    if config["pairwise_weight"] and config["similarity"] != "cosine":
        raise ValueError(f"pairwise_weight trains a cosine: similarity={config['similarity']} cannot retrieve by it")
    if config["repeat_bias"] and not config["ranking_weight"]:
        raise ValueError("repeat_bias is learned by the ranking loss: it needs ranking_weight above 0")
    check_lazy(config)
    if config["shuffle_history"] and config["backbone"] == "causal":
        raise ValueError(
            "shuffle_history needs backbone=t5, since in one causal pass every item is also the next target: set "
            "shuffle_history=False as well"
        )
    if not config["train_item_vectors"] and config["item_vectors_init"] == "random":
        raise ValueError("train_item_vectors=False would keep random vectors: set item_vectors_init=vectors")
    check_language_model(config)
    ItemVectorSettings.from_config(config)
    RetrievalSettings.from_config(config)
    if config["llm"] is not None and changed(config, "decoder_query_tokens"):
        raise ValueError("decoder_query_tokens is of the compact T5: a pretrained one reads the words of answer_prefix")
    if (config["llm"] is None or config["backbone"] == "causal") and changed(config, "answer_prefix"):
        raise ValueError("answer_prefix needs backbone=t5 and llm: it is what the decoder of a pretrained T5 reads")
