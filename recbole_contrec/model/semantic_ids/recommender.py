"""
recbole_contrec.model.semantic_ids.recommender
##############################################
RecBole's methods of a model that generates the semantic id of the next item.
"""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import SequentialRecommender
from torch import Tensor

from recbole_contrec.data.windows import SEEN_ITEMS
from recbole_contrec.decoding import Beams
from recbole_contrec.interface import Refined, Stage
from recbole_contrec.item_vectors.sources import check_source, vector_stages
from recbole_contrec.model.parts.code_table import CodeTable
from recbole_contrec.model.parts.history import HistoryEncoder
from recbole_contrec.model.parts.targets import TrainingWindows
from recbole_contrec.model.parts.unread import check_unread
from recbole_contrec.model.semantic_ids.code_decoder import CodeDecoder
from recbole_contrec.model.semantic_ids.descriptions import DescribedByVectors
from recbole_contrec.model.semantic_ids.given_ids import GivenIds
from recbole_contrec.model.semantic_ids.self_improvement import SelfImprovement
from recbole_contrec.model.semantic_ids.self_improvement_settings import WORDS


class CodesLoss(NamedTuple):
    """The one term; the trainer logs it by its name."""

    codes: Tensor


class AlignedLoss(NamedTuple):
    """Weighted terms of a model that improves its semantic ids; the trainer minimises their sum."""

    codes: Tensor
    alignment: Tensor
    description: Tensor


