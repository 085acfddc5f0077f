"""
recbole_contrec.backbone
########################
The language model that reads tokens: :class:`~recbole_contrec.backbone.prompt.Prompt` decides which
vector stands where, :class:`~recbole_contrec.backbone.decoder.CausalDecoder` turns the vectors into states.
"""

from recbole_contrec.backbone.decoder import CausalDecoder, length_groups
from recbole_contrec.backbone.prompt import Prompt

__all__ = ["CausalDecoder", "Prompt", "length_groups"]
