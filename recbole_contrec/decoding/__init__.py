"""
recbole_contrec.decoding
########################
From codes to items: :class:`~recbole_contrec.decoding.trie.CodeTrie` knows which tuples of codes are items, and
:func:`~recbole_contrec.decoding.beam.beam_search` finds the likely ones among them;
:func:`~recbole_contrec.decoding.beam.diverse_beam_search` finds likely tuples that differ, items or not. None
of them knows what the codes mean or which network reads them.
"""

from recbole_contrec.decoding.beam import AllTuples, Beams, NextLogProbs, Tuples, beam_search, diverse_beam_search
from recbole_contrec.decoding.trie import Children, CodeTrie

__all__ = ["AllTuples", "Beams", "Children", "CodeTrie", "NextLogProbs", "Tuples", "beam_search", "diverse_beam_search"]
