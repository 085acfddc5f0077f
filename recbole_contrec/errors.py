"""
recbole_contrec.errors
######################
What the user can mend. The command line shows a :class:`UserError` as one or two lines without a traceback and
ends with exit code 2; everything else is a bug of ours and keeps its traceback.
"""

import difflib
from collections.abc import Iterable
from typing import Any

LONGEST = 1500  # characters of an error text


class UserError(Exception):
    """A mistake in the input: a misspelt name, a wrong value, a missing file. Its text says what to change, in
    printable characters and no more of them than anybody reads."""

    def __str__(self):
        return bounded(super().__str__())


def bounded(text: str, longest: int = LONGEST) -> str:
    """A text without control characters, its middle left out where it is long: what to change stands at its end."""
    if len(text) > longest:
        text = f"{text[: longest * 2 // 3]} ... {text[-longest // 3 :]}"
    plain = "".join(sign if sign.isprintable() or sign == "\n" else repr(sign)[1:-1] for sign in text)
    return bounded(plain, longest) if len(plain) > max(len(text), longest + 5) else plain


def shown(value: Any, longest: int = 40) -> str:
    """A value of the user's in an error text: between quotation marks, and cut where it is long."""
    text = value if isinstance(value, str) else str(value)
    return repr(text if len(text) <= longest else f"{text[:longest]}...")


def nearest(name: str, choices: Iterable[str], n: int = 3) -> list[str]:
    """The choices that ``name`` was most likely meant to be, best first; case, ``_`` and ``-`` do not count.

    Initials are read as well, so that ``lr`` finds ``learning_rate``.
    """
    spellings: dict[str, list[str]] = {}
    for choice in choices:
        spellings.setdefault(_plain(choice), []).append(choice)
    wanted = _plain(name)
    initials = [plain for plain, same in spellings.items() if len(wanted) > 1 and wanted == _initials(same[0])]
    close = difflib.get_close_matches(wanted, spellings, n=n)
    found = [
        choice
        for plain in dict.fromkeys(close[:1] * (wanted in spellings) + initials + close)
        for choice in spellings[plain]
    ]
    return found[:n]


def did_you_mean(name: str, choices: Iterable[str]) -> str:
    """`` (did you mean a, b or c?)`` to append to an error text; empty when nothing is near."""
    found = nearest(name, choices)
    if not found:
        return ""
    return f" (did you mean {' or '.join(filter(None, [', '.join(found[:-1]), found[-1]]))}?)"


def _plain(name: Any) -> str:
    return str(name).lower().replace("_", "").replace("-", "")


def _initials(name: Any) -> str:
    return "".join(word[:1] for word in str(name).lower().split("_"))
