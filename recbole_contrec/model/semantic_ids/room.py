"""
recbole_contrec.model.semantic_ids.room
#######################################
How many positions a history takes whose items are read code by code.
"""

from typing import Any

from recbole_contrec.backbone import PretrainedDecoder, Prompt
from recbole_contrec.errors import UserError
from recbole_contrec.model.semantic_ids.self_improvement_settings import WORDS


def positions_of(config: Any, prompt: Prompt, pretrained: PretrainedDecoder | None) -> int:
    """Positions that a causal language model must be able to read: of the longest history and the item behind it, and
    of an item's words and codes.

    Raises:
        UserError: a pretrained model reads fewer.
        ValueError: it cannot read several beams of one prompt.
    """
    needed, words = prompt.max_positions, 0
    if config["self_improve"] and config["item_descriptions"] == WORDS:
        words = 1 + config["description_max_tokens"] + prompt.positions_per_item
    needed = max(needed, words)
    if pretrained is None or (limit := pretrained.longest_prompt(branches=True)) >= needed:
        return needed
    setting = "description_max_tokens" if needed == words else "MAX_ITEM_LIST_LENGTH"
    raise UserError(
        f"{setting}={config[setting]} takes up to {needed} positions, and {pretrained.name} reads {limit}: lower it"
    )
