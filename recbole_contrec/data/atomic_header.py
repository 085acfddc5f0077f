"""
recbole_contrec.data.atomic_header
##################################
The first line of RecBole's atomic files: names and types of the columns.
"""

import os
import re
from pathlib import Path
from typing import Any

from recbole_contrec.data.encoding import decoded
from recbole_contrec.errors import UserError, did_you_mean, shown
from recbole_contrec.showing import show

TYPES = ("token", "token_seq", "float", "float_seq")
_HEAD = 1 << 16  # bytes in which a header must end


def is_there(file: Path) -> bool:
    """Whether there is a file to be read. What has its name and is none is not taken for nothing.

    Raises:
        UserError: a folder, a link to nothing or the like.
    """
    try:
        if file.is_file():
            return True
        if not os.path.lexists(file):
            return False
        what = "a folder" if file.is_dir() else "a link that leads nowhere" if not file.exists() else "no regular file"
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror or error}") from error
    raise UserError(f"{file} is {what}, where a file with columns should be")


def separator_of(value: Any) -> str:
    """The setting ``field_separator``; a tab may be written as a backslash and a t, as RecBole takes it too.

    Raises:
        UserError: it cannot stand between columns.
    """
    if value == "\\t":
        return "\t"
    if not isinstance(value, str) or not value or set(value) & set('"\r\n'):
        raise UserError(
            f"field_separator={show(value)} cannot stand between columns: name a character such as '\\t' or ','"
        )
    return value


def read_header(file: Path, separator: str = "\t", encoding: str | None = None) -> dict[str, str]:
    """Column -> RecBole type from the first line of an atomic file.

    Raises:
        UserError: the file cannot be read, a column without a type or with one that RecBole does not know, or the same
            column twice.
    """
    file, separator = Path(file), separator_of(separator)
    try:
        with open(file, "rb") as opened:
            head = opened.read(_HEAD)
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror or error}") from error
    if not head:
        raise UserError(f"{file} is empty: its first line must name the columns")
    text = decoded(head, file, encoding, whole=len(head) < _HEAD)
    line = re.split("[\r\n]", text, maxsplit=1)[0]
    return columns_of(line, file, separator)


def columns_of(line: str, file: Path, separator: str) -> dict[str, str]:
    """Column -> RecBole type from a first line.

    Raises:
        UserError: as :func:`read_header`.
    """
    cells = line.split(separator)
    if bare := [cell for cell in cells if cell.count(":") != 1 or cell.startswith(":")]:
        raise UserError(
            f"{file}: column {shown(bare[0])} must read name:type (token, token_seq, float or float_seq), "
            f"with {show(separator)} between columns"
        )
    columns: dict[str, str] = {}
    for name, kind in (cell.split(":") for cell in cells):
        if kind not in TYPES:
            raise UserError(
                f"{file}: column {shown(name)} has the unknown type {shown(kind)}{did_you_mean(kind, TYPES)}; "
                f"types are {', '.join(TYPES)}"
            )
        if name in columns:
            raise UserError(f"{file}: its header names the column {shown(name)} twice: rename one of them")
        columns[name] = kind
    return columns
