"""
recbole_contrec.data.values
###########################
What stands in the columns of an atomic file: rows without a user, an item or a time are left out and said, numbers that
are none are refused. RecBole fills such times with their mean.
"""

import unicodedata
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from recbole_contrec.data.atomic import MISSING, AtomicFile
from recbole_contrec.errors import UserError, shown

PADDING = "[PAD]"
_JOINERS = "\u200c\u200d"
LARGEST = float(np.finfo(np.float32).max)  # RecBole computes in single precision


def complete_rows(
    file: AtomicFile, table: pd.DataFrame, ids: Iterable[str], times: Iterable[str]
) -> tuple[pd.DataFrame, np.ndarray, list[str]]:
    """Rows whose ids and times exist.

    Args:
        file: where the table comes from.
        table: columns of it, as :meth:`~recbole_contrec.data.atomic.AtomicFile.table` gives them.
        ids, times: columns that every row must have a value in; a time must be finite.

    Returns:
        tuple: the table, the number of each of its rows in the file [rows], and what is to be said.

    Raises:
        UserError: no row is left, an id is that of RecBole's padding, or two differ only in blanks.
    """
    lacking = {name: _missing_ids(file, table[name], name) for name in ids}
    lacking.update({name: not_finite(table[name]) for name in times})
    rows = np.arange(len(table))
    said = [note for name in ids for note in _numbers_twice(file, table[name], name)]
    said += [note for name in times for note in _mixed_units(file, table[name], name)]
    if not any(mask.any() for mask in lacking.values()):
        return table, rows, said
    dropped = np.logical_or.reduce(list(lacking.values()))
    reasons = "; ".join(
        f"no {name} in {file.where(np.flatnonzero(mask))}{_example(table[name], mask)}"
        for name, mask in lacking.items()
        if mask.any()
    )
    if dropped.all():
        raise UserError(f"{file.path.name} has no row with {' and '.join(lacking)}: {reasons}")
    note = f"{file.path.name}: {dropped.sum():,} of {len(table):,} rows are left out: {reasons}"
    return table[~dropped].reset_index(drop=True), rows[~dropped], [note, *said]


def _missing_ids(file: AtomicFile, column: pd.Series, name: str) -> np.ndarray:
    distinct = column.unique()
    stripped: dict[str, str] = {}
    missing = []
    for value in distinct:
        plain = " ".join(value.split())
        if not plain.isprintable() or not plain.isascii():
            plain = as_seen(plain)
        if plain in MISSING:
            missing.append(value)
        elif plain == PADDING:
            raise UserError(
                f"{file.path.name}, {file.where(np.flatnonzero(column == value))}: {name} is {value}, "
                "RecBole's name for padding: rename it"
            )
        elif stripped.setdefault(plain, value) != value:
            twins = [np.flatnonzero(column == twin)[0] for twin in (stripped[plain], value)]
            raise UserError(
                f"{file.path.name}, {file.where(twins)}: {name} is {shown(stripped[plain])} and {shown(value)}, "
                "which differ only in blanks, invisible characters or how accents are encoded: write one of them"
            )
    return column.isin(missing).to_numpy() if missing else np.zeros(len(column), dtype=bool)


def as_seen(text: str) -> str:
    """A text without what nobody sees, each letter in one form; joiners are left, for scripts and emoji need them."""
    plain = "".join(
        sign
        for sign in unicodedata.normalize("NFC", text)
        if sign in _JOINERS or unicodedata.category(sign) not in ("Cc", "Cf")
    )
    return " ".join(plain.split())


def _numbers_twice(file: AtomicFile, column: pd.Series, name: str) -> list[str]:
    """Ids such as 7 and 7.0 in one column: pandas writes the latter where a column had gaps."""
    distinct = {*column.unique()}
    twins = [value for value in distinct if value.endswith(".0") and value[:-2] in distinct and value[:-2].isdecimal()]
    if not twins:
        return []
    first = min(twins, key=lambda value: (len(value), value))
    rows = [np.flatnonzero(column == value)[0] for value in (first[:-2], first)]
    return [
        f"{file.path.name}: {name} {shown(first[:-2])} and {shown(first)} ({file.where(rows)}), and {len(twins):,} "
        "such pairs in all, are read as different ids: write them alike where they are the same"
    ]


def _mixed_units(file: AtomicFile, column: pd.Series, name: str) -> list[str]:
    """Times of which some look like seconds since 1970 and some like milliseconds or less."""
    times = column.to_numpy(np.float64)
    late = np.abs(times) >= 1e11
    seconds = (times >= 1e8) & (times < 1e10)
    if not late.any() or not seconds.any():
        return []
    rows = [int(np.argmax(seconds)), int(np.argmax(late))]
    return [
        f"{file.path.name}: {name} looks like seconds in {seconds.sum():,} rows and like milliseconds or smaller units "
        f"in {late.sum():,} ({file.where(rows)} for instance); all are read as the same unit"
    ]


