"""
recbole_contrec.backbone.prompt
###############################
The one place that decides which vector goes to which position of the prompt.
"""

import torch
from torch import Tensor, nn

from recbole_contrec.backbone.wording import Wordings


class Prompt(nn.Module):
    """``[instruction | user tokens | tokens of item 1 | tokens of item 2 | ...]``, and the way back.

    Args:
        hidden_size: width of the language model (D).
        instruction_length: number of learned instruction vectors (a soft prompt); 0 for none.
        n_user_tokens: user tokens (K), 0 for none.
        n_item_tokens: tokens an item (K).
        item_positions: ``"one"`` adds an item's K tokens up into one position (the additive K-way form, S = L);
            ``"each"`` gives every token a position of its own (S = K L), as in the paper.
        max_items: longest history (L).
        wordings: an instruction in words, behind the learned vectors; None for none.
    """

    def __init__(self, hidden_size: int, instruction_length: int, n_user_tokens: int, n_item_tokens: int,
                 item_positions: str, max_items: int, wordings: Wordings | None = None):
        super().__init__()
        if item_positions not in ("one", "each"):
            raise ValueError(f"item_positions={item_positions!r}: choose 'one' or 'each'")
        self.n_user_tokens = n_user_tokens
        self.positions_per_item = n_item_tokens if item_positions == "each" else 1
        self.instruction = nn.Parameter(0.02 * torch.randn(instruction_length, hidden_size))
        self.wordings = wordings

        words = 0 if wordings is None else wordings.length
        self.prefix_length = instruction_length + words + n_user_tokens
        self.max_positions = self.prefix_length + self.positions_per_item * max_items

    def forward(self, user_tokens: Tensor | None, item_tokens: Tensor) -> Tensor:
        """Lay the vectors out.

        Args:
            user_tokens: [B, K, D], or None when the model has none.
            item_tokens: [B, L, K, D], padded at the end.

        Returns:
            Tensor: prompt vectors [B, S, D].
        """
        batch, length, _, width = item_tokens.shape
        if self.positions_per_item == 1:
            items = item_tokens.sum(2)  # [B, L, D]
        else:
            items = item_tokens.reshape(batch, -1, width)  # [B, L K, D]
        parts = [self.instruction.expand(batch, -1, -1)]
        if self.wordings is not None:
            parts.append(self.wordings(batch))
        if self.n_user_tokens:
            parts.append(user_tokens)
        return torch.cat([*parts, items], dim=1)  # [B, S, D]

    def states_after_items(self, states: Tensor) -> Tensor:
        """The state that has seen item 1..l completely, for every l.

        Args:
            states: [B, S, D] of a prompt laid out by :meth:`forward`.

        Returns:
            Tensor: [B, L, D].
        """
        return states[:, self.prefix_length + self.positions_per_item - 1::self.positions_per_item]

    def position_after(self, length: Tensor) -> Tensor:
        """Position of the state that has seen ``length`` items: [B] -> [B]."""
        return self.prefix_length + self.positions_per_item * length - 1
