r"""
recbole_contrec.model.contrec
#############################

Reference:
    Haohao Qu et al. "Diffusion Generative Recommendation with Continuous Tokens." in WWW 2026.
    https://arxiv.org/abs/2504.12007
"""

import logging
from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import SequentialRecommender
from torch import Tensor, nn

from recbole_contrec.backbone import CausalDecoder, PretrainedDecoder, Prompt, VocabularyInstructions
from recbole_contrec.diffusion import DiffusionHead
from recbole_contrec.interface import Stage
from recbole_contrec.item_vectors.sources import check_source, vector_stages
from recbole_contrec.model.parts.answering import AnswerGenerator, AnswerSettings, TargetsAndAnswers
from recbole_contrec.model.parts.continuous_tokens import (
    ItemTokens,
    ItemTokenSettings,
    TokenizerSettings,
    user_tokens_of,
)
from recbole_contrec.model.parts.contrec_checks import check_settings, warn_of_narrow_draws
from recbole_contrec.model.parts.history import (
    HistoryEncoder,
    HistoryEncoding,
    distinct_histories,
    positions_of_prompt,
    room_for_history,
)
from recbole_contrec.model.parts.language import language_of
from recbole_contrec.model.parts.learned_vectors import ItemVectors, ItemVectorSettings, rms_of_rows
from recbole_contrec.model.parts.pretrained import pretrained_model
from recbole_contrec.model.parts.settings import (
    DecoderSettings,
    HeadSettings,
    PretrainedSettings,
    RetrievalSettings,
    SamplingSettings,
)
from recbole_contrec.model.parts.targets import Targets, TrainingWindows, candidate_sampler, repeat_rate
from recbole_contrec.model.parts.text_similarity import TextSimilarity
from recbole_contrec.model.parts.unread import check_unread
from recbole_contrec.retrieval import Retrieval, TextEvidence
from recbole_contrec.tokenizer import FoldIn

logger = logging.getLogger("recbole_contrec")
warn_once = lru_cache(maxsize=None)(logger.warning)

TOKEN_RMS = 0.16  # size of a coordinate of what is read of an item before training (median on ml-100k)


class ContRecLoss(NamedTuple):
    """Weighted terms; the trainer minimises their sum and logs each by its name."""

    ranking: Tensor
    regression: Tensor
    dispersive: Tensor
    language: Tensor


