"""
recbole_contrec.backbone.t5_writer
##################################
A T5 that reads vectors and writes step by step, with several branches at once, built from a transformers configuration.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from recbole_contrec.backbone.encoder_decoder import compact_t5
from recbole_contrec.backbone.positions import additive_mask


class WrittenBranches(NamedTuple):
    """What branches remember: the encoded prompt, and all that was written behind it, step by step.

    What was written is read again at every step: it is short, and the cost lies in the prompt, which is encoded once.

    Attributes:
        encoded: states of the prompts [B, S, D], and ``real``: which of them are no padding [B, S].
        written: vectors of all steps [B, Q, D].
        positions: the step in which each was written, from 1 on [B, Q].
        seen: which of them each one sees [B, Q, Q].
    """

    encoded: Tensor
    real: Tensor
    written: Tensor
    positions: Tensor
    seen: Tensor


class T5Writer(nn.Module):
    """A compact T5 (Raffel et al. 2020, https://arxiv.org/abs/1910.10683) without word tables, trained from scratch.

    The encoder reads a prompt in both directions. The decoder starts at a learned vector and reads what was written so
    far; branches of one prompt stand in one row beside each other, and a mask says what each place sees, so a prompt is
    encoded once however many branches go on from it.

    Arguments and errors are those of :func:`~recbole_contrec.backbone.encoder_decoder.compact_t5`.
    """

    POSITIONS = 2**18  # of prompts that are read at once where nothing is learned: what bounds the memory
    causal = False  # the encoder reads a history in both directions

    def __init__(
        self,
        hidden_size: int,
        n_layers: int,
        n_heads: int,
        dropout: float = 0.0,
        intermediate_size: int | None = None,
        attention_head_size: int | None = None,
    ):
        super().__init__()
        self.transformer: Any = compact_t5(
            hidden_size, n_layers, n_heads, dropout, intermediate_size, attention_head_size
        )
        self.first = nn.Parameter(0.2 * torch.randn(hidden_size))  # what the decoder starts at

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

    def decode(
        self,
        encoded: Tensor,
        real: Tensor,
        written: Tensor,
        positions: Tensor | None = None,
        visible: Tensor | None = None,
    ) -> Tensor:
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
        positions = nn.functional.pad(positions, (1, 0))  # [B, 1 + Q]
        visible = nn.functional.pad(visible, (1, 0, 1, 0))  # [B, 1 + Q, 1 + Q]
        visible[:, :, 0] = True
        decoder = self.transformer.decoder
        bias = self._distance_bias(positions) + additive_mask(visible, written.dtype)  # [B, heads, 1 + Q, 1 + Q]
        mask = additive_mask(real[:, None], written.dtype)  # [B, 1, 1, S]
        hidden = decoder.dropout(torch.cat([self.first.expand(batch, 1, -1), written], dim=1))
        # Layer by layer: T5's decoder takes neither position numbers nor such a mask, and a block of older transformers
        # asks for a cache.
        for block in decoder.block:
            self_attention, cross_attention, feed_forward = block.layer
            hidden = self_attention(hidden, position_bias=bias)[0]
            hidden = feed_forward(cross_attention(hidden, encoded, position_bias=mask)[0])
        return decoder.dropout(decoder.final_layer_norm(hidden))

    def states_behind(self, prompts: Tensor, written: Tensor, length: Tensor | None = None) -> Tensor:
        """States before and after each of some vectors written behind prompts.

        Args:
            prompts: vectors [B, S, D], padded at the end.
            written: vectors [B, Q, D].
            length: real positions of every prompt [B]; all if not given.

        Returns:
            Tensor: [B, 1 + Q, D].
        """
        return self.decode(*self.encode(prompts, length), written)

    @torch.no_grad()
    def start(self, inputs: Tensor, at: Tensor, room: int) -> tuple[Tensor, WrittenBranches]:
        """States to write the first step from, as those of :class:`~recbole_contrec.backbone.decoder.CausalDecoder`.

        Args:
            inputs: prompt vectors [B, S, D], padded at the end.
            at: the last real position of every prompt [B, 1].
            room: not needed here.

        Returns:
            tuple: states [B, 1, D], and a memory of one branch.
        """
        encoded, real = self.encode(inputs, at[:, 0] + 1)
        nothing = at.new_zeros(len(at), 0)
        memory = WrittenBranches(encoded, real, inputs[:, :0], nothing, real.new_zeros(len(at), 0, 0))
        return self.decode(*memory), memory

    @torch.no_grad()
    def step(self, memory: WrittenBranches, inputs: Tensor, parents: Tensor) -> tuple[Tensor, WrittenBranches]:
        """One more step for W branches a row.

        Args:
            memory: of :meth:`start` or of the step before.
            inputs: what the branches write [B, W, D].
            parents: the branch that each of them goes on from [B, W].

        Returns:
            tuple: states [B, W, D], and the memory of the W branches.
        """
        steps, (batch, width), before = memory.positions, parents.shape, memory.seen.shape[1]
        seen = torch.eye(width, dtype=torch.bool, device=parents.device).expand(batch, -1, -1)
        if before:  # a branch sees what its parent saw
            branches = int((steps[0] == steps[0, -1]).sum())
            past = memory.seen[:, -branches:].gather(1, parents[..., None].expand(-1, -1, before))
            seen = torch.cat([nn.functional.pad(memory.seen, (0, width)), torch.cat([past, seen], dim=2)], dim=1)
        number = int(steps[0, -1]) + 1 if before else 1
        memory = memory._replace(
            written=torch.cat([memory.written, inputs], dim=1),
            seen=seen,
            positions=torch.cat([steps, torch.full_like(parents, number)], dim=1),
        )
        return self.decode(*memory)[:, -width:], memory

    def _distance_bias(self, positions: Tensor) -> Tensor:
        """T5's learned bias of every pair of positions [B, Q], in its first block for all of them: [B, heads, Q, Q]."""
        attention = self.transformer.decoder.block[0].layer[0].SelfAttention
        buckets = attention._relative_position_bucket(
            positions[:, None, :] - positions[:, :, None],
            bidirectional=False,
            num_buckets=attention.relative_attention_num_buckets,
            max_distance=attention.relative_attention_max_distance,
        )
        return attention.relative_attention_bias(buckets).permute(0, 3, 1, 2)
