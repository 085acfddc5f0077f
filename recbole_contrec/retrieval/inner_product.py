"""
recbole_contrec.retrieval.inner_product
#######################################
The part of a score that is one inner product: similarity, text similarity and penalty stand side by side in a vector.
Repeats and answers in words are no part of it.

Axes: n preferences, M samples, N items, d' width of all parts together.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


def item_side(retrieval: Any, items: Tensor, first: int = 0) -> Tensor:
    """Vectors [N, d'] whose inner product with :func:`preference_side` is the score.

    Args:
        retrieval: the :class:`~recbole_contrec.retrieval.scores.Retrieval` whose scores these are.
        items: [N, d], the items ``first``, ``first + 1``, ...
    """
    rows, items = slice(first, first + len(items)), items.detach()
    parts = [F.normalize(items, dim=-1) if retrieval.similarity == "cosine" else items]
    if retrieval.compares_texts:
        parts.append(retrieval.text_similarity.vectors[rows])
    if retrieval.score_penalty is not None:
        parts.append(-retrieval.score_penalty[rows, None])
    return torch.cat(parts, 1)


def preference_side(retrieval: Any, preference: Tensor, history: Tensor | None) -> Tensor:
    """[n, d'], or one for each sample, [M, n, d'], where the score is not that of their mean.

    Args:
        preference: [n, d] or [M, n, d].
        history: item numbers [n, L], 0 = none, for the similarity of texts.
    """
    if retrieval.similarity == "cosine":
        preference = retrieval.scaled(preference)
    if preference.dim() == 3 and retrieval.pooling == "mean":
        preference = preference.mean(0)
    parts, shape = [preference], preference.shape[:-1]
    if retrieval.compares_texts:
        texts = retrieval.text_similarity
        says = torch.zeros(shape[-1], texts.vectors.shape[1], device=preference.device)
        if history is not None:
            says = texts.weight * texts.queries(history)
        parts.append(says.expand(*shape, -1))
    if retrieval.score_penalty is not None:
        parts.append(preference.new_ones(*shape, 1))
    return torch.cat(parts, -1)


def columns(retrieval: Any, size: int) -> dict[str, list[int]]:
    """Which columns of these vectors are what: first and last one (exclusive) by name.

    Args:
        size: d.
    """
    widths = {"similarity": size}
    if retrieval.compares_texts:
        widths["text_similarity"] = retrieval.text_similarity.vectors.shape[1]
    if retrieval.score_penalty is not None:
        widths["new_item_penalty"] = 1
    found, start = {}, 0
    for name, width in widths.items():
        found[name] = [start, start + width]
        start += width
    return found
