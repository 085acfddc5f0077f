"""
recbole_contrec.decoding
########################
From codes to items: :class:`~recbole_contrec.decoding.trie.CodeTrie` knows which tuples of codes are items, and
:func:`~recbole_contrec.decoding.beam.beam_search` finds the likely ones among them. Neither knows what the codes mean nor
which network reads them.
"""

from recbole_contrec.decoding.beam import Beams, beam_search
from recbole_contrec.decoding.trie import Children, CodeTrie

__all__ = ["Beams", "Children", "CodeTrie", "beam_search"]