def not_finite(column: pd.Series) -> np.ndarray:
    """Where a column holds no value, or one without end in single precision."""
    return ~(np.abs(column.to_numpy(np.float64)) <= LARGEST)


def _example(column: pd.Series, mask: np.ndarray) -> str:
    """`` ('NA')``: what stands there, where it is not simply empty."""
    value = column[np.argmax(mask)]
    return (
        f" ({shown(value)})"
        if isinstance(value, str) and value or isinstance(value, float) and not np.isnan(value)
        else ""
    )


def check_numbers(
    file: AtomicFile, table: pd.DataFrame, rows: np.ndarray, names: Sequence[str], events: bool
) -> list[str]:
    """Numbers of the remaining ``float`` columns. RecBole fills missing ones with the mean of the others.

    Args:
        rows: number of each row of the table in the file.
        events: the rows are interactions, of which none may get a number that nobody has given.

    Returns:
        list: what is to be said about features.

    Raises:
        UserError: an infinite number, or an interaction without one.
    """
    notes = []
    for name in names:
        bad = not_finite(table[name])
        if not bad.any():
            continue
        empty = table[name].isna().to_numpy()
        wrong = bad if events else bad & ~empty
        where = file.where(rows[wrong if wrong.any() else empty])
        if wrong.any():
            what = "missing" if empty[np.argmax(wrong)] else "not finite in single precision"
            raise UserError(
                f"{file.path.name}: {name} is {what} in {where}: write a number there, take these rows out, or "
                f"leave {name} out of load_col"
            )
        if empty.all():
            raise UserError(f"{file.path.name}: {name} has no value at all: leave it out of load_col")
        notes.append(f"{file.path.name}: {name} is missing in {where}; RecBole puts the mean of the others there")
    return notes


def first_of_each(
    file: AtomicFile, table: pd.DataFrame, rows: np.ndarray, key: str
) -> tuple[pd.DataFrame, np.ndarray, list[str]]:
    """One row an id, as RecBole does it: the first; and what is to be said about others."""
    again = table[key].duplicated().to_numpy()
    if not again.any():
        return table, rows, []
    note = (
        f"{file.path.name}: {key} {shown(table[key][np.argmax(again)])} and others stand"
        if again.sum() > 1
        else f"{file.path.name}: {key} {shown(table[key][np.argmax(again)])} stands"
    )
    note += f" there more than once: the first row counts, not {file.where(rows[again])}"
    return table[~again].reset_index(drop=True), rows[~again], [note]


def sequences(file: AtomicFile, column: pd.Series, rows: np.ndarray, kind: str, separator: str) -> list[np.ndarray]:
    """Texts of a ``token_seq`` or ``float_seq`` column as arrays.

    Raises:
        UserError: a part of a ``float_seq`` that is no finite number.
    """
    parts = [[part for part in text.split(separator) if part] for text in column]
    if kind == "token_seq":
        return [np.array(each) for each in parts]
    arrays = []
    for row, each in zip(rows, parts):
        try:
            array = np.array([float(part) for part in each])
        except ValueError:
            array = np.array([np.nan])
        if not (np.abs(array) <= LARGEST).all():
            raise UserError(
                f"{file.path.name}, {file.where([row])}: column {column.name} is of type float_seq and holds "
                f"{shown(separator.join(each))}, which are not all finite numbers"
            )
        arrays.append(array)
    return arrays


class Ties(NamedTuple):
    """Pairs of neighbouring events of a user, in the order in which RecBole reads them."""

    own: int  # of equal times
    made: int  # of times that are equal in single precision only
    against: int  # of the latter, where the order of the file, which decides then, is not that of the times
    users: int  # whose events these are


def single_precision_ties(users: np.ndarray, times: np.ndarray) -> Ties:
    """What becomes of the order of events when times are read in single precision.

    Args:
        users, times: of every event, in order of the file [n].
    """
    coarse = times.astype(np.float32)
    order = np.lexsort((coarse, users))
    users, times, coarse = users[order], times[order], coarse[order]
    tied = (users[1:] == users[:-1]) & (coarse[1:] == coarse[:-1])
    against = tied & (times[1:] < times[:-1])
    own = tied & (times[1:] == times[:-1])
    return Ties(int(own.sum()), int(tied.sum() - own.sum()), int(against.sum()), len(np.unique(users[1:][against])))
