"""
recbole_contrec.backbone.decoder
################################
A causal transformer fed with vectors instead of words, built from a transformers configuration.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class CausalDecoder(nn.Module):
    """A compact GPT-2 (pre-norm, learned positions) without a word table, trained from scratch.

    Rows are padded at the end, so the causal mask alone keeps padding out of every real state, and
    attention runs without a mask tensor.

    Args:
        hidden_size: width of inputs and states (D).
        n_layers: number of blocks.
        n_heads: attention heads; must divide ``hidden_size``.
        max_positions: longest prompt (S) it can read.
        dropout: on the inputs and on the output of each sub-layer.
        intermediate_size: width of the feed-forward layers; 4 D if not given.

    Raises:
        ValueError: ``n_heads`` does not divide ``hidden_size``, or a prompt is too long.
    """

    def __init__(self, hidden_size: int, n_layers: int, n_heads: int, max_positions: int, dropout: float = 0.0,
                 intermediate_size: int | None = None):
        super().__init__()
        if hidden_size % n_heads:
            raise ValueError(f"n_heads={n_heads} must divide hidden_size={hidden_size}")
        from transformers import GPT2Config, GPT2Model  # slow import, needed by this class only

        self.max_positions = max_positions
        self.transformer = GPT2Model(GPT2Config(
            vocab_size=1, n_positions=max_positions, n_embd=hidden_size, n_layer=n_layers, n_head=n_heads,
            n_inner=intermediate_size, activation_function="gelu_pytorch_tanh", embd_pdrop=dropout,
            resid_pdrop=dropout,
            # The usual 0.02 is made for widths near 768; at 64 it starves the first epochs. This is PyTorch's own scale.
            initializer_range=(3 * hidden_size) ** -0.5,
            # With attention dropout the fused kernel is not available on CPUs, and [B, heads, S, S] is stored.
            attn_pdrop=0.0, use_cache=False, attn_implementation="sdpa", bos_token_id=None, eos_token_id=None))
        del self.transformer.wte  # the prompt gives vectors, never word numbers

    def forward(self, inputs: Tensor) -> Tensor:
        """States of a prompt.

        Args:
            inputs: prompt vectors [B, S, D], padded at the end.

        Returns:
            Tensor: final states [B, S, D]; row ``s`` has seen positions ``0..s``.
        """
        return self.transformer(inputs_embeds=inputs, position_ids=self._positions(inputs)[None]).last_hidden_state

    @torch.no_grad()
    def state_at(self, inputs: Tensor, last: Tensor) -> Tensor:
        """One state a row, as :meth:`forward` gives it in eval mode, for about half of its cost with two blocks.

        Of the final block only this position is needed: its query, its feed-forward layer. Keys and values are needed
        of every position.

        Args:
            inputs: prompt vectors [B, S, D], padded at the end.
            last: the position asked for [B].

        Returns:
            Tensor: final states [B, D].
        """
        positions = self._positions(inputs)
        hidden = inputs + self.transformer.wpe(positions)                         # [B, S, D]
        *blocks, final = self.transformer.h
        for block in blocks:
            hidden = block(hidden)
            hidden = hidden[0] if isinstance(hidden, tuple) else hidden           # a tuple in older transformers
        visible = positions <= last[:, None]                                      # [B, S]
        own = hidden[torch.arange(len(last), device=last.device), last]           # [B, D]
        own = own + self._attend_from(final.attn, final.ln_1(own), final.ln_1(hidden), visible)
        own = own + final.mlp(final.ln_2(own))
        return self.transformer.ln_f(own)

    @staticmethod
    def _attend_from(attention, own: Tensor, normed: Tensor, visible: Tensor) -> Tensor:
        """Self-attention of one position a row, [B, D], to the visible ones [B, S] of ``normed`` [B, S, D]."""
        width = own.shape[-1]
        weight, bias = attention.c_attn.weight, attention.c_attn.bias             # [D, 3 D], [3 D]: query, key, value
        query = torch.addmm(bias[:width], own, weight[:, :width])                 # [B, D]
        key, value = (normed @ weight[:, width:] + bias[width:]).chunk(2, dim=-1)   # [B, S, D] each
        query, key, value = (part.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)
                             for part in (query[:, None], key, value))            # [B, heads, 1 or S, D / heads]
        seen = F.scaled_dot_product_attention(query, key, value, visible[:, None, None])    # [B, heads, 1, D / heads]
        return attention.c_proj(seen.flatten(1))

    def _positions(self, inputs: Tensor) -> Tensor:
        """0..S-1, [S]."""
        if inputs.shape[1] > self.max_positions:
            raise ValueError(f"a prompt of {inputs.shape[1]} positions is longer than max_positions="
                             f"{self.max_positions}")
        return torch.arange(inputs.shape[1], device=inputs.device)


def length_groups(lengths: Tensor, waste: float = 0.2) -> list[Tensor]:
    """Rows that may be computed together without much padding, longest first.

    Args:
        lengths: real positions of every row [B].
        waste: a row joins a group only if it is at most this share shorter than the group's longest.

    Returns:
        list: row numbers [b] of every group; together they are a permutation of ``0..B-1``.
    """
    ordered, rows = lengths.sort(descending=True)
    ordered = ordered.tolist()
    groups, first = [], 0
    for place, length in enumerate(ordered):
        # Very small groups cost more in calls than they save in padding.
        if length < (1 - waste) * ordered[first] and place - first >= 4:
            groups.append(rows[first:place])
            first = place
    groups.append(rows[first:])
    return groups
