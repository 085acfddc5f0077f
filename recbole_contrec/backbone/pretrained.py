"""
recbole_contrec.backbone.pretrained
###################################
A pretrained causal language model of transformers in the place of the compact decoder: fed with vectors, read for its
states, and able to read and score words. LoRA trains it at the cost of its adapters.
"""

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from inspect import signature
from typing import Any

import torch
from torch import Tensor

from recbole_contrec.backbone.adapters import some_values
from recbole_contrec.backbone.blocks import blocks_of
from recbole_contrec.backbone.decoder import KeyValueCache
from recbole_contrec.backbone.loading import not_causal
from recbole_contrec.backbone.positions import (
    additive_mask,
    branch_masks,
    check_length,
    states_behind,
    states_of,
    worth_sharing,
)
from recbole_contrec.backbone.pretrained_model import PretrainedModel
from recbole_contrec.backbone.probe import reads_branches, reads_from_left_to_right, scores_words
from recbole_contrec.errors import UserError
from recbole_contrec.sharding import Shards

_FORCE_GQA = "TRANSFORMERS_SDPA_FORCE_GQA"
SAMPLED = 64  # words that tell how large states are


class PretrainedDecoder(PretrainedModel):
    """A causal language model with the methods of :class:`~recbole_contrec.backbone.decoder.CausalDecoder`, and words.

    Settings are those of :class:`~recbole_contrec.backbone.pretrained_model.PretrainedModel`. Rows are padded at the
    end, so no word for padding is needed. ``attention="flash_attention_2"`` knows no masks: branches are read with
    SDPA.

    Attributes:
        max_positions: longest prompt (S); very large where the architecture has no limit.

    Raises:
        ValueError: a prompt that is too long; and what the base class raises.
        UserError: no causal language model, or one that is not understood here; and what the base class raises.
    """

    kind = "causal"
    causal = True

    def _examine(self) -> None:
        config = self._whole.config.get_text_config()
        self.max_positions = getattr(config, "max_position_embeddings", None) or sys.maxsize
        self._window = _window(config)
        self._probe()

    def _probe(self) -> None:
        words = torch.tensor([self.n_words // 4, self.n_words // 2, 3 * self.n_words // 4], device=self._device)
        with self._masked():
            if not reads_from_left_to_right(self, words):
                raise not_causal(self.name, self._whole.config)
            if not scores_words(self, self._whole, words):
                raise UserError(
                    f"{self.name}: {self._whole.config.model_type} models are not supported, since how they score "
                    "words is unknown"
                )
            self._branches = True
            self._branches = (
                "position_ids" in signature(self._body.forward).parameters
                # GPT-Neo counts the window of its local layers in places, whatever their position numbers
                and "local" not in getattr(self._whole.config, "attention_layers", ())
                and reads_branches(self, words)
            )

    def longest_prompt(self, branches: bool) -> int:
        """Positions of the longest prompt that it reads, with branches or without.

        Raises:
            ValueError: with branches, and the architecture cannot read these.
        """
        if not branches:
            return self.max_positions
        self._check_branches(0)
        return min(self.max_positions, self._window)

    # words

    def word_logits(self, states: Tensor) -> Tensor:
        """Scores (logits) of the next word: [..., D] -> [..., V], -inf for numbers that no word has."""
        config = self._whole.config.get_text_config()
        scores = self._whole.get_output_embeddings()(states.to(self._dtype))[..., : self.n_words].float()
        # What some architectures do between output layer and softmax: Cohere, Granite, Gemma.
        scores = scores * (getattr(config, "logit_scale", None) or 1) / (getattr(config, "logits_scaling", None) or 1)
        if cap := getattr(config, "final_logit_softcapping", None):
            scores = cap * torch.tanh(scores / cap)
        return scores.index_fill(-1, self._holes, -torch.inf) if len(self._holes) else scores

    # states

    @property
    @torch.no_grad()
    def state_size(self) -> float:
        """Root mean square of the coordinates of a final state, the median of some words that stand alone."""
        numbers = torch.linspace(0, self.n_words - 1, SAMPLED, device=self._device).long()
        return self(self.read(numbers)[:, None]).square().mean(-1).sqrt().median().item()

    def forward(
        self, inputs: Tensor, positions: Tensor | None = None, visible: Tensor | None = None, prompt: int | None = None
    ) -> Tensor:
        """``CausalDecoder.forward``: inputs [B, S, D], positions [B, S], visible [B, S, S] -> final states [B, S,
        D]. Dropout, which few of these models have, is everywhere as they were trained with it.

        Raises:
            ValueError: a prompt that is too long, or one with branches where the architecture cannot read these.
        """
        inputs = inputs.to(self._dtype)
        if positions is None and visible is None:
            check_length(inputs.shape[1], self.max_positions)
            return self._body(inputs_embeds=inputs, use_cache=False).last_hidden_state.float()
        positions, mask = branch_masks(inputs, positions, visible)
        self._check_branches(int(positions.max()) + 1)
        with self._masked():
            return self._body(
                inputs_embeds=inputs, position_ids=positions, attention_mask=mask, use_cache=False
            ).last_hidden_state.float()

    def states_of_each(self, prompts: Iterable[Tensor]) -> list[Tensor]:
        """States of prompts of several lengths, [b, S, D] each; see
        :meth:`~recbole_contrec.backbone.decoder.CausalDecoder.states_of_each`."""
        return [self(prompt) for prompt in prompts]

    def states_behind(self, prompts: Tensor, written: Tensor, length: Tensor | None = None) -> Tensor:
        """``CausalDecoder.states_behind``: prompts [B, S, D], written [B, Q, D], length [B] -> states [B, 1 + Q, D]."""
        return states_behind(self, prompts, written, length)

    @torch.no_grad()
    def states_at(self, inputs: Tensor, at: Tensor, shared: int = 0) -> Tensor:
        """``CausalDecoder.states_at``: inputs [B, S, D], at [B, Q] -> final states [B, Q, D]."""
        if worth_sharing(inputs, shared) and self._branches and inputs.shape[1] <= self._window:
            rows = max(1, self.POSITIONS // inputs.shape[1])
            return torch.cat([self.start(*part, 0, shared)[0] for part in zip(inputs.split(rows), at.split(rows))])
        return states_of(self(inputs), at)

    @torch.no_grad()
    def start(self, inputs: Tensor, at: Tensor, room: int, shared: int = 0) -> tuple[Tensor, KeyValueCache]:
        """``CausalDecoder.start``: inputs [B, S, D], at [B, Q] -> final states [B, Q, D] and a memory. The room is
        not needed here: the cache grows."""
        from transformers import DynamicCache

        self._check_branches(inputs.shape[1])
        cache = DynamicCache()  # without the configuration, so that no layer forgets what left its window
        memory, shared = KeyValueCache.after(inputs, at, cache), worth_sharing(inputs, shared)
        inputs = inputs.to(self._dtype)
        if shared:
            self._body(inputs_embeds=inputs[:1, :shared], past_key_values=cache, use_cache=True)
            cache.batch_repeat_interleave(len(inputs))
        states = self._body(inputs_embeds=inputs[:, shared:], past_key_values=cache, use_cache=True).last_hidden_state
        return states_of(states, at - shared).float(), memory

    @torch.no_grad()
    def step(self, memory: KeyValueCache, inputs: Tensor, parents: Tensor) -> tuple[Tensor, KeyValueCache]:
        """``CausalDecoder.step``: inputs [B, W, D], parents [B, W] -> final states [B, W, D] and the memory of W
        branches."""
        position = memory.position.gather(1, parents)  # [B, W]
        self._check_branches(int(position.max()) + 1)
        if beyond := memory.cache.get_seq_length() - memory.seen.shape[2]:
            memory.cache.crop(-beyond)  # another step from this memory has been taken
        seen = memory.grown(parents)  # [B, W, S + W]
        with self._masked(), _keys_as_they_are(inputs.device):
            states = self._body(
                inputs_embeds=inputs.to(self._dtype),
                position_ids=position,
                attention_mask=additive_mask(seen, self._dtype),
                past_key_values=memory.cache,
                use_cache=True,
            ).last_hidden_state  # [B, W, D]
        return states.float(), memory._replace(seen=seen, position=position + 1)

    # several processes

    def shard(self) -> Shards:
        """From now on each process of the run keeps one part of every parameter in the blocks. What is frozen is never
        whole again; ``state_dict`` and ``load_state_dict`` are for all processes at once.

        Raises:
            UserError: the blocks are not found, or compute in float16: each process would scale its loss otherwise.
        """
        if self._dtype == torch.float16:
            raise UserError(f"shard_backbone=True: {self.name} computes in float16, set llm_dtype=bfloat16 or float32")
        blocks = blocks_of(self._whole)[1]
        self._still = [some_values(p) for p in self._frozen()]
        return Shards(self._body, blocks, self.hidden_size, self._dtype)

    # inside

    @property
    def _body(self) -> Any:
        """The same without the output layer."""
        body = self._whole.base_model
        return self._whole.get_decoder() if body is self._whole else body  # a few name it otherwise

    @contextmanager
    def _masked(self):
        """Attention that obeys a mask: flash attention does not."""
        config = self._whole.config
        own = config._attn_implementation
        if own != "flash_attention_2":
            yield
            return
        if torch.is_grad_enabled() and self.checkpointing:  # the second pass is not in this block
            raise ValueError("attention=flash_attention_2 trains no branches with gradient_checkpointing: take sdpa")
        config._attn_implementation = "sdpa"
        try:
            yield
        finally:
            config._attn_implementation = own

    def _check_branches(self, length: int) -> None:
        """Whether a prompt of some length, its branches included, can be read."""
        kind = self._whole.config.model_type
        if not self._branches:
            raise ValueError(
                f"{self.name}: a {kind} model of transformers {version('transformers')} cannot read branches "
                "of a prompt; take one with plain attention and position numbers, such as a Llama or Qwen"
            )
        check_length(length, self.max_positions)
        if length > self._window:
            raise ValueError(
                f"{self.name}: some layers see {self._window} positions only, so a prompt with branches "
                f"cannot have {length}"
            )


@contextmanager
def _keys_as_they_are(device: torch.device) -> Iterator[None]:
    """Attention with fewer heads of keys than of queries reads the keys where they lie. Under a mask transformers
    copies them first, once a head, for the sake of GPU kernels; behind a long prompt these copies take half of a step.

    Versions of transformers that do not know the variable copy as before.
    """
    if device.type != "cpu":
        yield
        return
    before = os.environ.get(_FORCE_GQA)
    os.environ[_FORCE_GQA] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[_FORCE_GQA]
        else:
            os.environ[_FORCE_GQA] = before


def _window(config: Any) -> int:
    """How far back the layers see that see least. A mask of ours is the same for all layers; beyond the window of some
    it would show these too much."""
    kinds = set(getattr(config, "layer_types", None) or ())
    if kinds == {"full_attention"} or getattr(config, "use_sliding_window", True) is False:
        return sys.maxsize
    sizes = (getattr(config, key, None) for key in ("sliding_window", "attention_chunk_size"))
    return min((size for size in sizes if size), default=sys.maxsize)
