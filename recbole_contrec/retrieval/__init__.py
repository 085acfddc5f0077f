"""Retrieval: scores of a catalogue for generated preferences, and the losses that train them.

It needs torch alone, and faiss for an approximate search. Axes: `n` preferences, `N` items, `d` width of an item
vector, `L` items of a history.
"""

from .inner_product import columns, item_side, preference_side
from .losses import CatalogueCrossEntropy, pairwise_cosine_loss
from .sampling import CandidateSampler, SampledItems
from .scores import POOLINGS, SIMILARITIES, Retrieval, TextEvidence

__all__ = [
    "POOLINGS",
    "SIMILARITIES",
    "CandidateSampler",
    "CatalogueCrossEntropy",
    "Retrieval",
    "SampledItems",
    "TextEvidence",
    "columns",
    "item_side",
    "pairwise_cosine_loss",
    "preference_side",
]
