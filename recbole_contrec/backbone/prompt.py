"""
recbole_contrec.backbone.prompt
###############################
The one place that decides which vector goes to which position of the prompt.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from recbole_contrec.backbone.instructions import Instructions, VocabularyInstructions
from recbole_contrec.backbone.positions import states_of


class Words(NamedTuple):
    """What a prompt says of items in words, padded at the end."""

    vectors: Tensor  # [B, L, T, D]
    lengths: Tensor  # [B, L]
    real: Tensor  # [B, L]        false where there is no item: such places take no position


class Layout(NamedTuple):
    """A prompt laid out, and the way back to its items."""

    vectors: Tensor  # [B, S, D]
    ends: Tensor  # [B, L]        where items end: the state there has seen item 1..l completely
    shared: int  # leading positions at which all rows have the same vectors, all in front of `ends`

    def after_items(self, states: Tensor) -> Tensor:
        """The states [B, L, D] after every item among those of all positions [B, S, D]."""
        return states_of(states, self.ends)

    def last(self, length: Tensor) -> Tensor:
        """Position of the state that has seen ``length`` items: [B] -> [B]."""
        return self.ends.gather(1, length[:, None] - 1).squeeze(1)


class Prompt(nn.Module):
    """``[instruction | user tokens | words and tokens of item 1 | words and tokens of item 2 | ...]``.

    Args:
        hidden_size: width of the language model (D).
        soft_prompt_length: number of learned instruction vectors (a soft prompt); 0 for none.
        n_user_tokens: user tokens (K), 0 for none.
        n_item_tokens: tokens an item (K).
        item_positions: ``"one"`` adds an item's K tokens up into one position (the additive K-way form, S = L);
            ``"each"`` gives every token a position of its own (S = K L), as in the paper.
        max_items: longest history (L).
        words_per_item: words in front of an item's tokens (T), at most.
        instructions: an instruction in words, behind the learned vectors; None for none.
        token_scale: tokens of users and items are multiplied by it, to be as large as the words that a pretrained model
            knows: a token of many times their size would drown what its blocks add.
    """

    def __init__(
        self,
        hidden_size: int,
        soft_prompt_length: int,
        n_user_tokens: int,
        n_item_tokens: int,
        item_positions: str,
        max_items: int,
        instructions: Instructions | VocabularyInstructions | None = None,
        words_per_item: int = 0,
        token_scale: float = 1.0,
    ):
        super().__init__()
        if item_positions not in ("one", "each"):
            raise ValueError(f"item_positions={item_positions!r}: choose 'one' or 'each'")
        self.n_user_tokens = n_user_tokens
        self.positions_per_item = n_item_tokens if item_positions == "each" else 1
        self.instruction = nn.Parameter(0.02 * torch.randn(soft_prompt_length, hidden_size))
        self.instructions = instructions
        self.token_scale = token_scale

        words = 0 if instructions is None else instructions.length
        self.prefix_length = soft_prompt_length + words + n_user_tokens
        self.widest_item = words_per_item + self.positions_per_item
        self.max_positions = self.prefix_length + self.widest_item * max_items

    def no_weight_decay(self) -> set[str]:
        """Parameters of this module that are no matrices."""
        return {"instruction"}

    @property
    def shared(self) -> int:
        """Leading positions at which all rows of a batch have the same vectors. In training each draws its own
        instruction. An empty history ends with the instruction, whose last position is therefore not among them."""
        words = 0 if self.instructions is None or self.instructions.training else self.instructions.length
        return max(min(len(self.instruction) + words, self.prefix_length - 1), 0)

    def forward(self, user_tokens: Tensor | None, item_tokens: Tensor, words: Words | None = None) -> Layout:
        """Lay the vectors out.

        Args:
            user_tokens: [B, K, D], or None when the model has none.
            item_tokens: [B, L, K, D], padded at the end.
            words: in front of the tokens of each item; None for none.
        """
        batch, length = item_tokens.shape[:2]
        parts = [self.instruction.expand(batch, -1, -1)]
        if self.instructions is not None:
            parts.append(self.instructions(batch))
        if self.n_user_tokens:
            assert user_tokens is not None, "a prompt with tokens of users"
            parts.append(self.token_scale * user_tokens)
        items = item_tokens.sum(2, keepdim=True) if self.positions_per_item == 1 else item_tokens  # [B, L, P, D]
        items = items if self.token_scale == 1 else self.token_scale * items
        widths = torch.full((batch, length), self.positions_per_item, device=items.device)
        widths = widths if words is None else (widths + words.lengths) * words.real  # [B, L]
        ends = self.prefix_length - 1 + widths.cumsum(1)
        parts.append(items.flatten(1, 2) if words is None else _interleaved(items, words, widths))
        return Layout(torch.cat(parts, dim=1), ends, self.shared)


def _interleaved(items: Tensor, words: Words, widths: Tensor) -> Tensor:
    """The words of every item in front of its P vectors [B, L, P, D], without gaps: [B, S', D]."""
    ends = widths.cumsum(1)[..., None]  # [B, L, 1]
    place = torch.arange(words.vectors.shape[2], device=items.device)
    shown = (place < words.lengths[..., None]) & words.real[..., None]  # [B, L, T]
    rows, numbers, words_of_item = shown.nonzero(as_tuple=True)
    laid_out = items.new_zeros(len(items), int(ends.max()), items.shape[-1])  # [B, S', D]
    start = (ends - widths[..., None])[rows, numbers, 0]
    laid_out[rows, start + words_of_item] = words.vectors[rows, numbers, words_of_item]
    last = ends - items.shape[2] + torch.arange(items.shape[2], device=items.device)  # [B, L, P]
    rows, numbers = words.real.nonzero(as_tuple=True)
    laid_out[rows[:, None], last[rows, numbers]] = items[rows, numbers]  # [real items, P, D]
    return laid_out
