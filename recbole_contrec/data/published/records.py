"""
recbole_contrec.data.published.records
######################################
Files with a record on every line: JSON, or the literal of a Python dictionary as older data sets have it.
"""

import ast
import html
import json
import math
import re
from array import array
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from tqdm import tqdm

from recbole_contrec.data.archives import unpacked
from recbole_contrec.data.download import PrepareError
from recbole_contrec.data.writing import (
    ITEM,
    RATING,
    TIME,
    USER,
    clean_text,
    left_out,
    listed,
    reading,
    require_column,
)
from recbole_contrec.errors import shown

Reader = Callable[[dict, str, str], float]  # (record, field, where it stands) -> number
ITEM_TEXTS = [ITEM, "title:token_seq", "category:token_seq"]


class Fields(NamedTuple):
    """Which fields of a record are the user, the item, the time and, where there is one, the rating.

    ``seconds`` reads the time.
    """

    user: str
    item: str
    time: str
    rating: str | None = None
    seconds: Reader | None = None  # a number of seconds

    @property
    def names(self) -> list[str]:
        return [name for name in (self.user, self.item, self.rating, self.time) if name]


def check_first(path: Path | None, fields: Fields) -> None:
    """Stop at once where the first record lacks a field; None for a file that is not on this machine yet."""
    if path is None:
        return
    with reading(path):
        for line_number, line in lines(path, progress=False):
            _check(record(line, path, line_number), fields, _where(path, line_number))
            return


def _where(path: Path, line_number: int) -> str:
    return f"{Path(path).name}, line {line_number}"


def _check(values: dict, fields: Fields, where: str) -> None:
    for field in fields.names:
        require_column(field, list(values), where)


def interactions(path: Path, fields: Fields, progress: bool = True) -> tuple[pd.DataFrame, tuple[str, ...]]:
    """The interactions of a file with one on every line, and the notes on those that are left out.

    An id is kept once: a row costs 24 bytes, not four objects.
    """
    numbers: dict[str, dict[str, int]] = {USER: {}, ITEM: {}}
    readers: dict[str, tuple[str, Reader]] = {TIME: (fields.time, fields.seconds or number)}
    if fields.rating:
        readers = {RATING: (fields.rating, number), **readers}
    ids = {USER: fields.user, ITEM: fields.item}
    columns: dict[str, Any] = {USER: array("i"), ITEM: array("i"), **{column: array("d") for column in readers}}
    lacking = []  # lines without a user, an item or a time
    with reading(path):
        for line_number, line in lines(path, progress):
            values, where = record(line, path, line_number), _where(path, line_number)
            _check(values, fields, where)
            names = {column: text(values, field, where) for column, field in ids.items()}
            read = {column: reader(values, field, where) for column, (field, reader) in readers.items()}
            if not (names[USER] and names[ITEM] and math.isfinite(read[TIME])):
                lacking.append(line_number)
                continue
            for column, name in names.items():
                columns[column].append(numbers[column].setdefault(name, len(numbers[column])))
            for column, value in read.items():
                columns[column].append(value)
    inter = pd.DataFrame({column: np.array(values) for column, values in columns.items()})
    for column, codes in numbers.items():
        inter[column] = pd.Categorical.from_codes(inter[column].to_numpy(), categories=pd.Index(list(codes)))
    return inter, (left_out(len(lacking), f"{Path(path).name}, {listed(lacking)}"),) if lacking else ()


def items(
    path: Path,
    key: str,
    wanted: Collection[str],
    texts: Callable[[dict, str], tuple[str, Sequence[str]]],
    progress: bool = True,
) -> pd.DataFrame:
    """Title and category of the wanted items.

    Args:
        path (path): a file with an item on every line.
        key (str): the field of the id.
        wanted (collection): ids.
        texts (callable): (record, where it stands) -> title, and labels of which every one is kept once.
    """
    pattern = re.compile(rf"""['"]{key}['"]:\s*u?['"]([^'"]+)['"]""".encode())
    rows = []
    with reading(path):
        for line_number, line in lines(path, progress):
            found = pattern.search(line)  # most items are in no interaction: do not parse their lines
            if found and found.group(1).decode("utf-8", "replace") not in wanted and b"\\" not in found.group(1):
                continue
            values, where = record(line, path, line_number), _where(path, line_number)
            title, labels = texts(values, where)
            distinct = dict.fromkeys(filter(None, (clean_text(html.unescape(label)) for label in labels)))
            rows.append((text(values, key, where), html.unescape(title), ", ".join(distinct)))
    return pd.DataFrame(rows, columns=ITEM_TEXTS)


# one record


def record(line: bytes, path: Path, line_number: int) -> dict:
    """A line as a dictionary; nothing in it is ever executed."""
    content = line.decode("utf-8-sig" if line_number == 1 else "utf-8")
    try:
        values = json.loads(content)
    except (ValueError, RecursionError):
        try:
            values = ast.literal_eval(content.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
            raise PrepareError(f"{_where(path, line_number)}: neither JSON nor a literal") from error
    if not isinstance(values, dict):
        raise PrepareError(f"{_where(path, line_number)}: no record with named fields")
    return values


def text(values: Mapping, field: str, where: str) -> str:
    """A field that holds a text, or a number for one; empty where it holds nothing."""
    value = values.get(field)
    if value is None or value != value:  # JSON's NaN
        return ""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise PrepareError(f"{where}: {field} holds {shown(value)}, which is no text")
    return str(value)


def labels(values: Mapping, field: str, where: str) -> list[str]:
    """A field that holds a list of texts; empty where it holds nothing."""
    value = values.get(field) or []
    if not isinstance(value, list) or not all(isinstance(label, str) for label in value):
        raise PrepareError(f"{where}: {field} holds {shown(value)} and must be a list of names")
    return value


def number(values: Mapping, field: str, where: str) -> float:
    """A field that holds a number, or a text of one; NaN where it holds nothing."""
    value = values.get(field)
    try:
        read = math.nan if value is None or value == "" else float(value)
    except (TypeError, ValueError, OverflowError):
        read = None
    if read is None or isinstance(value, bool):
        raise PrepareError(f"{where}: {field} holds {shown(value)}, which is no number")
    return read


def date(values: Mapping, field: str, where: str) -> float:
    """A field that holds a date as ``2018-07-07 22:09:11`` or ``2018-07-07``, in seconds since 1970 (UTC where it
    names no zone); NaN where it holds nothing."""
    content = text(values, field, where)
    if not content:
        return math.nan
    try:
        moment = datetime.fromisoformat(content)
    except ValueError as error:
        raise PrepareError(f"{where}: {field} holds {shown(content)}, which is no date as 2018-07-07") from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=timezone.utc)).timestamp()


def lines(path: Path, progress: bool) -> Iterator[tuple[int, bytes]]:
    """Numbered lines of a file, packed or not; the bar counts bytes of the file as it is on disk."""
    name, size = Path(path).name, Path(path).stat().st_size
    with open(path, "rb") as raw, unpacked(raw, name) as content:
        with tqdm(total=size, desc=name, unit="B", unit_scale=True, disable=not progress) as bar:
            for line_number, line in enumerate(content, 1):
                if line_number % 4096 == 0:
                    bar.update(raw.tell() - bar.n)
                if line.strip():
                    yield line_number, line
            bar.update(size - bar.n)
