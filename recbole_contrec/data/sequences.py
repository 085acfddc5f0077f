r"""
recbole_contrec.data.sequences
##############################
Histories as S3-Rec, SASRec and many after them publish them, a user and then items in order of time on every line ->
RecBole's atomic files.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recbole_contrec.data.download import PrepareError
from recbole_contrec.data.table_files import opened
from recbole_contrec.data.tables import check_item_texts, ids, item_texts
from recbole_contrec.data.writing import ITEM, TIME, USER, Tables, left_out, listed, reading
from recbole_contrec.errors import shown

NO_MOMENTS = "times are places in the history of the user (1, 2, 3, ...): times of two users cannot be compared"


def sequences(paths: Sequence[Path], columns: Mapping[str, Any], progress: bool = True) -> Tables:
    """A text file of histories; ``paths[1]``, where given, is the table of the items.

    Every line has a user and then items in order of time, separated by blanks or tabs, as ``LastFM.txt`` of S3-Rec.
    Further lines of a user continue the history, so the files of SASRec, one pair on a line, are read as well.

    Args:
        paths (sequence): the histories and, optionally, the items.
        columns (dict): for the table of the items, ``item_id`` -> column and ``text`` -> list of columns.

    Raises:
        PrepareError: separators of a table, within ids as well, a NUL character, or an id that RecBole keeps for
            padding.
    """
    source = Path(paths[0])
    users: list[str] = []
    items: list[str] = []
    lines: list[int] = []  # of every pair
    alone = []  # lines with a user and no item
    with reading(source):
        for number, (user, *history) in _lines(source):
            if not history:
                alone.append(number)
            users += [user] * len(history)
            items += history
            lines += [number] * len(history)
    of_row = np.array(lines, dtype=np.int64)

    def where(rows: Sequence[int] | np.ndarray) -> str:
        return listed(list(dict.fromkeys(of_row[rows].tolist())))

    inter = pd.DataFrame(
        {
            USER: ids(pd.Series(users, dtype=object), source, where),
            ITEM: ids(pd.Series(items, dtype=object), source, where),
        }
    )
    complete = inter.notna().all(axis=1).to_numpy()
    notes = [NO_MOMENTS]
    if alone:
        notes.append(f"lines with a user and no item, left out: {len(alone):,} ({listed(alone)})")
    if not complete.all():
        lacking = np.flatnonzero(~complete)
        notes.append(left_out(len(lacking), f"{source.name}, {where(lacking)}"))
    inter = inter[complete].reset_index(drop=True)
    inter[TIME] = inter.groupby(USER, observed=True, sort=False).cumcount() + 1.0
    item = item_texts(Path(paths[1]), columns["item_id"], columns["text"]) if len(paths) > 1 else None
    return Tables(inter, item, notes=tuple(notes))


def check_sequences(paths: Sequence[Path | None], columns: Mapping[str, Any]) -> None:
    """Stop at once where the first line is no history, or the table of the items lacks a column; None for a file that
    is not on this machine yet."""
    source, *of_items = paths
    if source is not None:
        with reading(source):
            next(_lines(source), None)
    for path in filter(None, of_items):
        check_item_texts(path, columns["item_id"], columns["text"])


def _lines(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The fields of every line that is not empty, with its number."""
    with opened(path) as file:
        for number, line in enumerate(io.TextIOWrapper(file, encoding="utf-8-sig"), 1):
            fields = line.split()
            if any(separator in line for separator in ",;|"):
                raise PrepareError(
                    f"{path.name}, line {number} holds {shown(line.strip()[:40])}: with --sequences a line has a user "
                    "and items with blanks between them, and no id holds a comma, semicolon or bar, which are taken "
                    "for those of a table; rename such ids, or pass a table with named columns, without --sequences"
                )
            if fields:
                yield number, fields
