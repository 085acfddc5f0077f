"""
recbole_contrec.settings.intervals
##################################
Settings that keep some rows of a column: intervals of numbers, and lists of tokens.
"""

import re
from typing import Any

from recbole_contrec.errors import UserError
from recbole_contrec.settings.numbers import is_finite_number
from recbole_contrec.showing import show


def check_interval(key: str, value: Any) -> None:
    """An interval, or several with ``;`` between them. RecBole only logs one that it cannot read, and filters nothing.

    Raises:
        UserError: shows how the interval is written.
    """
    if value is None:
        return
    for part in str(value).split(";"):
        match = re.fullmatch(r"\s*[\[(]([^,\[\]()]+),([^,\[\]()]+)[\])]\s*", part)
        low, high = map(_number, match.groups()) if match else (None, None)
        if low is None or high is None:
            raise UserError(
                f"{key}={show(value)}: write an interval such as {_as_interval(value) or '[5,inf) or (0,100]'}"
            )
        if low > high:
            raise UserError(f"{key}={show(value)}: {low:g} is above {high:g}, so that the interval is empty")


def _number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return None if number != number else number


def _as_interval(value: Any) -> str | None:
    """What was most likely meant by ``>=3``, ``3`` or ``[3, 5]``."""
    if isinstance(value, (list, tuple)) and len(value) == 2:
        return "[{},{}]".format(*value)
    match = re.fullmatch(r"\s*(>=|<=|==|=|>|<|)\s*([-+]?[\d.]+(?:e[-+]?\d+)?)\s*", str(value), re.I)
    if not match:
        return None
    sign, number = match.groups()
    return {">=": f"[{number},inf)", ">": f"({number},inf)", "<=": f"(-inf,{number}]", "<": f"(-inf,{number})"}.get(
        sign, f"[{number},{number}]"
    )


def check_values(key: str, value: dict[str, Any], final: dict[str, Any]) -> None:
    """What a filter keeps of every column: an interval of numbers, or a list of tokens.

    Raises:
        UserError: neither.
    """
    for column, wanted in value.items():
        if isinstance(wanted, list) and wanted and all(isinstance(token, str) for token in wanted):
            continue  # tokens that are kept; that the column holds tokens is checked with its header
        if wanted is None or isinstance(wanted, list) and not (len(wanted) == 2 and all(map(is_finite_number, wanted))):
            raise UserError(
                f"{key}: {column}={show(wanted)}: write an interval such as '[3,inf)' for numbers, or a list of "
                "texts for tokens: ['a', 'b']"
            )
        try:
            check_interval(column, wanted)
        except UserError as error:
            raise UserError(f"{key}: {error}") from None


def check_interval_and_type(column: str, kind: str, wanted: Any) -> None:
    """An interval for a column of numbers, a list of tokens for others.

    Raises:
        UserError: the other form.
    """
    if kind.startswith("float") and isinstance(wanted, list) and not all(map(is_finite_number, wanted)):
        raise UserError(
            f"val_interval: {column}={show(wanted)}: {column} holds numbers ({kind}): write an interval such as "
            f"'{_as_interval(wanted) or '[3,inf)'}'"
        )
    if kind.startswith("token") and not isinstance(wanted, list):
        raise UserError(
            f"val_interval: {column}={show(wanted)}: {column} holds tokens ({kind}): list those to keep, such as "
            "['a', 'b']"
        )
