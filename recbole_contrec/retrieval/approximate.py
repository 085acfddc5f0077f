"""
recbole_contrec.retrieval.approximate
#####################################
The best items without looking at all of them: an index finds candidates, which get their exact scores.

Candidates are the largest inner products of the part of a score that is one: similarity, text similarity and penalty
stand side by side in a vector. To them come the items of the history where a repeat bias may lift them. What answers in
words add counts in the scores, but finds no candidates.
"""

import math
from typing import Any

import torch
from torch import Tensor

from .candidates import distinct, products, within
from .index import HNSWIndex
from .inner_product import item_side, preference_side


class ApproximateSearch:
    """A graph of the vectors of a catalogue.

    Args:
        retrieval: the :class:`~recbole_contrec.retrieval.scores.Retrieval` whose scores these are.
        items: [N, d].
        ef_search: of :class:`~recbole_contrec.retrieval.index.HNSWIndex`.

    Raises:
        UserError: faiss is not installed.
    """

    def __init__(self, retrieval: Any, items: Tensor, ef_search: int):
        self.retrieval, self.items = retrieval, items
        self.index = HNSWIndex(item_side(retrieval, items), ef_search)

    @torch.no_grad()
    def top_k(
        self,
        preference: Tensor,
        k: int,
        excluded: Tensor | None = None,
        history: Tensor | None = None,
        text: Any = None,
    ) -> tuple[Tensor, Tensor]:
        """As ``Retrieval.top_k``, of the candidates."""
        n = preference.shape[-2]
        left_out = 0 if excluded is None else int((excluded > 0).sum(1).max())
        lowered = 0 if history is None or self.retrieval.repeat_bias is None else int((history > 0).sum(1).max())
        queries = preference_side(self.retrieval, preference, history)
        # as many more as may be left out or fall behind: a list must not get shorter by them
        found = self.index.search(queries.reshape(-1, queries.shape[-1]), k + max(left_out, lowered))  # [M n, C]
        found = found.view(-1, n, found.shape[1]).transpose(0, 1).reshape(n, -1)  # [n, M C]
        if history is not None and lowered:
            found = torch.cat([found, history], 1)
        numbers = distinct(found)  # [n, C']
        scores = self.scores(preference, numbers, history, text).masked_fill(numbers == 0, -torch.inf)
        if excluded is not None:
            scores = scores.masked_fill(within(numbers, excluded), -torch.inf)
        best, place = scores.topk(min(k, scores.shape[1]), dim=1)
        return best, numbers.gather(1, place).masked_fill(best == -torch.inf, 0)

    def scores(
        self,
        preference: Tensor,
        numbers: Tensor,
        history: Tensor | None = None,
        text: Any = None,
    ) -> Tensor:
        """Scores of some items for each preference, with all terms of ``Retrieval.scores``.

        Args:
            preference: [n, d] or [M, n, d].
            numbers: of the items to score [n, C].
            history, text: as in ``Retrieval.scores``.

        Returns:
            Tensor: [n, C].
        """
        retrieval = self.retrieval
        cosine = retrieval.similarity == "cosine"
        preference = retrieval.scaled(preference) if cosine else preference
        samples = preference[None] if preference.dim() == 2 else preference  # [M, n, d]
        scores = products(self.items, numbers, samples.permute(1, 2, 0), cosine)  # [n, C, M]
        mean = retrieval.pooling == "mean" or len(samples) == 1
        scores = scores.mean(2) if mean else scores.logsumexp(2) - math.log(len(samples))
        if text is not None and text.answered is not None:
            assert text.category_of is not None
            agrees = text.category_of[numbers] == text.answered[:, None]
            scores = scores + retrieval.bonus(scores, agrees, text.answered[:, None])
        if text is not None and text.log_probs is not None:
            assert text.text_of is not None
            scores = scores + retrieval.text_weight * text.log_probs.gather(1, text.text_of[numbers])
        if retrieval.repeat_bias is not None and history is not None:
            scores = scores + retrieval.repeat_bias * within(numbers, history)
        if retrieval.compares_texts and history is not None:
            texts = retrieval.text_similarity
            said = texts.queries(history)[:, :, None]  # [n, w, 1]
            scores = scores + texts.weight * products(texts.vectors, numbers, said)[:, :, 0]
        return scores if retrieval.score_penalty is None else scores - retrieval.score_penalty[numbers]
