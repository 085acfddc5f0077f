"""
recbole_contrec.backbone.pretrained_t5
######################################
A pretrained T5 of transformers in the place of the compact one: fed with vectors, read in one pass.
"""

from typing import Any

import torch
from torch import Tensor

from recbole_contrec.backbone.encoder_decoder import answer_states
from recbole_contrec.backbone.pretrained_model import PretrainedModel

# What the decoder of TokenRec reads (https://arxiv.org/abs/2406.10450).
ANSWER_PREFIX = "The interaction history shows that the user preference could be"


class PretrainedT5(PretrainedModel):
    """An encoder-decoder of the T5 family (T5, T5 1.1, flan-T5, mT5, umT5) with the ``forward`` of
    :class:`~recbole_contrec.backbone.encoder_decoder.EncoderDecoder`, and words.

    The decoder reads the mark that every answer of a T5 starts with and the words of ``answer_prefix`` behind it; the
    states of these are the answer. The output layer is read by nobody; where it is not the word table it stays frozen.

    Args:
        answer_prefix: how an answer begins, in words.
        settings: of :class:`~recbole_contrec.backbone.pretrained_model.PretrainedModel`.

    Attributes:
        decoder_query_tokens: vectors that the decoder reads (P).

    Raises:
        ValueError, UserError: as the base class.
    """

    kind = "t5"

    def __init__(self, name: str, answer_prefix: str = ANSWER_PREFIX, **settings: Any):
        super().__init__(name, **settings)
        config = self._whole.config
        start = getattr(config, "decoder_start_token_id", None)
        words = self.vocabulary.encode(answer_prefix, add_special_tokens=False).ids
        answer = torch.tensor([config.pad_token_id if start is None else start, *words], device=self._device)
        self.register_buffer("_answer", answer, persistent=False)  # [P]
        self.decoder_query_tokens = len(answer)

    def _examine(self) -> None:
        output = self._whole.get_output_embeddings()
        if output.weight is not self._embeddings.weight:
            output.requires_grad_(False)

    def forward(self, inputs: Tensor, length: Tensor) -> Tensor:
        """``EncoderDecoder.forward``: inputs [B, S, D], real positions [B] -> final states [B, P, D] of the
        decoder."""
        answer = self._embeddings(self._answer)  # [P, D]
        return answer_states(self._whole, inputs.to(self._dtype), length, answer).float()
