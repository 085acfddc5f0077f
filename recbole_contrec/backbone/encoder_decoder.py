"""
recbole_contrec.backbone.encoder_decoder
########################################
A T5 fed with vectors instead of words, built from a transformers configuration and read in one pass.
"""

from typing import Any

import torch
from torch import Tensor, nn


class EncoderDecoder(nn.Module):
    """A compact T5 (Raffel et al. 2020, https://arxiv.org/abs/1910.10683) without word tables, trained from scratch.

    The encoder reads a prompt in both directions; the decoder reads P learned vectors, the beginning of an answer that
    never changes, and its P states are the model's own answer. One pass, no generated word, no cache, no beam: the
    generative retrieval of TokenRec (https://arxiv.org/abs/2406.10450). Unlike a causal decoder it gives one answer a
    prompt, so every training target costs a pass of its own.

    ``transformer`` is a plain ``T5Model`` with nothing added inside;
    :class:`~recbole_contrec.backbone.pretrained_t5.PretrainedT5` puts a pretrained one in its place.

    Args:
        hidden_size: width of inputs and states (D).
        n_layers: number of blocks of the encoder, and of the decoder.
        n_heads: attention heads; must divide ``hidden_size``.
        decoder_query_tokens: vectors that the decoder reads (P).
        dropout: on inputs, attention and the output of each sub-layer.
        intermediate_size: width of the feed-forward layers; 4 D if not given.

    Raises:
        ValueError: ``n_heads`` does not divide ``hidden_size``.
    """

    POSITIONS = 2**18  # of prompts that are read at once where nothing is learned: what bounds the memory

    def __init__(
        self,
        hidden_size: int,
        n_layers: int,
        n_heads: int,
        decoder_query_tokens: int,
        dropout: float = 0.0,
        intermediate_size: int | None = None,
    ):
        super().__init__()
        self.transformer = compact_t5(hidden_size, n_layers, n_heads, dropout, intermediate_size)
        self.decoder_query_tokens = decoder_query_tokens
        self.answer = nn.Parameter(0.2 * torch.randn(decoder_query_tokens, hidden_size))

    def no_weight_decay(self) -> set[str]:
        """Parameters of this module that are no matrices."""
        return {"answer"}

    def forward(self, inputs: Tensor, length: Tensor) -> Tensor:
        """States of the answer.

        Args:
            inputs: prompt vectors [B, S, D], padded at the end.
            length: real positions of every row [B].

        Returns:
            Tensor: final states [B, P, D] of the decoder.
        """
        return answer_states(self.transformer, inputs, length, self.answer)


def compact_t5(
    hidden_size: int,
    n_layers: int,
    n_heads: int,
    dropout: float = 0.0,
    intermediate_size: int | None = None,
    attention_head_size: int | None = None,
) -> nn.Module:
    """A ``T5Model`` of transformers with random weights and without word tables: prompts give vectors, never word
    numbers.

    Args:
        hidden_size: width of inputs and states (D).
        n_layers: number of blocks of the encoder, and of the decoder.
        n_heads: attention heads.
        dropout: on inputs, attention and the output of each sub-layer.
        intermediate_size: width of the feed-forward layers; 4 D if not given.
        attention_head_size: of a head; ``hidden_size / n_heads`` if not given.

    Raises:
        ValueError: ``n_heads`` does not divide ``hidden_size``, and ``attention_head_size`` is not given.
    """
    if attention_head_size is None and hidden_size % n_heads:
        raise ValueError(f"n_heads={n_heads} must divide hidden_size={hidden_size}")
    from transformers import T5Config, T5Model  # slow import, needed here only

    model = T5Model(
        T5Config(
            vocab_size=1,
            eos_token_id=None,  # transformers warns of an end of text beyond the vocabulary
            d_model=hidden_size,
            d_kv=attention_head_size or hidden_size // n_heads,
            d_ff=intermediate_size or 4 * hidden_size,
            num_layers=n_layers,
            num_decoder_layers=n_layers,
            num_heads=n_heads,
            dropout_rate=dropout,
            feed_forward_proj="relu",
            use_cache=False,
        )
    )
    del model.shared, model.encoder.embed_tokens, model.decoder.embed_tokens
    return model


def answer_states(model: Any, inputs: Tensor, length: Tensor, answer: Tensor) -> Tensor:
    """One pass through a T5 of transformers: inputs [B, S, D], real positions [B], what the decoder reads [P, D] ->
    final states [B, P, D]."""
    visible = (torch.arange(inputs.shape[1], device=inputs.device) < length[:, None]).long()  # [B, S]
    encoded = model.encoder(inputs_embeds=inputs, attention_mask=visible)
    return model.decoder(
        inputs_embeds=answer.expand(len(inputs), -1, -1),
        encoder_hidden_states=encoded.last_hidden_state,
        encoder_attention_mask=visible,
        use_cache=False,
    ).last_hidden_state
