"""
recbole_contrec.retrieval.scores
################################
From generated preference vectors to scores over the catalogue: the similarity, what texts add to it, and the top K of
a catalogue too large to score at once.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .approximate import ApproximateSearch
from .losses import CatalogueCrossEntropy
from .sampling import CandidateSampler, SampledItems

POOLINGS = ("likelihood", "mean")
SIMILARITIES = ("cosine", "inner")
# Of a larger catalogue, terms are computed for so many items at a time: each takes as much memory as the scores.
ITEMS_AT_ONCE = 2**16


class TextEvidence(NamedTuple):
    """What a language model says about the next item, for n preferences; either half may be None.

    Attributes:
        log_probs: log-probability of every distinct text [n, texts], and ``text_of``: the text of every item [N].
        answered: number of the category that a generated answer names [n], 0 = none, and ``category_of``: that of every
            item [N].
    """

    log_probs: Tensor | None = None
    text_of: Tensor | None = None
    answered: Tensor | None = None
    category_of: Tensor | None = None

    def of_rows(self, rows: Tensor) -> "TextEvidence":
        """For other preferences [m], each with the evidence of one of the n."""
        return self._replace(
            **{
                name: part[rows]
                for name, part in (("log_probs", self.log_probs), ("answered", self.answered))
                if part is not None
            }
        )


class Retrieval(nn.Module):
    """Similarity between preference vectors and item vectors, with a learned temperature.

    Several samples of a preference are joined by the log of their mean exponential: a ranking needs the
    distribution, and each sample may point at other items. That takes similarities on the scale of log-probabilities,
    which the ranking loss gives them; where nothing does, the mean of the similarities ranks better.

    Whether people return to items is a property of the data: films are rated once, songs are heard again. With
    ``repeat_rate`` one learned number, the repeat bias, is added to the score of every item that the history holds (the
    simplest form of RepeatNet's repeat and explore modes, Ren et al. 2019, arXiv 1812.02646). Vectors alone learn it
    badly: an item is near to itself.

    Args:
        similarity: ``"cosine"`` or ``"inner"`` (product).
        temperature: start value of the temperature of the cosine; it is learned.
        label_smoothing: of the ranking loss.
        repeat_rate: share of targets that stand in their history already; the repeat bias starts at its log odds. None
            for no bias: histories are then ignored.
        text_bonus: pi of the hybrid retrieval of DeftRec and ContRec (Qu et al., arXiv 2504.12007): the similarity s of
            an item that agrees with a generated answer becomes (1 + pi) s. Where s is negative, (1 - pi) s: nothing
            loses by agreeing.
        text_weight: of the log-probability of an item's text, which is added to its score.
        text_similarity: what the texts of a history add to scores, never to the loss; called with histories [n, L], the
            first item and the number of items, and its ``paired`` with histories and one item each. Its ``weight`` is
            0 where it adds nothing.
        pooling: how the similarities of several samples become one: ``"likelihood"``, the log of their mean
            exponential, or ``"mean"``.
        sampler: of the items that the ranking loss takes for the catalogue; None for all of it.
        sparse: whether the gradient of the items is a sparse one with such a sampler.

    Attributes:
        score_penalty: what every item loses of its score [N], or None: see ``fold_in.py``. The loss knows nothing of
            it.
        approximate: what finds the best items inside :meth:`searching`; None where all items are looked at.
    """

    score_penalty: Tensor | None
    repeat_bias: nn.Parameter | None
    sampler: CandidateSampler | None

    MAX_SCALE = 50.0  # a sharper softmax stops learning: its gradients come from single items

    def __init__(
        self,
        similarity: str = "cosine",
        temperature: float = 0.05,
        label_smoothing: float = 0.0,
        repeat_rate: float | None = None,
        text_bonus: float = 0.0,
        text_weight: float = 0.0,
        text_similarity: Any = None,
        pooling: str = "likelihood",
        sampler: CandidateSampler | None = None,
        sparse: bool = False,
    ):
        super().__init__()
        self.approximate: ApproximateSearch | None = None
        if pooling not in POOLINGS:
            raise ValueError(f"pooling={pooling!r}: choose one of {', '.join(POOLINGS)}")
        self.pooling = pooling
        if not 0 <= text_bonus <= 1:
            raise ValueError(f"text_bonus={text_bonus}: an item that agrees with the text must not lose by it: 0 to 1")
        if similarity not in SIMILARITIES:
            raise ValueError(f"similarity={similarity!r}: choose one of {', '.join(SIMILARITIES)}")
        self.similarity = similarity
        self.label_smoothing = label_smoothing
        self.text_bonus, self.text_weight = text_bonus, text_weight
        self.text_similarity, self.sampler, self.sparse = text_similarity, sampler, sparse
        if similarity == "cosine":
            self.log_scale = nn.Parameter(torch.tensor(math.log(1 / temperature)))
        bias = None if repeat_rate is None else nn.Parameter(torch.tensor(math.log(repeat_rate / (1 - repeat_rate))))
        self.register_parameter("repeat_bias", bias)
        self.register_buffer("score_penalty", None, persistent=False)

    def _load_from_state_dict(self, state_dict, prefix, *args):
        # With a weight of 0, which validation may have chosen after training, nothing reads what was kept of texts.
        if self.text_similarity is None:
            for name in [name for name in state_dict if name.startswith(f"{prefix}text_similarity.")]:
                del state_dict[name]
        super()._load_from_state_dict(state_dict, prefix, *args)

    def scores(
        self,
        preference: Tensor,
        items: Tensor,
        history: Tensor | None = None,
        first: int = 0,
        text: TextEvidence | None = None,
    ) -> Tensor:
        """Similarity of each preference to each item.

        Args:
            preference: [n, d], or samples [M, n, d].
            items: [N, d], the items ``first``, ``first + 1``, ...
            history: item numbers [n, L] that get the repeat bias, 0 = none.
            text: what the language model says.

        Returns:
            Tensor: a fresh writable [n, N].
        """
        if len(items) <= ITEMS_AT_ONCE:
            return self._all_terms(preference, items, history, first, text)
        scores = preference.new_empty(preference.shape[-2], len(items))
        for start in range(0, len(items), ITEMS_AT_ONCE):
            part = items[start : start + ITEMS_AT_ONCE]
            scores[:, start : start + len(part)] = self._all_terms(preference, part, history, first + start, text)
        return scores

    def _all_terms(self, preference, items, history, first, text):
        scores = self._scores(preference, items, history, first, text)
        if self.text_similarity is not None and self.text_similarity.weight and history is not None:
            scores += self.text_similarity(history, first, len(items))
        if self.score_penalty is not None:
            scores -= self.score_penalty[first : first + len(items)]
        return scores

    def _scores(self, preference, items, history, first, text=None):
        scores = self._similarities(preference, items)
        if text is not None:
            columns = slice(first, first + len(items))
            if text.answered is not None:
                scores += self.bonus(
                    scores, text.category_of[columns] == text.answered[:, None], text.answered[:, None]
                )
            if text.log_probs is not None:
                scores += self.text_weight * text.log_probs[:, text.text_of[columns]]
        # once each, also for an item that stands in the history twice
        if self.repeat_bias is not None and history is not None:
            named = _places(history, first, len(items))
            scores[named] = scores[named] + self.repeat_bias
        return scores

    def bonus(self, scores: Tensor, agrees: Tensor, answered: Tensor) -> Tensor:
        return self.text_bonus * scores.abs() * (agrees & (answered > 0))

    def _similarities(self, preference: Tensor, items: Tensor) -> Tensor:
        if self.similarity == "cosine":
            preference, items = self.scaled(preference), F.normalize(items, dim=-1)
        if preference.dim() == 2:
            return preference @ items.T  # [n, N]
        if self.pooling == "mean":
            return preference.mean(0) @ items.T  # [n, N], the mean of the products
        joined = preference[0] @ items.T  # [n, N]
        for sample in preference[1:]:  # one sample at a time: [M, n, N] may not fit
            joined = torch.logaddexp(joined, sample @ items.T)
        return joined - math.log(len(preference))

    def ranking_loss(self, preference: Tensor, items: Tensor, target: Tensor, history: Tensor | None = None) -> Tensor:
        """Cross entropy of the next item among the catalogue, or among a sample of it where there is a sampler.

        Args:
            preference: [n, d].
            items: [N, d]; row 0 is the padding and never a candidate.
            target: item numbers [n].
            history: item numbers [n, L] before the target, 0 = none.

        Returns:
            Tensor: scalar.
        """
        if self.sampler is not None and not self.sampler.covers_all:
            return self._sampled_loss(preference, items, target, history, self.sampler(target.device))
        if self.similarity == "cosine":
            preference, items = self.scaled(preference), F.normalize(items, dim=-1)
        return CatalogueCrossEntropy.apply(
            preference,
            items[1:],
            target - 1,
            self.label_smoothing,
            history,
            None if history is None else self.repeat_bias,
        )

    def _sampled_loss(
        self, preference: Tensor, items: Tensor, target: Tensor, history: Tensor | None, sample: SampledItems
    ) -> Tensor:
        """Sampled softmax (Jean et al. 2015, arXiv 1412.2007): the target stands for itself, the sample for all other
        items, and a target that is drawn does not count as its own negative."""
        numbers, log_weights = sample
        drawn, targets = (F.embedding(rows, items, sparse=self.sparse) for rows in (numbers, target))
        others = self._similarities(preference, drawn) + log_weights  # [n, S]
        if self.repeat_bias is not None and history is not None:
            named = _once_among(numbers, history)
            others = others.index_put(named, self.repeat_bias.to(others.dtype).expand(len(named[0])), accumulate=True)
        others = others.masked_fill(numbers == target[:, None], -torch.inf)
        own = self._paired_scores(preference, targets, target, history)  # [n]
        return F.cross_entropy(torch.cat([own[:, None], others], 1), torch.zeros_like(target))

    def paired_scores(
        self,
        preference: Tensor,
        items: Tensor,
        numbers: Tensor | None = None,
        history: Tensor | None = None,
        text: TextEvidence | None = None,
    ) -> Tensor:
        """Score of the i-th item for the i-th preference: [n, d] or [M, n, d], and [n, d] -> [n].

        Args:
            numbers: of the items [n], to find them in ``history`` [n, L] and ``text``.
        """
        scores = self._paired_scores(preference, items, numbers, history, text)
        if self.text_similarity is not None and history is not None:
            scores = scores + self.text_similarity.paired(history, numbers)
        return scores if self.score_penalty is None else scores - self.score_penalty[numbers]

    def _paired_scores(self, preference, items, numbers, history, text=None):
        if self.similarity == "cosine":
            preference, items = self.scaled(preference), F.normalize(items, dim=-1)
        similarity = (preference * items).sum(-1)  # [n] or [M, n]
        if preference.dim() == 3:
            mean = self.pooling == "mean"
            similarity = similarity.mean(0) if mean else similarity.logsumexp(0) - math.log(len(similarity))
        if text is not None and text.answered is not None:
            similarity = similarity + self.bonus(similarity, text.category_of[numbers] == text.answered, text.answered)
        if text is not None and text.log_probs is not None:
            similarity = similarity + self.text_weight * text.log_probs.gather(1, text.text_of[numbers, None]).squeeze(
                1
            )
        if self.repeat_bias is not None and history is not None:
            similarity = similarity + self.repeat_bias * (history == numbers[:, None]).any(1)
        return similarity

    def scaled(self, preference: Tensor) -> Tensor:
        """Unit vectors times the inverse temperature."""
        return F.normalize(preference, dim=-1) * self.log_scale.exp().clamp(max=self.MAX_SCALE)

    @torch.no_grad()
    def top_k(
        self,
        preference: Tensor,
        items: Tensor,
        k: int,
        excluded: Tensor | None = None,
        history: Tensor | None = None,
        chunk: int = 8192,
        text: TextEvidence | None = None,
    ) -> tuple[Tensor, Tensor]:
        """The K best items in bounded memory: the catalogue passes in chunks, the best so far are kept.

        Args:
            preference: [n, d] or [M, n, d].
            items: [N, d]; row 0 is the padding and never returned.
            excluded: item numbers [n, E] that may not be returned, 0 = none.
            history: item numbers [n, L] that get the repeat bias, 0 = none.
            text: what the language model says.

        Returns:
            tuple: scores [n, k] and item numbers [n, k], best first; where fewer than k items are left, the
            score is -inf and the number 0.
        """
        if self.approximate is not None:
            return self.approximate.top_k(preference, k, excluded, history, text)
        n = preference.shape[-2]
        best = preference.new_full((n, k), -torch.inf)
        which = torch.zeros(n, k, dtype=torch.long, device=preference.device)
        for start in range(1, len(items), chunk):
            part = self.scores(preference, items[start : start + chunk], history, start, text)  # [n, <= chunk]
            if excluded is not None:
                inside = (excluded >= start) & (excluded < start + part.shape[1])
                row = torch.arange(n, device=part.device)[:, None].expand_as(excluded)[inside]
                part[row, excluded[inside] - start] = -torch.inf
            found, place = part.topk(min(k, part.shape[1]), dim=1)  # of the chunk alone: copying it would cost as much
            best, chosen = torch.cat([best, found], 1).topk(k, dim=1)
            which = torch.cat([which, place + start], 1).gather(1, chosen)
        return best, which.masked_fill(best == -torch.inf, 0)

    @contextmanager
    def searching(self, items: Tensor, ef_search: int) -> Iterator[None]:
        """Inside this block :meth:`top_k` is approximate, see :mod:`.approximate`.

        Args:
            items: [N, d], as :meth:`top_k` gets them.
            ef_search: of :class:`~recbole_contrec.retrieval.index.HNSWIndex`.

        Raises:
            UserError: faiss is not installed.
        """
        self.approximate = ApproximateSearch(self, items, ef_search)
        try:
            yield
        finally:
            self.approximate = None

    @property
    def compares_texts(self) -> bool:
        """Whether the similarity of texts adds something to scores."""
        return self.text_similarity is not None and bool(self.text_similarity.weight)


def _places(numbers: Tensor, first: int, n_items: int) -> tuple[Tensor, Tensor]:
    """Rows and columns of item numbers [n, L], 0 = none, in scores of the items ``first .. first + n_items - 1``."""
    row, place = ((numbers >= max(first, 1)) & (numbers < first + n_items)).nonzero(as_tuple=True)
    return row, numbers[row, place] - first


def _once_among(numbers: Tensor, history: Tensor) -> tuple[Tensor, Tensor]:
    """Rows and columns of item numbers [n, L], 0 = none, in scores of the items ``numbers`` [S], which rise; once each,
    also for an item that stands in a row twice."""
    column = torch.searchsorted(numbers, history).clamp_(max=len(numbers) - 1)  # [n, L]
    row, place = (numbers[column] == history).nonzero(as_tuple=True)
    pairs = (row * len(numbers) + column[row, place]).unique()
    return pairs // len(numbers), pairs % len(numbers)
