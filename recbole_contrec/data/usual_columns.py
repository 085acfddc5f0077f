"""
recbole_contrec.data.usual_columns
##################################
Columns of a table that nobody has named: those with a usual name are taken, and said.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

# in the order in which they are looked for, without case, blanks, underscores and RecBole's types
USUAL = {
    "user": "userid user uid reviewerid customerid customer username visitorid memberid sessionid".split(),
    "item": (
        "itemid item iid productid product parentasin asin sku movieid articleid bookid isbn businessid gameid appid "
        "trackid songid videoid newsid artistid locationid venueid"
    ).split(),
    "time": "timestamp time ts unixreviewtime unixtimestamp datetime date eventtime createdat tdat".split(),
}
TEXTS = "title name itemname productname movietitle brand artist author category categories genre genres".split()
DEFAULTS = {"user": "user_id", "item": "item_id", "time": "timestamp"}


def complete(
    columns: Mapping[str, Any], rows: Sequence[str] | None, items: Sequence[str] | None
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The columns with those that were left open, and a note on what was taken for them.

    Args:
        columns (dict): option of ``prepare`` -> column, ``text`` -> list of columns.
        rows (list): names of the columns of the interactions, None where the file is not here yet.
        items (list): names of the columns of the table of the items, None where there is none, or not yet.
    """
    filled, told = dict(columns), []
    for option, default in DEFAULTS.items():
        if not filled.get(option):
            free = [name for name in rows or () if name not in (filled.get(other) for other in DEFAULTS)]
            filled[option] = _first(USUAL[option], free) or default
            if filled[option] != default:
                told.append(f"--{option}={filled[option]}")
    if items is not None:
        if not filled.get("item_id"):
            filled["item_id"] = filled["item"] if filled["item"] in items else _first(USUAL["item"], items)
            if filled["item_id"] not in (None, filled["item"]):
                told.append(f"--item_id={filled['item_id']}")
        if not filled.get("text"):
            filled["text"] = [name for name in items if _plain(name) in TEXTS and name != filled["item_id"]]
            if filled["text"]:
                told.append(f"--text={','.join(filled['text'])}")
    return filled, (f"columns taken by their names: {' '.join(told)}",) if told else ()


def _first(usual: Sequence[str], names: Sequence[str]) -> str | None:
    plain = {_plain(name): name for name in reversed(names)}
    return next((plain[name] for name in usual if name in plain), None)


def _plain(name: str) -> str:
    return re.sub(r"[\W_]", "", re.sub(r":(token|float)(_seq)?$", "", str(name)).lower())
