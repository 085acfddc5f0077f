r"""
recbole_contrec.data.tables
###########################
A table of one's own, CSV, TSV or Parquet with named columns -> RecBole's atomic files.
"""

import re
from pathlib import Path
from typing import Sequence

import numpy as np
import pandas as pd
from pandas.api.types import union_categoricals

from recbole_contrec.data.atomic import MISSING
from recbole_contrec.data.convert import (
    ITEM,
    RATING,
    ROWS_AT_ONCE,
    TIME,
    USER,
    Tables,
    clean_text,
    reading,
    require_column,
)
from recbole_contrec.data.download import PrepareError


def table(paths: Sequence[Path], columns: dict[str, object], progress: bool = True) -> Tables:
    """CSV, TSV or Parquet with named columns; ``paths[1]``, where given, is the table of the items.

    Args:
        paths (sequence): the interactions and, optionally, the items.
        columns (dict): ``user``, ``item``, ``time`` -> column; optional ``rating``, ``item_id`` -> column and
            ``text`` -> list of columns (of the items where given, else of the interactions).
    """
    options = {option: columns[option] for option in ("user", "item", "time", "rating") if columns.get(option)}
    texts = list(columns.get("text") or [])
    rows = _read_table(paths[0], options, texts if len(paths) == 1 else [])
    inter = pd.DataFrame({USER: _ids(rows[options["user"]]), ITEM: _ids(rows[options["item"]])})
    if "rating" in options:
        inter[RATING] = _numbers(rows[options["rating"]], paths[0], options["rating"])
    inter[TIME] = _seconds(rows[options["time"]], paths[0], options["time"])
    complete = inter[[USER, ITEM]].notna().all(axis=1) & np.isfinite(inter[TIME])
    skipped = int((~complete).sum())
    notes = (f"rows left out for want of a user, an item or a time: {skipped:,}",) if skipped else ()
    if not texts:
        return Tables(inter[complete], notes=notes)

    key = columns.get("item_id") or options["item"]
    if len(paths) > 1:
        rows = _read_table(paths[1], {"item_id": key}, texts)
    item = pd.DataFrame({ITEM: _ids(rows[key])})
    for text in texts:
        item[re.sub(r"\W+", "_", text) + ":token_seq"] = rows[text].astype(object)
    return Tables(inter[complete], item[item[ITEM].notna()], notes=notes)


def _read_table(path: Path, options: dict[str, str], texts: Sequence[str]) -> pd.DataFrame:
    """The wanted columns of one file; ``options`` names the command's option of each, for the error text."""
    path = Path(path)
    wanted = list(dict.fromkeys([*options.values(), *texts]))
    hints = {**{text: "--text" for text in texts}, **{column: f"--{option}" for option, column in options.items()}}
    parquet = path.suffix.lower() in (".parquet", ".pq")
    with reading(path):
        names = _parquet_columns(path) if parquet else _csv_columns(path)
        for column in wanted:
            require_column(column, names, path.name, f", name it with {hints[column]}=COLUMN")
        if parquet:
            return pd.read_parquet(path, columns=wanted)
        tokens = [column for option, column in options.items() if option in ("user", "item", "item_id")]
        return _read_csv(path, wanted, tokens, texts)


def _read_csv(path: Path, wanted: list[str], tokens: Sequence[str], texts: Sequence[str]) -> pd.DataFrame:
    """All columns are parsed, in pieces, and the wanted ones kept: with `usecols` pandas would accept a row with too
    many fields, where a separator within a text has shifted the columns."""
    types = {**{text: str for text in texts}, **{column: str for column in tokens}}  # ids verbatim: 007
    pieces = []
    style = dict(sep=_separator(path), dtype=types, encoding="utf-8-sig", low_memory=False)
    with pd.read_csv(path, chunksize=ROWS_AT_ONCE, **style) as reader:
        for piece in reader:
            if not isinstance(piece.index, pd.RangeIndex):  # pandas' guess when all rows are too long
                raise PrepareError(f"{path.name}: the rows have more fields than the header")
            pieces.append(piece[wanted].astype({column: "category" for column in tokens}))
    joined = {column: union_categoricals([piece[column] for piece in pieces]) for column in tokens}
    return pd.concat(pieces, ignore_index=True).assign(**joined)


def _separator(path: Path) -> str:
    """The separator that is most frequent in the header."""
    header = pd.io.common.get_handle(path, "r", encoding="utf-8-sig", compression="infer")
    with header:
        line = header.handle.readline()
    return max([",", "\t", ";", "|"], key=line.count)


def _csv_columns(path: Path) -> list[str]:
    return list(pd.read_csv(path, sep=_separator(path), nrows=0, encoding="utf-8-sig").columns)


def _parquet_columns(path: Path) -> list[str]:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise PrepareError(f"reading {path.name} needs pyarrow: pip install pyarrow") from error
    return list(pyarrow.parquet.read_schema(path).names)


def _ids(column: pd.Series) -> pd.Series:
    """Ids as texts; a float column of whole numbers (integers with gaps, in Parquet) as integers."""
    if pd.api.types.is_float_dtype(column) and (column.dropna() == np.floor(column.dropna())).all():
        column = column.astype("Int64")
    if pd.api.types.is_numeric_dtype(column):
        return column
    column = column.astype("category")
    bad = [name for name in column.cat.categories if clean_text(name) in MISSING]
    return column.cat.remove_categories(bad)


def _numbers(column: pd.Series, path: Path, name: str) -> pd.Series:
    numbers = pd.to_numeric(column, errors="coerce")
    wrong = numbers.isna() & column.notna()
    if wrong.any():
        raise PrepareError(f"column {name!r} of {Path(path).name} holds {column[wrong].iloc[0]!r}, which is no number")
    return numbers.astype(np.float64)


def _seconds(column: pd.Series, path: Path, name: str) -> pd.Series:
    """Numbers as they are, dates as seconds since 1970 (UTC where they name no zone)."""
    if pd.api.types.is_numeric_dtype(column):
        return column.astype(np.float64)
    if not pd.api.types.is_datetime64_any_dtype(column):
        numbers = pd.to_numeric(column, errors="coerce")
        if numbers.notna().equals(column.notna()):
            return numbers.astype(np.float64)
        column = column.map(str, na_action="ignore")
    # only ISO 8601: 01/02/2020 is another day in another country
    dates = pd.to_datetime(column, errors="coerce", utc=True, format="ISO8601")
    wrong = dates.isna() & column.notna()
    if wrong.any():
        raise PrepareError(f"column {name!r} of {Path(path).name} holds {str(column[wrong].iloc[0])!r}: write times as "
                           "numbers or as 2024-01-31 12:00:00 (ISO 8601)")
    return (dates - pd.Timestamp(0, tz="UTC")) / pd.Timedelta(seconds=1)
