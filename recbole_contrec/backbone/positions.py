"""
recbole_contrec.backbone.positions
##################################
Positions of a prompt, for any causal model: which of them see which, and the states at some of them.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

# Added to an attention score, this leaves a weight of exactly 0. It is finite in every dtype, also behind a cast of
# autocast, so a place that sees nothing (padding) gets a state without meaning, not NaN.
_HIDDEN = -3e4


def worth_sharing(inputs: Tensor, shared: int) -> int:
    """How many leading positions of prompts [B, S, D] are read once for all rows: none where the mask that the others
    need costs more than that saves."""
    batch, length, _ = inputs.shape
    return shared if batch > 1 and 8 * shared >= length else 0


def states_of(states: Tensor, at: Tensor) -> Tensor:
    """States [B, S, D] at some positions [B, Q]: [B, Q, D]."""
    return states.gather(1, at[..., None].expand(-1, -1, states.shape[-1]))


def states_behind(
    decoder: Callable[[Tensor], Tensor], prompts: Tensor, written: Tensor, length: Tensor | None
) -> Tensor:
    """``states_behind`` of a causal decoder, by one pass of it over prompts with the vectors behind them."""
    count = written.shape[1]
    if length is None:
        return decoder(torch.cat([prompts, written], dim=1))[:, prompts.shape[1] - 1 :]
    at = (length - 1)[:, None] + torch.arange(1 + count, device=length.device)  # [B, 1 + Q]
    places = at[:, 1:, None].expand_as(written)
    return states_of(decoder(F.pad(prompts, (0, 0, 0, count)).scatter(1, places, written)), at)


def check_length(length: int, max_positions: int) -> None:
    """Refuse a prompt whose last position has no number.

    Raises:
        ValueError: it is too long.
    """
    if length > max_positions:
        raise ValueError(f"a prompt of {length} positions is longer than max_positions={max_positions}")


def branch_masks(inputs: Tensor, positions: Tensor | None, visible: Tensor | None) -> tuple[Tensor, Tensor]:
    """How attention is told about a prompt with branches.

    Args:
        inputs: prompt vectors [B, S, D].
        positions, visible: of ``forward``, [B, S] and [B, S, S]; None for those of a plain prompt.

    Returns:
        tuple: position numbers [B, S] and what is added to the attention scores [B, 1, S, S].
    """
    batch, length, _ = inputs.shape
    if positions is None:
        positions = torch.arange(length, device=inputs.device)
    if visible is None:
        visible = torch.ones(length, length, dtype=torch.bool, device=inputs.device).tril()
    return positions.expand(batch, -1), additive_mask(visible.expand(batch, -1, -1), inputs.dtype)


def additive_mask(visible: Tensor, dtype: torch.dtype) -> Tensor:
    """What is added to attention scores so that places [B, W, S] that are not visible get no weight: [B, 1, W, S]."""
    return torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill_(~visible, _HIDDEN)[:, None]
