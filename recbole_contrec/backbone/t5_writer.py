"""
recbole_contrec.backbone.t5_writer
##################################
A T5 that reads vectors and writes step by step, with several branches at once, built from a transformers configuration.
"""

import torch
from torch import Tensor, nn

from recbole_contrec.backbone.decoder import additive_mask


class T5Writer(nn.Module):
    """A compact T5 (Raffel et al. 2020, https://arxiv.org/abs/1910.10683) without word tables, trained from scratch.

    The encoder reads a prompt in both directions. The decoder starts at a learned vector and reads what was written so far;
    branches of one prompt stand in one row beside each other, and a mask says what each place sees, so a prompt is
    encoded once however many branches go on from it.

    Args:
        hidden_size: width of inputs and states (D).
        n_layers: number of blocks of the encoder, and of the decoder.
        n_heads: attention heads.
        dropout: on inputs, attention and the output of each sub-layer.
        intermediate_size: width of the feed-forward layers; 4 D if not given.
        head_width: of a head; ``hidden_size / n_heads`` if not given.

    Raises:
        ValueError: ``n_heads`` does not divide ``hidden_size``, and ``head_width`` is not given.
    """

    def __init__(self, hidden_size: int, n_layers: int, n_heads: int, dropout: float = 0.0,
                 intermediate_size: int | None = None, head_width: int | None = None):
        super().__init__()
        if head_width is None and hidden_size % n_heads:
            raise ValueError(f"n_heads={n_heads} must divide hidden_size={hidden_size}")
        from transformers import T5Config, T5Model  # slow import, needed by this class only

        self.transformer = T5Model(T5Config(
            vocab_size=1, d_model=hidden_size, d_kv=head_width or hidden_size // n_heads,
            d_ff=intermediate_size or 4 * hidden_size, num_layers=n_layers, num_decoder_layers=n_layers, num_heads=n_heads,
            dropout_rate=dropout, feed_forward_proj="relu", use_cache=False))
        del self.transformer.shared, self.transformer.encoder.embed_tokens, self.transformer.decoder.embed_tokens
        self.start = nn.Parameter(0.2 * torch.randn(hidden_size))

    def encode(self, inputs: Tensor, length: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Read prompts.

        Args:
            inputs: vectors [B, S, D], padded at the end.
            length: real positions of every row [B]; all if not given.

        Returns:
            tuple: states [B, S, D], and which of them are real [B, S].
        """
        places = torch.arange(inputs.shape[1], device=inputs.device).expand(len(inputs), -1)
        real = places < (inputs.shape[1] if length is None else length[:, None])
        return self.transformer.encoder(inputs_embeds=inputs, attention_mask=real.long()).last_hidden_state, real

    def decode(self, encoded: Tensor, real: Tensor, written: Tensor, positions: Tensor | None = None,
               visible: Tensor | None = None) -> Tensor:
        """States of the start and of everything written.

        Args:
            encoded, real: of :meth:`encode`.
            written: vectors [B, Q, D].
            positions: how many steps after the start each of them was written, 1 and more [B, Q]; 1..Q if not given.
            visible: which of them (last axis) each one sees, itself among them [B, Q, Q]; all before and itself if not
                given. The start sees itself, and all see the start.

        Returns:
            Tensor: states [B, 1 + Q, D] of the final layer, those of the start first.
        """
        batch, width = written.shape[:2]
        if positions is None:
            positions = torch.arange(1, width + 1, device=written.device).expand(batch, -1)
        if visible is None:
            visible = torch.ones(batch, width, width, dtype=torch.bool, device=written.device).tril()
        positions = nn.functional.pad(positions, (1, 0))                          # [B, 1 + Q]
        visible = nn.functional.pad(visible, (1, 0, 1, 0))                        # [B, 1 + Q, 1 + Q]
        visible[:, :, 0] = True
        decoder = self.transformer.decoder
        bias = self._distance_bias(positions) + additive_mask(visible, written.dtype)       # [B, heads, 1 + Q, 1 + Q]
        mask = additive_mask(real[:, None], written.dtype)                        # [B, 1, 1, S]
        hidden = decoder.dropout(torch.cat([self.start.expand(batch, 1, -1), written], dim=1))
        # Layer by layer: T5's decoder takes neither position numbers nor such a mask, and a block of older transformers asks
        # for a cache.
        for block in decoder.block:
            attend, read, think = block.layer
            hidden = attend(hidden, position_bias=bias)[0]
            hidden = think(read(hidden, encoded, position_bias=mask)[0])
        return decoder.dropout(decoder.final_layer_norm(hidden))

    def _distance_bias(self, positions: Tensor) -> Tensor:
        """T5's learned bias of every pair of positions [B, Q], in its first block for all of them: [B, heads, Q, Q]."""
        attention = self.transformer.decoder.block[0].layer[0].SelfAttention
        buckets = attention._relative_position_bucket(
            positions[:, None, :] - positions[:, :, None], bidirectional=False,
            num_buckets=attention.relative_attention_num_buckets, max_distance=attention.relative_attention_max_distance)
        return attention.relative_attention_bias(buckets).permute(0, 3, 1, 2)
