"""
recbole_contrec.backbone.decoder
################################
A causal transformer fed with vectors instead of words, built from a transformers configuration.
"""

import torch
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
        if inputs.shape[1] > self.max_positions:
            raise ValueError(f"a prompt of {inputs.shape[1]} positions is longer than max_positions="
                             f"{self.max_positions}")
        positions = torch.arange(inputs.shape[1], device=inputs.device)
        return self.transformer(inputs_embeds=inputs, position_ids=positions[None]).last_hidden_state


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
