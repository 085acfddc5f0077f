"""
recbole_contrec.data.table_files
################################
The files of tables, CSV, TSV or Parquet, packed or not: their bytes, the names of their columns, and where a row stands
in them.
"""

import csv
import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from recbole_contrec.data.archives import unpacked
from recbole_contrec.data.download import PrepareError
from recbole_contrec.data.writing import listed

_LONGEST_HEADER = 1 << 16


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """The bytes of a text file, packed or not.

    Raises:
        PrepareError: at a NUL character.
    """
    with open(path, "rb") as raw, unpacked(raw, path.name) as file:
        yield io.BufferedReader(_WithoutNul(file, path.name), 1 << 20)


class _WithoutNul(io.RawIOBase):
    """The bytes of a file. pandas leaves out whatever follows a NUL character in a field."""

    def __init__(self, file: BinaryIO, name: str):
        super().__init__()
        self._file, self._name, self._lines = file, name, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(len(buffer))
        if (place := data.find(b"\0")) >= 0:
            line = self._lines + data[:place].count(b"\n") + 1
            raise PrepareError(
                f"{self._name}, line {line} holds a NUL character: the file is damaged, no table, or not written "
                "in UTF-8"
            )
        self._lines += data.count(b"\n")
        buffer[: len(data)] = data
        return len(data)


def names_of(path: Path) -> list[str]:
    """The columns of a file.

    Raises:
        PrepareError: it is empty, its first line is blank, or pyarrow is missing.
    """
    return _parquet_columns(path) if is_parquet(path) else csv_header(path)[1]


def csv_header(path: Path) -> tuple[str, list[str]]:
    """The separator, which is the most frequent in the first line, and the names of the columns.

    Raises:
        PrepareError: the file is empty, or its first line is blank.
    """
    with opened(path) as file:
        line = io.TextIOWrapper(file, encoding="utf-8-sig", newline="").readline(_LONGEST_HEADER)
    if not line.strip():
        raise PrepareError(
            f"{path.name} is empty: its first line must name the columns"
            if not line
            else f"{path.name}: its first line must name the columns, and it is blank"
        )
    separator = max([",", "\t", ";", "|"], key=line.count)
    return separator, next(csv.reader([line], delimiter=separator), [])


def is_parquet(path: Path) -> bool:
    """Whether a file is one by its name."""
    return path.suffix.lower() in (".parquet", ".pq")


def _parquet_columns(path: Path) -> list[str]:
    try:
        import pyarrow.parquet
    except ImportError as error:
        raise PrepareError(f"reading {path.name} needs pyarrow: pip install 'recbole_contrec[parquet]'") from error
    return list(pyarrow.parquet.read_schema(path).names)


def where_in(path: Path, rows: Sequence[int] | np.ndarray) -> str:
    """Where rows (from 0) stand: lines of a CSV file, which may be fewer or more than rows; rows of a Parquet file,
    from 1."""
    rows = [int(row) for row in rows]
    if is_parquet(path):
        return listed([row + 1 for row in rows], "row")
    separator, _ = csv_header(path)
    wanted, lines, number, before = set(rows[:3]), [], -1, 0
    with opened(path) as file:
        reader = csv.reader(io.TextIOWrapper(file, encoding="utf-8-sig", newline=""), delimiter=separator)
        with suppress(csv.Error):  # a field beyond the limit of that module
            for record in reader:
                if record and number in wanted:
                    lines.append(before + 1)
                number, before = number + bool(record), reader.line_num
                if len(lines) == len(wanted):
                    break
    if len(lines) < len(wanted):
        return listed([row + 1 for row in rows], "row")
    return listed([*lines, *rows[3:]])
