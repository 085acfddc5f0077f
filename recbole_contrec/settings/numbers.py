"""
recbole_contrec.settings.numbers
################################
Bounds of numbers that no file gives bounds for, told by the names of the settings.
"""

import re
from typing import Any

from recbole_contrec.errors import UserError
from recbole_contrec.settings.schema import is_finite
from recbole_contrec.showing import show

_REPEATED = re.compile(r"(?:^|_)(?:layers?|blocks?|heads?|depth|hops?|hop_num|layer_num|layers_num|heads_num)$")
_SIZE = re.compile(r"(?:^|_)(?:size|dims?|heads?|heads_num|num_heads)$")
_SHARE = re.compile(r"(?:^|_)(?:dropout|dropout_prob|dropout_ratio|dropout_rate|drop_ratio|prob|mask_ratio|ft_ratio)$")
_SPREAD = re.compile(r"(?:^|_)(?:eps|initializer_range|std)$")
_COUNT = ("k", "neigh_num", "num_clusters", "k_interests")
MOST, WIDEST = 1000, 1_000_000


def check_size(key: str, value: Any) -> None:
    """Numbers that no file gives bounds for, as RecBole's do not: sizes are positive, shares lie between 0 and 1, and
    what a model is built of again and again takes forever long before it fills the memory.

    Raises:
        UserError: the bound.
    """
    if _SIZE.search(key) and not key.endswith(("batch_size", "world_size")):
        for width in value if isinstance(value, list) else [value]:
            if is_finite_number(width) and not 1 <= width <= WIDEST:
                raise UserError(f"{key}={show(value)}: must be at {'least 1' if width < 1 else f'most {WIDEST}'}")
    if not is_finite_number(value):
        return
    if _REPEATED.search(key) and value > MOST:
        raise UserError(f"{key}={value}: must be at most {MOST}")
    if key in _COUNT and value < 1:
        raise UserError(f"{key}={value}: must be at least 1")
    if _SPREAD.search(key) and value < 0:
        raise UserError(f"{key}={value}: must be at least 0")
    if _SHARE.search(key) and not 0 <= value <= 1:
        raise UserError(f"{key}={value}: must be from 0 to 1")


def is_finite_number(value: Any) -> bool:
    """Whether a setting is a number that can be counted with."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and is_finite(value)
