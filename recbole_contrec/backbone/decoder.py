"""
recbole_contrec.backbone.decoder
################################
A causal transformer fed with vectors instead of words, built from a transformers configuration.
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from recbole_contrec.backbone.positions import (
    branch_masks,
    check_length,
    states_behind,
    states_of,
    worth_sharing,
)


class KeyValueCache(NamedTuple):
    """What branches remember of their prompt and of the steps since, in every decoder with ``start`` and ``step``.

    The branches of a row are places beside each other that share all keys; a mask says which of these each one sees. So
    the prompt is never copied for a branch, and a branch that goes on from another takes over its row of the mask.

    A memory goes back to the decoder that gave it. ``step`` writes into its ``cache``: one may step from the same
    memory again, but what was stepped to before is then overwritten.

    Attributes:
        cache: keys and values of every block as the decoder keeps them. :class:`CausalDecoder` has a pair a block,
            [B, heads, S + room, D / heads] each, and writes into the room; a pretrained one a cache of transformers.
        seen: which of the places written so far a branch sees [B, W, S].
        position: of the next step of every branch [B, W].
    """

    cache: Any
    seen: Tensor
    position: Tensor

    @classmethod
    def after(cls, inputs: Tensor, at: Tensor, cache: Any) -> "KeyValueCache":
        """Of branches behind positions [B, Q] of prompts [B, S, D]."""
        seen = torch.arange(inputs.shape[1], device=at.device) <= at[..., None]  # [B, Q, S]
        return cls(cache, seen, at + 1)

    def grown(self, parents: Tensor) -> Tensor:
        """What the W branches of the next step see, after their parents [B, W]: these and themselves, [B, W, S + W]."""
        batch, width = parents.shape
        seen = self.seen.gather(1, parents[..., None].expand(-1, -1, self.seen.shape[2]))  # [B, W, S]
        own = torch.eye(width, dtype=torch.bool, device=seen.device).expand(batch, -1, -1)
        return torch.cat([seen, own], dim=2)


class PromptDropout(nn.Module):
    """Dropout of states [B, S, D] that can spare what stands behind a prompt.

    A narrow model wants much dropout on histories, or it learns them by heart. On words the same dropout keeps it from
    learning even which word follows which.
    """

    def __init__(self, p: float):
        super().__init__()
        self.everywhere = nn.Dropout(p)
        self._prompt: int | None = None

    @contextmanager
    def up_to(self, prompt: int | None) -> Iterator[None]:
        """Inside the block nothing is dropped behind the first ``prompt`` positions; None for no such bound."""
        self._prompt = prompt
        try:
            yield
        finally:
            self._prompt = None

    def forward(self, states: Tensor) -> Tensor:
        if self._prompt is None or not self.training:
            return self.everywhere(states)
        return torch.cat([self.everywhere(states[:, : self._prompt]), states[:, self._prompt :]], dim=1)

    def mask(self, like: Tensor) -> Tensor | None:
        """What the dropout of such states would multiply them by, the same random numbers; None for nothing."""
        return self.everywhere(torch.ones_like(like)) if self.training and self.everywhere.p else None


class CausalDecoder(nn.Module):
    """A compact GPT-2 (pre-norm, learned positions) without a word table, trained from scratch.

    Rows are padded at the end, so the causal mask alone keeps padding out of every real state, and
    attention runs without a mask tensor.

    Args:
        hidden_size: width of inputs and states (D).
        n_layers: number of blocks.
        n_heads: attention heads; must divide ``hidden_size``.
        max_positions: longest prompt (S) it can read.
        dropout: on the inputs and on the output of each sub-layer, but for branches.
        intermediate_size: width of the feed-forward layers; 4 D if not given.
        n_words: size of the vocabulary it can read (V); 0 for a model without words.
        says: whether it can say them as well.

    Raises:
        ValueError: ``n_heads`` does not divide ``hidden_size``, or a prompt is too long.
    """

    POSITIONS = 2**18  # of prompts that are read at once where nothing is learned: what bounds the memory
    causal = True

    def __init__(
        self,
        hidden_size: int,
        n_layers: int,
        n_heads: int,
        max_positions: int,
        dropout: float = 0.0,
        intermediate_size: int | None = None,
        n_words: int = 0,
        says: bool = False,
    ):
        super().__init__()
        if hidden_size % n_heads:
            raise ValueError(f"n_heads={n_heads} must divide hidden_size={hidden_size}")
        from transformers import GPT2Config, GPT2Model  # slow import, needed by this class only

        self.max_positions = max_positions
        self.transformer = GPT2Model(
            GPT2Config(
                vocab_size=1,
                n_positions=max_positions,
                n_embd=hidden_size,
                n_layer=n_layers,
                n_head=n_heads,
                n_inner=intermediate_size,
                activation_function="gelu_pytorch_tanh",
                embd_pdrop=dropout,
                resid_pdrop=dropout,
                # The usual 0.02 is made for widths near 768; at 64 it starves the first epochs. This is PyTorch's own
                # scale.
                initializer_range=(3 * hidden_size) ** -0.5,
                # With attention dropout the fused kernel is not available on CPUs, and [B, heads, S, S] is stored.
                attn_pdrop=0.0,
                use_cache=False,
                attn_implementation="sdpa",  # type: ignore[call-arg]  # one of those that transformers takes for any model
                bos_token_id=None,
                eos_token_id=None,
            )
        )
        del self.transformer.wte  # the prompt gives vectors, never word numbers
        self.dropout = PromptDropout(dropout)
        network: Any = self.transformer  # whose dropouts may be of another class than transformers says
        network.drop = self.dropout
        for block in network.h:
            block.attn.resid_dropout = block.mlp.dropout = self.dropout
        self.n_words = n_words
        self.words = nn.Embedding(n_words, hidden_size) if n_words else None
        if self.words is not None:
            nn.init.normal_(self.words.weight, std=0.1)
        # Apart from what is read: the words of the prompt learn from the preferences as well.
        self.word_output = nn.Linear(hidden_size, n_words) if says else None

    def read(self, numbers: Tensor) -> Tensor:
        """Vectors of words: [...] -> [..., D]."""
        assert self.words is not None, "a decoder without words"
        return self.words(numbers)

    def word_logits(self, states: Tensor) -> Tensor:
        """Scores (logits) of the next word: [..., D] -> [..., V]."""
        assert self.word_output is not None, "a decoder that says nothing"
        return self.word_output(states)

    def forward(
        self, inputs: Tensor, positions: Tensor | None = None, visible: Tensor | None = None, prompt: int | None = None
    ) -> Tensor:
        """States of a prompt, or of a prompt with branches: several ways to go on that stand behind it one after the
        other, each numbered on from where it branches off and blind to the others.

        Args:
            inputs: prompt vectors [B, S, D], padded at the end.
            positions: position numbers [B, S]; 0..S-1 if not given.
            visible: which places (last axis) each place sees, itself among them [B, S, S]; all up to itself if not
                given.
            prompt: places in front of the branches; there is dropout in the others as well if not given.

        Returns:
            Tensor: final states [B, S, D]; without ``visible``, row ``s`` has seen places ``0..s``.
        """
        if positions is None and visible is None:
            return self.states_of_each([inputs])[0]
        positions, mask = branch_masks(inputs, positions, visible)  # [B, S], [B, 1, S, S]
        check_length(int(positions.max()) + 1, self.max_positions)
        with self.dropout.up_to(prompt):
            hidden = self.dropout(inputs + self.transformer.wpe(positions))  # [B, S, D]
            # Block by block: GPT2Model takes no such mask in older transformers.
            for block in self.transformer.h:
                hidden = self._block_from(block, hidden, *self._keys_and_values(block, hidden), mask)
        return self.transformer.ln_f(hidden)

    def states_of_each(self, prompts: Iterable[Tensor]) -> list[Tensor]:
        """States of prompts of several lengths, as :meth:`forward` gives them one by one.

        All positions go through the same products; attention alone takes the prompts apart. What is dropped of a prompt
        is drawn when the prompt comes, before the next one is asked for, so that it does not depend on this.

        Args:
            prompts: vectors [b, S, D] each, padded at the end.

        Returns:
            list: [b, S, D] each.
        """
        inputs, dropped = [], []
        for prompt in prompts:
            inputs.append(prompt + self.transformer.wpe(self._positions(prompt)))
            dropped.append([self.dropout.mask(prompt) for _ in range(1 + 2 * len(self.transformer.h))])
        sizes = [one.shape[:2] for one in inputs]
        on_input, *on_blocks = (
            None if masks[0] is None else torch.cat([mask.flatten(0, 1) for mask in masks]) for masks in zip(*dropped)
        )  # [P, D], P positions of all prompts
        hidden = torch.cat([one.flatten(0, 1) for one in inputs])  # [P, D]
        hidden = hidden if on_input is None else hidden * on_input
        for number, block in enumerate(self.transformer.h):
            hidden = self._block_of_each(block, hidden, sizes, *on_blocks[2 * number : 2 * number + 2])
        states = self.transformer.ln_f(hidden).split([rows * length for rows, length in sizes])
        return [part.unflatten(0, size) for part, size in zip(states, sizes)]

    def states_behind(self, prompts: Tensor, written: Tensor, length: Tensor | None = None) -> Tensor:
        """States before and after each of some vectors written behind prompts.

        Args:
            prompts: vectors [B, S, D], padded at the end.
            written: vectors [B, Q, D].
            length: real positions of every prompt [B]; all if not given.

        Returns:
            Tensor: [B, 1 + Q, D].
        """
        return states_behind(self, prompts, written, length)

    @torch.no_grad()
    def states_at(self, inputs: Tensor, at: Tensor, shared: int = 0) -> Tensor:
        """Some states of every row, as :meth:`forward` gives them in eval mode, for about half of its cost with two
        blocks.

        Of the final block only these positions are needed: their queries, their feed-forward layer. Keys and values are
        needed of every position.

        Args:
            inputs: prompt vectors [B, S, D], padded at the end.
            at: the positions asked for [B, Q].
            shared: leading positions at which all rows have the same vectors, none of them asked for. They are read
                once.

        Returns:
            Tensor: final states [B, Q, D].
        """
        return self._states_at(inputs, at, shared)

    @torch.no_grad()
    def start(self, inputs: Tensor, at: Tensor, room: int, shared: int = 0) -> tuple[Tensor, KeyValueCache]:
        """:meth:`states_at`, and what is needed to go on from there.

        Args:
            inputs: prompt vectors [B, S, D], padded at the end.
            at: the positions to go on from [B, Q].
            room: positions that the steps to come write, all branches together; of steps from the same memory the most.
            shared: leading positions at which all rows have the same vectors, none of them gone on from.

        Returns:
            tuple: final states [B, Q, D], and a memory with a branch for each of them.
        """
        cache = []
        states = self._states_at(
            inputs, at, shared, lambda *both: cache.append(tuple(F.pad(part, (0, 0, 0, room)) for part in both))
        )
        return states, KeyValueCache.after(inputs, at, cache)

    @torch.no_grad()
    def step(self, memory: KeyValueCache, inputs: Tensor, parents: Tensor) -> tuple[Tensor, KeyValueCache]:
        """One more position for W branches a row.

        Args:
            memory: of :meth:`start` or of the step before; its cache is written to.
            inputs: what the branches read [B, W, D].
            parents: the branch that each of them goes on from [B, W].

        Returns:
            tuple: final states [B, W, D], and the memory of the W branches.
        """
        before, after = memory.seen.shape[2], memory.seen.shape[2] + inputs.shape[1]
        seen = memory.grown(parents)  # [B, W, S + W]
        position = memory.position.gather(1, parents)  # [B, W]
        hidden = inputs + self.transformer.wpe(position)  # [B, W, D]
        for block, (keys, values) in zip(self.transformer.h, memory.cache):
            keys, values = keys[:, :, :after], values[:, :, :after]
            keys[:, :, before:], values[:, :, before:] = self._keys_and_values(block, hidden)
            hidden = self._block_from(block, hidden, keys, values, seen[:, None])
        return self.transformer.ln_f(hidden), memory._replace(seen=seen, position=position + 1)

    def _states_at(
        self, inputs: Tensor, at: Tensor, shared: int, keep: Callable[[Tensor, Tensor], None] | None = None
    ) -> Tensor:
        """:meth:`states_at`; ``keep`` gets the keys and values of every block, [B, heads, S, D / heads] each."""
        batch, positions = len(inputs), self._positions(inputs)
        hidden = inputs + self.transformer.wpe(positions)  # [B, S, D]
        shared = worth_sharing(inputs, shared)
        front, hidden = hidden[:1, :shared], hidden[:, shared:]  # [1, P, D], [B, S - P, D]
        past = positions <= positions[shared:, None] if shared else None  # [S - P, S]
        for number, block in enumerate(self.transformer.h, 1):
            keys, values = self._keys_and_values(block, hidden)
            if shared:
                own = self._keys_and_values(block, front)
                keys, values = (
                    torch.cat([first.expand(batch, -1, -1, -1), rest], dim=2)
                    for first, rest in zip(own, (keys, values))
                )  # [B, heads, S, D / heads]
                front = self._block_from(block, front, *own)
            if keep is not None:
                keep(keys, values)
            if number == len(self.transformer.h):  # nothing reads the final block's other states
                hidden = states_of(hidden, at - shared)  # [B, Q, D]
                past = (positions <= at[..., None])[:, None]  # [B, 1, Q, S]
            hidden = self._block_from(block, hidden, keys, values, past)
        return self.transformer.ln_f(hidden)

    @staticmethod
    def _block_of_each(
        block: Any, hidden: Tensor, sizes: list[torch.Size], on_attention: Tensor | None, on_mlp: Tensor | None
    ) -> Tensor:
        """A block at all positions of prompts [P, D] of some sizes (b, S), where each sees its past; the masks [P, D]
        are those of the dropout."""
        attention, mlp = block.attn, block.mlp
        parts = attention.c_attn(block.ln_1(hidden)).split([rows * length for rows, length in sizes])  # [b S, 3 D] each
        found = []
        for part, size in zip(parts, sizes):
            heads = part.view(*size, 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4)  # [3, b, heads, S, D / heads]
            query, keys, values = heads.unbind(0)
            seen = F.scaled_dot_product_attention(query, keys, values, is_causal=True)
            found.append(seen.transpose(1, 2).reshape(part.shape[0], -1))  # [b S, D]
        hidden = _add(hidden, attention.c_proj(torch.cat(found)), on_attention)
        return _add(hidden, mlp.c_proj(mlp.act(mlp.c_fc(block.ln_2(hidden)))), on_mlp)

    @staticmethod
    def _keys_and_values(block: Any, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """What a block's attention sees of ``hidden`` [B, S, D]: [B, heads, S, D / heads] each."""
        attention, width = block.attn, hidden.shape[-1]
        weight, bias = attention.c_attn.weight[:, width:], attention.c_attn.bias[width:]  # of query, key, value
        both = torch.addmm(bias, block.ln_1(hidden).flatten(0, 1), weight).unflatten(
            0, hidden.shape[:-1]
        )  # [B, S, 2 D]
        keys, values = (part.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2) for part in both.chunk(2, dim=-1))
        return keys, values

    @staticmethod
    def _block_from(block: Any, own: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None = None) -> Tensor:
        """A block at some positions, [B, W, D] -> [B, W, D], that see what the mask [B, 1, W, S] or [W, S] (true, or
        added to the scores) says of the keys and values [B, heads, S, D / heads]; without a mask they are all S
        positions, each with its past."""
        attention, width = block.attn, own.shape[-1]
        weight, bias = attention.c_attn.weight[:, :width], attention.c_attn.bias[:width]  # of query, key, value
        query = torch.addmm(bias, block.ln_1(own).flatten(0, 1), weight).view_as(own)
        query = query.unflatten(-1, (attention.num_heads, -1)).transpose(1, 2)  # [B, heads, W, D / heads]
        found = F.scaled_dot_product_attention(query, keys, values, mask, is_causal=mask is None)
        own = own + attention.resid_dropout(attention.c_proj(found.transpose(1, 2).flatten(2)))  # [B, W, D]
        return own + block.mlp(block.ln_2(own))

    def _positions(self, inputs: Tensor) -> Tensor:
        """0..S-1, [S]."""
        check_length(inputs.shape[1], self.max_positions)
        return torch.arange(inputs.shape[1], device=inputs.device)


def _add(hidden: Tensor, update: Tensor, mask: Tensor | None) -> Tensor:
    """Add what is left of an update by the mask of its dropout."""
    return hidden + update if mask is None else torch.addcmul(hidden, update, mask)
