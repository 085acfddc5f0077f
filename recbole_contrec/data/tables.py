r"""
recbole_contrec.data.tables
###########################
A table of one's own, CSV, TSV or Parquet with named columns -> RecBole's atomic files.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from pandas.api.types import union_categoricals

from recbole_contrec.data.atomic import MISSING
from recbole_contrec.data.download import PrepareError
from recbole_contrec.data.table_files import csv_header, is_parquet, names_of, opened, where_in
from recbole_contrec.data.usual_columns import DEFAULTS, complete
from recbole_contrec.data.values import PADDING, not_finite
from recbole_contrec.data.writing import (
    ITEM,
    RATING,
    ROWS_AT_ONCE,
    TIME,
    USER,
    Tables,
    clean_text,
    left_out,
    reading,
    require_column,
)
from recbole_contrec.errors import shown


def table(paths: Sequence[Path], columns: Mapping[str, Any], progress: bool = True) -> Tables:
    """CSV, TSV or Parquet with named columns; ``paths[1]``, where given, is the table of the items.

    Args:
        paths (sequence): the interactions and, optionally, the items.
        columns (dict): ``user``, ``item``, ``time``, ``item_id`` -> column, of a usual name where it is not given;
            optional ``rating`` -> column and ``text`` -> list of columns (of the items where given, else of the
            interactions).
    """
    columns, taken = _completed(paths, columns)
    wanted = _wanted(columns, len(paths))
    source, options, texts = Path(paths[0]), wanted[0].options, wanted[-1].texts
    rows = _read_table(source, wanted[0])
    inter = pd.DataFrame({USER: _ids(rows[options["user"]], source), ITEM: _ids(rows[options["item"]], source)})
    notes = list(taken)
    if "rating" in options:
        inter[RATING] = _numbers(rows[options["rating"]], source, options["rating"])
        if len(empty := np.flatnonzero(inter[RATING].isna())):
            notes.append(
                f"missing ratings, left empty: {len(empty):,} ({where_in(source, empty)}); a run that loads "
                "ratings refuses such rows"
            )
    inter[TIME] = seconds(rows[options["time"]], source, options["time"])
    complete = (inter[[USER, ITEM]].notna().all(axis=1) & ~not_finite(inter[TIME])).to_numpy()
    if not complete.all():
        lacking = np.flatnonzero(~complete)
        notes.insert(len(taken), left_out(len(lacking), where_in(source, lacking)))
    item = None
    if len(paths) > 1:
        item = item_texts(Path(paths[1]), wanted[1].options["item_id"], texts)
    elif texts:
        item = _item_texts(rows, source, options["item"], texts)
    return Tables(inter[complete], item, notes=tuple(notes))


def item_texts(path: Path, key: str, texts: Sequence[str]) -> pd.DataFrame:
    """The table of the items: ids, and texts as RecBole's columns.

    Args:
        path (path): CSV, TSV or Parquet.
        key (str): its column of item ids.
        texts (sequence): its columns of texts.
    """
    return _item_texts(_read_table(path, _Wanted({"item_id": key}, list(texts))), path, key, texts)


def check_item_texts(path: Path, key: str, texts: Sequence[str]) -> None:
    """Stop at once where :func:`item_texts` would lack a column."""
    with reading(path):
        _check_header(path, _Wanted({"item_id": key}, list(texts)))


def _item_texts(rows: pd.DataFrame, path: Path, key: str, texts: Sequence[str]) -> pd.DataFrame:
    item = pd.DataFrame({ITEM: _ids(rows[key], path)})
    for text in texts:
        item[re.sub(r"\W+", "_", text) + ":token_seq"] = rows[text].astype(object)
    return item[item[ITEM].notna()]


def check_table(paths: Sequence[Path | None], columns: Mapping[str, Any]) -> None:
    """Stop at once where a file lacks a column; None for a file that is not on this machine yet."""
    if None in paths and not all(columns.get(option) for option in DEFAULTS):
        return  # what is left open is told by the header
    for path, wanted in zip(paths, _wanted(_completed(paths, columns)[0], len(paths))):
        if path is not None:
            with reading(path):
                _check_header(path, wanted)


def _completed(paths: Sequence[Path | None], columns: Mapping[str, Any]) -> tuple[dict[str, Any], tuple[str, ...]]:
    """The columns with those that were left open, and notes; see :func:`complete`.

    Raises:
        PrepareError: the table of the items has no column of texts that is known by its name, or users and items are
            the same column.
    """
    headers = [None if path is None else _header(path) for path in paths]
    columns, notes = complete(columns, headers[0], headers[1] if len(paths) > 1 else None)
    if columns["user"] == columns["item"]:
        raise PrepareError(f"--user={columns['user']} and --item={columns['item']}: users and items are two columns")
    if len(paths) > 1 and headers[1] is not None and not columns.get("text"):
        raise PrepareError(
            f"--items={paths[1]} needs --text=COLUMN,COLUMN: which of its columns are texts? "
            f"({', '.join(map(str, headers[1][:20]))})"
        )
    return columns, notes


class _Wanted(NamedTuple):
    """Columns of one file: of ids, times and ratings by the option of the command that names them, and of texts."""

    options: dict[str, str]
    texts: list[str]

    @property
    def columns(self) -> list[str]:
        return list(dict.fromkeys([*self.options.values(), *self.texts]))


def _wanted(columns: Mapping[str, Any], n_files: int) -> list[_Wanted]:
    options = {option: str(columns[option]) for option in ("user", "item", "time", "rating") if columns.get(option)}
    texts = list(columns.get("text") or [])
    if n_files == 1:
        return [_Wanted(options, texts)]
    return [_Wanted(options, []), _Wanted({"item_id": str(columns.get("item_id") or options["item"])}, texts)]


def _read_table(path: Path, wanted: _Wanted) -> pd.DataFrame:
    with reading(path):
        _check_header(path, wanted)
        if is_parquet(path):
            return pd.read_parquet(path, columns=wanted.columns)
        tokens = [column for option, column in wanted.options.items() if option in ("user", "item", "item_id")]
        return _read_csv(path, wanted.columns, tokens, wanted.texts)


def _check_header(path: Path, wanted: _Wanted) -> None:
    """Every wanted column is there, once."""
    names = names_of(path)
    hints = {
        **{text: "--text" for text in wanted.texts},
        **{column: f"--{option}" for option, column in wanted.options.items()},
    }
    histories = len(names) == 1 and len(names[0].split()) > 1 and "user" in wanted.options
    for column in wanted.columns:
        hint = f", name it with {hints[column]}=COLUMN"
        if histories:
            hint += " (a file of histories, a user and then items on every line, is read with --sequences)"
        require_column(column, names, path.name, hint)
        if names.count(column) > 1:
            raise PrepareError(f"{path.name} has {names.count(column)} columns {shown(column)}: rename all but one")


def _header(path: Path) -> list[str]:
    with reading(path):
        return names_of(Path(path))


def _read_csv(path: Path, wanted: list[str], tokens: Sequence[str], texts: Sequence[str]) -> pd.DataFrame:
    """All columns are parsed, in pieces, and the wanted ones kept: with `usecols` pandas would accept a row with too
    many fields, where a separator within a text has shifted the columns."""
    types = {**{text: str for text in texts}, **{column: str for column in tokens}}  # ids verbatim: 007
    pieces = []
    style: dict[str, Any] = dict(sep=csv_header(path)[0], dtype=types, encoding="utf-8-sig", low_memory=False)
    with opened(path) as file, pd.read_csv(file, chunksize=ROWS_AT_ONCE, **style) as reader:
        for piece in reader:
            if not isinstance(piece.index, pd.RangeIndex):  # pandas' guess when all rows are too long
                raise PrepareError(f"{path.name}: the rows have more fields than the header")
            pieces.append(piece[wanted].astype({column: "category" for column in tokens}))
    joined = {column: union_categoricals([piece[column] for piece in pieces]) for column in tokens}
    return pd.concat(pieces, ignore_index=True).assign(**joined)


def _ids(column: pd.Series, path: Path) -> pd.Series:
    return ids(column, path, partial(where_in, path))


def ids(column: pd.Series, path: Path, where: Callable[[Sequence[int] | np.ndarray], str]) -> pd.Series:
    """Ids as texts; a float column of whole numbers (integers with gaps, in Parquet) as integers.

    Args:
        column (Series): of a file.
        path (path): that file, for error texts.
        where (callable): rows, from 0 -> where they stand in the file, in words.

    Raises:
        PrepareError: an id that RecBole keeps for padding.
    """
    if pd.api.types.is_float_dtype(column) and (column.dropna() == np.floor(column.dropna())).all():
        column = column.astype("Int64")
    if pd.api.types.is_numeric_dtype(column):
        return column
    column = column.astype("category")
    plain = {name: clean_text(name) for name in column.cat.categories}
    if padding := [name for name in plain if plain[name] == PADDING]:
        raise PrepareError(
            f"{path.name} holds the id {PADDING} in {where(np.flatnonzero(column == padding[0]))}, "
            "RecBole's name for padding: rename it"
        )
    bad = [name for name in plain if plain[name] in MISSING]
    return column.cat.remove_categories(bad)


def _numbers(column: pd.Series, path: Path, name: str) -> pd.Series:
    numbers = pd.to_numeric(column, errors="coerce")
    wrong = np.flatnonzero(numbers.isna() & column.notna() | np.isinf(numbers))
    if len(wrong):
        raise PrepareError(
            f"column {name!r} of {path.name} holds {shown(column.iloc[wrong[0]])} in {where_in(path, wrong)}, which is "
            "no number"
        )
    return numbers.astype(np.float64)


def seconds(column: pd.Series, path: Path, name: str, where: Callable[..., str] | None = None) -> pd.Series:
    """Numbers as they are, dates as seconds since 1970 (UTC where they name no zone); whichever most of them are.

    Args:
        column (Series): of a file.
        path (path): that file, for error texts.
        name (str): of the column, for error texts.
        where (callable): rows, from 0 -> where they stand in the file, in words; of a file with a header where not
            given.

    Raises:
        PrepareError: a value that is neither a number nor a date.
    """
    where = where or partial(where_in, path)
    if pd.api.types.is_bool_dtype(column):
        raise PrepareError(f"column {name!r} of {path.name} holds True and False: write times as numbers or dates")
    if pd.api.types.is_numeric_dtype(column):
        return column.astype(np.float64)
    if pd.api.types.is_object_dtype(column) or pd.api.types.is_string_dtype(column):
        missing = column.map(lambda value: isinstance(value, str) and value.strip() in MISSING).astype(bool)
        column = column.where(~missing, np.nan)
    given, numbers = column.notna(), None
    if not pd.api.types.is_datetime64_any_dtype(column):
        numbers = pd.to_numeric(column, errors="coerce")
        if numbers.notna().equals(given):
            return numbers.astype(np.float64)
        column = column.map(str, na_action="ignore")
    # only ISO 8601: 01/02/2020 is another day in another country
    dates = pd.to_datetime(column, errors="coerce", utc=True, format="ISO8601")
    mostly_numbers = numbers is not None and numbers.notna().sum() > (dates.notna() & numbers.isna()).sum()
    wrong = np.flatnonzero(given & (numbers if numbers is not None and mostly_numbers else dates).isna())
    if len(wrong):
        others = (
            "the others are numbers"
            if mostly_numbers
            else "write times as numbers or as 2024-01-31 12:00:00 (ISO 8601)"
        )
        raise PrepareError(
            f"column {name!r} of {path.name} holds {shown(column.iloc[wrong[0]])} in {where(wrong)}: {others}"
        )
    return (dates - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(seconds=1)
