"""
recbole_contrec.backbone
########################
The language model that reads tokens: :class:`~recbole_contrec.backbone.prompt.Prompt` decides which
vector stands where, :class:`~recbole_contrec.backbone.wording.Wordings` says the instruction in several ways, and
:class:`~recbole_contrec.backbone.decoder.CausalDecoder`,
:class:`~recbole_contrec.backbone.pretrained.PretrainedDecoder` or
:class:`~recbole_contrec.backbone.encoder_decoder.EncoderDecoder` turns the vectors into states.
"""

from recbole_contrec.backbone.decoder import CausalDecoder, Memory, length_groups
from recbole_contrec.backbone.encoder_decoder import EncoderDecoder
from recbole_contrec.backbone.pretrained import PretrainedDecoder
from recbole_contrec.backbone.prompt import Prompt
from recbole_contrec.backbone.wording import Wordings

__all__ = ["CausalDecoder", "EncoderDecoder", "Memory", "PretrainedDecoder", "Prompt", "Wordings", "length_groups"]