class ContRec(SequentialRecommender):
    r"""ContRec reads users and items as continuous tokens and generates the next preference by diffusion.

    A sigma-VAE turns collaborative vectors into K continuous tokens a user and an item; a causal language model
    reads the user's tokens and the history; after every item its state conditions a diffusion head, which
    generates a preference vector in the space of the item vectors; similarity to these ranks the catalogue.

    Its parts, in the order in which they work:

    - ``users``, ``items``, ``item_vectors``, ``language``: what is read of users and items,
    - ``history``: lays it out in a ``prompt`` and reads it with the ``backbone``,
    - ``answering``: has the backbone say what comes next in words; None where nothing is said,
    - ``head``: generates preferences,
    - ``retrieval``: scores items by them.

    NOTE:
        What the paper leaves open or what ranks badly as published is decided in ``properties/model/ContRec.yaml``
        (ranks best) and ``ContRec-paper.yaml`` (the recipe as far as it is known); both say where and why.

    Axes: B batch, L history length, K tokens, D width of the language model, d width of an item vector,
    N items, M samples, n targets of a batch.

    Raises:
        ValueError: settings that do not go together.
        UserError: texts or a pretrained language model that cannot be had.
    """

    def __init__(self, config: Mapping[str, Any], dataset: Any):
        super().__init__(config, dataset)

        # load parameters info
        self.check_settings(config)
        self.config = config  # also read by the stages before training
        retrieval = RetrievalSettings.from_config(config)
        self.n_users = dataset.num(self.USER_ID)
        self.windows = TrainingWindows(self)
        self.tokenizer_settings = TokenizerSettings.from_config(config)
        self.ranking_weight = config["ranking_weight"]
        self.regression_weight = config["regression_weight"]
        self.dispersive_weight = config["dispersive_weight"]
        pretrained = pretrained_model(PretrainedSettings.from_config(config), PretrainedDecoder)
        hidden_size = pretrained.hidden_size if pretrained else config["hidden_size"]

        # what the language model reads; the tokenizers are fitted by the stages, and frozen
        item_tokenizer = self.tokenizer_settings.new(config["item_tokens"])
        self.users = user_tokens_of(config, self.tokenizer_settings, self.n_users, self.n_items, hidden_size)
        self.items = ItemTokens(item_tokenizer, self.n_items, hidden_size, ItemTokenSettings.from_config(config))
        self.item_vectors = ItemVectors(self.n_items, hidden_size, ItemVectorSettings.from_config(config))
        self.language = language_of(config, dataset, hidden_size, pretrained)

        # prompt and language model
        self.prompt = self._prompt(config, hidden_size, pretrained)
        answer = self.language.longest_answer if self.language else 0
        limit = positions_of_prompt(self.prompt, answer, pretrained, config["max_prompt_length"])
        self.backbone: Any = pretrained or CausalDecoder(
            **vars(DecoderSettings.from_config(config)),
            max_positions=limit,
            n_words=len(self.language.vocabulary) if self.language else 0,
            says=answer > 0,
        )
        self.history = HistoryEncoder(
            self.prompt,
            self.backbone,
            self.items,
            self.users,
            self.item_vectors,
            self.language,
            room=room_for_history(self.prompt, limit, answer),
        )
        self.answering = None
        if self.language is not None and answer:
            self.answering = AnswerGenerator(self.history, self.language, AnswerSettings.from_config(config))

        # from a state to a preference, and from a preference to scores
        self.head = DiffusionHead(condition_size=hidden_size, **vars(HeadSettings.from_config(config)))
        self.sampling = SamplingSettings.from_config(config)
        if config["objective"] == "denoising" and config["sampling_steps"] > 1:
            warn_of_narrow_draws(config)
        self.retrieval = self._retrieval(config, dataset, retrieval)
        self.common_noise = config["common_noise"]
        if not self.ranking_weight:
            self.retrieval.requires_grad_(False)  # its loss alone trains it

        # parameters initialization
        nn.init.normal_(self.item_vectors.weight, std=0.02)

    def _prompt(self, config: Any, hidden_size: int, pretrained: PretrainedDecoder | None) -> Prompt:
        return Prompt(
            hidden_size,
            soft_prompt_length=config["soft_prompt_length"],
            n_user_tokens=config["user_tokens"],
            n_item_tokens=config["item_tokens"],
            item_positions=config["item_positions"],
            max_items=self.max_seq_length,
            instructions=self._instructions(config, hidden_size),
            words_per_item=self.language.words_per_item if self.language else 0,
            token_scale=pretrained.word_size / TOKEN_RMS if pretrained else 1.0,
        )

    def _retrieval(self, config: Any, dataset: Any, settings: RetrievalSettings) -> Retrieval:
        return Retrieval(
            **vars(settings),
            repeat_rate=repeat_rate(dataset.histories) if config["repeat_bias"] else None,
            text_bonus=config["text_bonus"],
            text_weight=config["text_weight"],
            text_similarity=TextSimilarity.of(config, dataset, self.n_items),
            pooling=config["sample_pooling"],
            sampler=candidate_sampler(config, dataset.histories, self.n_items),
            sparse=bool(config["lazy_adam"]),
        )

    def _instructions(self, config: Any, hidden_size: int) -> VocabularyInstructions | None:
        if not config["instructions"]:
            return None
        assert self.language is not None  # whose words the instructions are of
        return VocabularyInstructions(
            config["instructions"],
            config["held_out_instruction"],
            self.language.vocabulary,
            lambda numbers: self.backbone.read(numbers),
            hidden_size,
        )

    # before anything is loaded, see :mod:`recbole_contrec.interface`
    check_settings = staticmethod(check_settings)
    check_unread = staticmethod(check_unread)

    # stages before training

    def check_sources(self, dataset: Any) -> None:
        """Stop before anything is written where the stages lack what they are made of.

        Raises:
            UserError: says what is missing.
        """
        check_source(self.config, dataset)

    def stages(self, dataset: Any) -> Iterator[Stage]:
        """Item vectors, then the tokenizers; see :class:`~recbole_contrec.interface.HasStages`."""
        vectors: dict[str, Tensor] = {}
        yield from self.vector_stages(dataset, vectors)
        self.item_vectors.start(vectors["items"])
        if self.users is not None:
            self.users.vectors.copy_(vectors["users"])

        fitted = self.tokenizer_settings.kind != "none"
        if fitted:
            yield self.tokenizer_settings.stage("item tokenizer", self.items.tokenizer, vectors["items"])
        self.items.set(torch.arange(self.n_items, device=self.device), vectors["items"].to(self.device))
        if fitted and self.users is not None:
            yield self.tokenizer_settings.stage("user tokenizer", self.users.tokenizer, vectors["users"])
        if self.retrieval.text_similarity is not None:
            yield from self.retrieval.text_similarity.stages(self.config, dataset, vectors)

    # RecBole's methods

    def forward(self, item_seq: Tensor, user: Tensor) -> Tensor:
        """Conditions after every item [B, L, D] for histories [B, L] padded at the end and users [B]."""
        return self.history.states(item_seq, user)

    def calculate_loss(self, interaction: Interaction) -> ContRecLoss:
        """Mean loss over the targets of a batch: every position of a window, or the last one of RecBole's own rows."""
        targets, language = self.targets(interaction)  # states [n, D]
        regression = dispersive = targets.states.new_zeros(())
        if self.regression_weight or self.dispersive_weight:
            vectors = self.at_unit_scale(self.item_vectors(targets.items))  # [n, d]
            regression, dispersive = self.head.loss(targets.states, vectors)
        return ContRecLoss(
            self.ranking_loss(targets),
            self.regression_weight * regression,
            self.dispersive_weight * dispersive,
            language,
        )

    def predict(self, interaction: Interaction) -> Tensor:
        """Score of one item a row [B]."""
        item_seq, item = interaction[self.ITEM_SEQ], interaction[self.ITEM_ID]  # [B, L], [B]
        first, of_row = distinct_histories(item_seq, interaction[self.USER_ID])
        encoding = self.encode_histories(interaction[first])
        drawn, text = self.preferences(encoding.conditions, item_seq[first]), self.text_evidence(encoding)
        preference = drawn[..., of_row, :]
        return self.retrieval.paired_scores(
            preference, self.item_vectors(item), item, item_seq, text and text.of_rows(of_row)
        )

    def full_sort_predict(self, interaction: Interaction) -> Tensor:
        """Scores of the whole catalogue [B, N], fresh and writable."""
        encoding = self.encode_histories(interaction)
        return self.retrieval.scores(
            self.preferences(encoding.conditions, interaction[self.ITEM_SEQ]),  # [M, B, d]
            self.item_vectors.weight,
            interaction[self.ITEM_SEQ],
            text=self.text_evidence(encoding),
        )

    # the steps of these

    def targets(self, interaction: Interaction) -> TargetsAndAnswers:
        """The targets of a training batch with the conditions before them, and the weighted loss of the answers."""
        batch = self.windows(interaction)
        if self.answering is not None:
            return self.answering.targets(batch)
        targets = self.history.targets(batch)
        return TargetsAndAnswers(targets, targets.states.new_zeros(()))

    def ranking_loss(self, targets: Targets) -> Tensor:
        """Cross entropy of the targets among the catalogue, weighted."""
        if not self.ranking_weight:
            return targets.states.new_zeros(())
        return self.ranking_weight * self.retrieval.ranking_loss(
            self.head.estimate(targets.states),
            self.item_vectors.weight,
            targets.items,
            None if self.retrieval.repeat_bias is None else targets.histories(),
        )

    def at_unit_scale(self, vectors: Tensor) -> Tensor:
        """Item vectors with about unit variance a coordinate, as the noise has: [..., d] -> [..., d]. The inner product
        also ranks by lengths, so for it one number scales all."""
        if self.retrieval.similarity == "cosine":
            return F.normalize(vectors, dim=-1) * vectors.shape[-1] ** 0.5
        return vectors / rms_of_rows(self.item_vectors.weight.detach()[1:])

    @torch.no_grad()
    def encode_histories(self, interaction: Interaction, scores: bool = True, answer: bool = False) -> HistoryEncoding:
        """Read the histories of a batch, each once.

        Args:
            scores: take what :meth:`full_sort_predict`, :meth:`top_k` and :meth:`predict` need; otherwise the
                conditions alone.
            answer: take what :meth:`answers` needs.
        """
        histories = interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN], interaction[self.USER_ID]
        if self.answering is None:
            return HistoryEncoding(self.history.conditions(*histories))
        return self.answering.encode(
            *histories,
            answer=answer or scores and bool(self.retrieval.text_bonus),
            log_probs=scores and bool(self.retrieval.text_weight),
        )

    @torch.no_grad()
    def preferences(self, conditions: Tensor, item_seq: Tensor | None = None) -> Tensor:
        """Sampled preference vectors [M, B, d] for conditions [B, D].

        Args:
            item_seq: histories [B, L], which choose the noise of each where not all share it.
        """
        if self.sampling.steps > 1 and self.head.space == "x0":
            warn_once(
                "the head was trained without noisy_skip: its draws of several steps are far too narrow; train it with "
                "--noisy_skip=True"
            )
        # one generator, on the CPU: a ranking must not depend on where it is computed
        generator = torch.Generator().manual_seed(self.config["seed"])
        paths = None if self.common_noise or item_seq is None else item_seq.sum(1)  # whatever the batch and the padding
        return self.head.sample(conditions, **vars(self.sampling), generator=generator, common_noise=True, paths=paths)

    def text_evidence(self, encoding: HistoryEncoding) -> TextEvidence | None:
        """What answers and texts say for the scores; None where nothing is said."""
        return None if self.answering is None else self.answering.evidence(encoding, self.retrieval)

    # beyond RecBole's methods, see :mod:`recbole_contrec.interface`

    @torch.no_grad()
    def generate_preferences(self, interaction: Interaction) -> Tensor:
        """Sampled preference vectors [M, B, d] for the histories of a batch."""
        conditions = self.encode_histories(interaction, scores=False).conditions
        return self.preferences(conditions, interaction[self.ITEM_SEQ])

    def no_single_pass(self) -> str | None:
        """Why preferences take more than one pass over a history; None where they do not."""
        if self.sampling.steps > 1 or self.sampling.samples > 1:
            return f"it draws preferences (sampling_steps={self.sampling.steps}, num_samples={self.sampling.samples})"
        if self.sampling.guidance:
            return f"guidance={self.sampling.guidance:g} asks the head twice"
        return self.history.no_single_pass()

    def preference_in_one_pass(self, item_seq: Tensor, length: Tensor) -> Tensor:
        """Preference vectors [B, d], see :class:`~recbole_contrec.interface.ReadsHistoriesInOnePass`."""
        return self.head.estimate(self.history.in_one_pass(item_seq, length))

    def top_k(
        self, interaction: Interaction, k: int, excluded: Tensor | None = None, encoding: HistoryEncoding | None = None
    ) -> tuple[Tensor, Tensor]:
        """Scores [B, k] and item numbers [B, k] of the best items, in memory that does not grow with the catalogue.

        Args:
            excluded: item numbers [B, E] not to be returned, 0 = none.
            encoding: of :meth:`encode_histories`, where the batch has been read already.
        """
        encoding = encoding or self.encode_histories(interaction)
        return self.retrieval.top_k(
            self.preferences(encoding.conditions, interaction[self.ITEM_SEQ]),
            self.item_vectors.weight,
            k,
            excluded,
            interaction[self.ITEM_SEQ],
            text=self.text_evidence(encoding),
        )

    @property
    def can_answer(self) -> bool:
        """Whether it learns to say what comes next."""
        return self.answering is not None

    @torch.no_grad()
    def answers(self, interaction: Interaction, encoding: HistoryEncoding | None = None) -> list[str]:
        """What the language model says about the next item of every history of a batch.

        Args:
            encoding: of :meth:`encode_histories`, with the answer.

        Raises:
            ValueError: it does not learn to answer.
        """
        if self.answering is None:
            raise ValueError("this model has not learned to answer: train it with answer_weight above 0")
        return self.answering.texts(encoding or self.encode_histories(interaction, scores=False, answer=True))

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
        """Whether the tokens of the items are those that collaborative vectors [N, d] give."""
        return self.items.are_of(vectors.to(self.device))

    def retrieval_vectors(self, vectors: Tensor, known_vectors: Tensor, known: Tensor) -> Tensor:
        """Where items that were not in training lie among the item vectors [m, d], see
        :meth:`ItemVectors.predicted`."""
        return self.item_vectors.predicted(vectors, known_vectors, known)

    def add_items(self, count: int) -> None:
        """Room for more items at the end of every table."""
        self.n_items += count
        parts: Any = filter(
            None,
            (
                *(self.item_vectors, self.items, self.language, self.user_fold_in),
                *(self.retrieval.text_similarity, self.retrieval.sampler),
            ),
        )
        for part in parts:
            part.add_items(count)

    @torch.no_grad()
    def set_items(self, items: Tensor, vectors: Tensor, retrieval: Tensor) -> None:
        """Write items [m] that were not in training: tokens from their collaborative vectors [m, d], and their vectors
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