class SemanticIdRecommender(SequentialRecommender):
    """Base class of models that generate semantic ids: RecBole's methods for losses and scores, by the parts below.

    A model builds these parts in its constructor, and defines ``stages`` and ``quantise``.

    Axes: B batch, L history length, K codes of an item, D width, N items, W beams, n targets.

    Attributes:
        history: reads histories.
        decoder: writes semantic ids.
        improvement: of the semantic ids; None where they stay as they are.
        windows: which targets of a batch are trained.
        whole_windows: the same without a draw.
        given_ids: the semantic ids of a file; None where the model makes them.
        generates_seen: whether items of the history may be generated; None leaves that to ``mask_seen``.
    """

    history: HistoryEncoder
    decoder: CodeDecoder
    improvement: SelfImprovement | None
    windows: TrainingWindows
    whole_windows: TrainingWindows
    generates_seen: bool | None = None
    given_ids: GivenIds | None = None

    def train(self, mode: bool = True) -> "SemanticIdRecommender":
        self.decoder.forget_trie()  # other weights, with other codes, may have been loaded since
        return super().train(mode)

    check_unread = staticmethod(check_unread)  # before anything is loaded, see :mod:`recbole_contrec.interface`

    # stages before training

    def stages(self, dataset: Any) -> Iterator[Stage]:
        """Item vectors, then semantic ids, then what describes the items; see :mod:`recbole_contrec.storage.stages`."""
        raise NotImplementedError

    def check_sources(self, dataset: Any) -> None:
        """Stop before anything is written where the stages lack what they are made of.

        Raises:
            UserError: says what is missing.
        """
        check_source(self.config, dataset)
        if self.given_ids is not None:
            self.given_ids.check(dataset)
        if self.improvement is not None and self.config["item_descriptions"] not in (None, WORDS):
            check_source(self.config, dataset, "item_descriptions")

    def _description_stages(self, dataset: Any, vectors: dict[str, Tensor]) -> Iterator[Stage]:
        """What describes the items: the vectors ``items`` [N, d] that their semantic ids come from, or those of
        ``item_descriptions``; ``texts`` of ``vectors`` are not read again."""
        if not isinstance(self.improvement, DescribedByVectors):
            return  # words are known already
        if self.config["item_descriptions"]:
            found = {name: read for name, read in vectors.items() if name == "texts"}
            yield from vector_stages(self.config, dataset, found, "item_descriptions")
            vectors = found
        self.improvement.describe(vectors["items"])

    # RecBole's methods

    def forward(self, item_seq: Tensor, user: Tensor) -> Tensor:
        """States before every code of every item but the first [B, L, K, D], for histories [B, L + 1] and users [B];
        with a causal backbone alone."""
        return self.decoder.states_in_windows(item_seq, user)

    def calculate_loss(self, interaction: Interaction) -> CodesLoss | AlignedLoss:
        """Cross entropy of the K codes of the next item, added up, mean over the targets of a batch; and the losses
        that align items and semantic ids, where these are to be improved."""
        targets = self.decoder.targets(self.windows(interaction))  # states [n, K, D]
        codes = self.decoder.loss(targets.states, self.decoder.item_codes.codes[targets.items])
        if self.improvement is None or not self.improvement.aligns:
            return CodesLoss(codes)
        return AlignedLoss(codes, *self.improvement.weighted_losses(self.decoder))

    @torch.no_grad()
    def predict(self, interaction: Interaction) -> Tensor:
        """Log-probability of one item a row [B], exact whether a beam would find it or not; the lowest finite number
        for an item without codes, or one that is never generated here."""
        targets = self.decoder.targets(self.windows(interaction))  # states [B, K, D], in an order of their own
        found = self.decoder.item_log_probs(targets.states, targets.items)
        lowest = torch.finfo(found.dtype).min
        scores = torch.full_like(found, lowest).scatter_(0, targets.row, found)
        never = self.never_generated(interaction)
        if never is not None:
            scores = scores.masked_fill((never == interaction[self.ITEM_ID][:, None]).any(1), lowest)
        return scores

    def full_sort_predict(self, interaction: Interaction) -> Tensor:
        """Scores of the whole catalogue [B, N], fresh and writable: log-probabilities of the items in the beam, which
        is at least as wide as the longest list of the evaluation (``topk``).

        All others share the lowest finite number: behind every beam and tied, and still in front of what an evaluation
        masks with -inf.
        """
        width = max(self.config["beam_size"], *self.config["topk"])
        beams = self.generate(interaction, width, self.never_generated(interaction))
        lowest = torch.finfo(beams.log_probs.dtype).min
        scores = beams.log_probs.new_full((len(beams.items), self.n_items), lowest)
        return scores.scatter_(1, beams.items, beams.log_probs.clamp(min=lowest))

    # beyond RecBole's contract, see recbole_contrec.interface

    def generate(self, interaction: Interaction, width: int | None = None, excluded: Tensor | None = None) -> Beams:
        """The likeliest next items [B, W] and their log-probabilities, by beam search.

        Args:
            width: W; ``beam_size`` if not given.
            excluded: item numbers [B, E] not to be generated, 0 = none.
        """
        return self.decoder.search(*self._histories(interaction), width or self.config["beam_size"], excluded)

    def top_k(self, interaction: Interaction, k: int, excluded: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Scores [B, k] and item numbers [B, k] of the best items; -inf and 0 where too few are found. A list longer
        than the beam widens it.

        Args:
            excluded: item numbers [B, E] not to be returned, 0 = none, and then nothing else is left out; None
                leaves out what :meth:`full_sort_predict` does.
        """
        never = self.never_generated(interaction) if excluded is None else excluded
        found = self.generate(interaction, max(k, self.config["beam_size"]), never)
        return found.log_probs[:, :k], found.items[:, :k]

    def score_all(self, interaction: Interaction) -> Tensor:
        """Exact log-probabilities of the whole catalogue [B, N], -inf for items without codes. A reference, not made
        for speed."""
        return self.decoder.score_all(*self._histories(interaction))

    def never_generated(self, interaction: Interaction) -> Tensor | None:
        """Items [B, E] that hold no place of a beam, 0 = none; None for none at all.

        What an evaluation masks anyhow must not hold places of the beam; it knows more of a
        history than its last L items.
        """
        if SEEN_ITEMS in interaction:
            return interaction[SEEN_ITEMS]
        return interaction[self.ITEM_SEQ] if self.config["mask_seen"] or self.generates_seen is False else None

    def _histories(self, interaction: Interaction) -> tuple[Tensor, Tensor, Tensor]:
        """Histories [B, L], their length [B] and the users [B] of a batch."""
        return interaction[self.ITEM_SEQ], interaction[self.ITEM_SEQ_LEN], interaction[self.USER_ID]

    @property
    def code_table(self) -> CodeTable:
        """Of the items."""
        return self.decoder.item_codes

    # better semantic ids

    def quantise(self, vectors: Tensor) -> Tensor:
        """All codes but the last [N, K - 1] of vectors [N, D] for a refinement, the number C for rows without one."""
        raise NotImplementedError

    def refine(self, batches: Iterable[Interaction]) -> Refined:
        """Better semantic ids than those of now, which stay until :meth:`adopt`.

        Args:
            batches: of training, for what the model has learned of the items.

        Raises:
            ValueError: the model was not built to improve its semantic ids.
        """
        if self.improvement is None:
            raise ValueError("self_improve=False: this model leaves its semantic ids as they are")
        return self.improvement.refine(self, batches)

    def adopt(self, refined: Refined) -> None:
        """Give the items other semantic ids. Where these were quantised, their codes mean something new, so that what
        they are read as and scored by starts anew, where their items lie."""
        if refined.vectors is None or refined.counts is None:
            self.decoder.assign(refined.codes)
        else:
            self.decoder.recode(refined.codes, refined.vectors, refined.counts)
