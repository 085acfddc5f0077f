"""
recbole_contrec.data.atomic
###########################
RecBole's atomic files (``.inter``, ``.item``, ``.user`` and their like), read as they are meant or refused: the
encoding, the header, and that every row has the fields of the header. RecBole's own reader takes an unclosed quotation
mark for a field that goes on over lines, and the first field of too long rows for an index.
"""

import csv
import re
from collections.abc import Iterable, Sequence
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from recbole_contrec.data.atomic_header import columns_of, separator_of
from recbole_contrec.data.encoding import utf8
from recbole_contrec.errors import UserError, shown
from recbole_contrec.showing import show

# What pandas, and so RecBole, reads as no value.
MISSING = (
    "",
    "#N/A",
    "#N/A N/A",
    "#NA",
    "-1.#IND",
    "-1.#QNAN",
    "-NaN",
    "-nan",
    "1.#IND",
    "1.#QNAN",
    "<NA>",
    "N/A",
    "NA",
    "NULL",
    "NaN",
    "None",
    "n/a",
    "nan",
    "null",
)
_BLOCK = 1 << 24  # bytes whose lines are looked at together
_ROWS = 1 << 19  # rows of a large file that are parsed together
_STAND_IN = b"\x1f"  # for a separator of several characters
_QUOTED = re.compile(r'"(?:[^"]|"")*"')


class _Rows(NamedTuple):
    """Places of rows that are not as they should be."""

    wrong: list[int]  # as many or as few fields as are in `found`
    found: list[int]
    quoted: list[int]


class AtomicFile:
    """The rows of an atomic file, each with as many fields as the header.

    Args:
        path: of the file.
        separator, encoding: settings ``field_separator`` and ``encoding``; a byte order mark at the beginning is read
            as such.
        literal_quotes: a quotation mark that begins a field and is not closed at its end is a character like others,
            as titles have it; otherwise it is an error.

    Attributes:
        path (Path): of the file.
        columns (dict): column -> type.

    Raises:
        UserError: another encoding, NUL bytes, a header that cannot be read, no rows, rows that do not fit the header,
            or quotation marks that are not closed, each with file, line and, where there is one, column.
    """

    def __init__(
        self, path: str | Path, separator: str = "\t", encoding: str | None = None, literal_quotes: bool = False
    ):
        self.path, self._literal, separator = Path(path), literal_quotes, separator_of(separator)
        try:
            data = self.path.read_bytes()
        except OSError as error:
            raise UserError(f"cannot read {self.path}: {error.strerror or error}") from error
        if not data:
            raise UserError(f"{self.path} is empty: its first line must name the columns")
        data = utf8(data, self.path, encoding)
        if b"\r" in data:
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        if not data.endswith(b"\n"):
            data += b"\n"
        start = data.index(b"\n") + 1
        self.columns = columns_of(data[: start - 1].decode(), self.path, separator)
        body, self._separator = _one_byte(data[start:], separator, self.path)
        del data
        body, self._line_of_row = _without_blank_lines(body)
        if not body:
            raise UserError(f"{self.path} has a header and no rows")
        self._body = self._checked(body)

    def line(self, row: int) -> int:
        """Number of the line on which a row (from 0) stands, as editors count."""
        return int(row) + 2 if self._line_of_row is None else int(self._line_of_row[row])

    def where(self, rows: Iterable[int]) -> str:
        """``line 5`` or ``lines 5, 7 and 9`` or ``lines 5, 7, 9 and 120 more``."""
        rows = list(rows)
        named = [str(self.line(row)) for row in rows[:3]]
        if len(rows) == 1:
            return f"line {named[0]}"
        more = f"{len(rows) - 3:,} more" if len(rows) > 3 else named.pop()
        return f"lines {', '.join(named)} and {more}"

    def table(self, names: Iterable[str], as_texts: bool = False) -> pd.DataFrame:
        """The named columns: ``float`` as float64 with NaN for no value, all others (or all, ``as_texts``) as what
        stands there.

        Raises:
            UserError: text in a ``float`` column, with its line.
        """
        order = list(self.columns)
        places = sorted({order.index(name) for name in names})
        floats = [place for place in places if self.columns[order[place]] == "float" and not as_texts]
        try:
            table = self._parsed(places, dict.fromkeys(floats, np.float64))
        except ValueError:
            try:
                table = self._parsed(places, {})
            except ValueError as error:
                raise UserError(f"{self.path.name} cannot be read: {shown(str(error).strip(), 200)}") from error
            for place in floats:
                table[place] = self._numbers(table[place], order[place])
        table.columns = pd.Index([order[place] for place in places])  # in place: the table is large
        return table

    def _parsed(self, places: list[int], types: dict) -> pd.DataFrame:
        """The columns at some places. A large file is parsed in pieces: pandas keeps the place of every field of what
        it parses, which takes more than the file."""
        if len(self._body) <= _BLOCK:
            return self._read_csv(places, types)
        known: dict[str, str] = {}  # equal texts are one object, as in one piece
        rows, start = self._body.count(b"\n"), 0
        columns = {place: np.empty(rows, dtype=types.get(place, object)) for place in places}
        with self._read_csv(places, types, chunksize=_ROWS) as reader:
            for piece in reader:
                for place, column in columns.items():
                    part: Any = piece[place].to_numpy()
                    if place not in types:
                        codes, texts = pd.factorize(part)
                        part = np.array([known.setdefault(text, text) for text in texts], dtype=object)[codes]
                    column[start : start + len(piece)] = part
                start += len(piece)
        return pd.DataFrame({place: column[:start] for place, column in columns.items()}, copy=False)

    def _read_csv(self, places: list[int], types: dict, **options: Any) -> Any:
        return pd.read_csv(
            BytesIO(self._body),
            sep=self._separator,
            header=None,
            names=range(len(self.columns)),
            usecols=places,
            dtype={place: types.get(place, str) for place in places},
            index_col=False,
            keep_default_na=False,
            na_values={place: list(MISSING) for place in types},
            float_precision="round_trip",
            skip_blank_lines=False,
            encoding="utf-8",
            low_memory=False,
            **options,
        )

    def _numbers(self, texts: pd.Series, name: str) -> pd.Series:
        """A column as numbers that pandas' own parser does not take as it stands."""
        read = {text: np.nan if text.strip() in MISSING else _number(text) for text in texts.unique()}
        bad = [text for text, number in read.items() if number is None]
        if bad:
            rows = np.flatnonzero(texts.isin(bad))
            raise UserError(
                f"{self.path.name}, {self.where(rows)}: column {shown(name)} is of type float and holds "
                f"{shown(texts[rows[0]])}, which is no number"
            )
        return texts.map(read).astype(np.float64)

    # rows against the header

    def _checked(self, body: bytes) -> bytes:
        """The rows, once each of them has the fields of the header; in literal mode with stray marks put between
        quotes."""
        wrong, found, changes, row, start = [], [], [], 0, 0
        while start < len(body):
            end = (
                len(body)
                if start + _BLOCK >= len(body)
                else body.rindex(b"\n", start, start + _BLOCK) + 1
                if body.rfind(b"\n", start, start + _BLOCK) >= 0
                else body.index(b"\n", start) + 1
            )
            block = np.frombuffer(body, np.uint8, end - start, start)
            ends = np.flatnonzero(block == 10)
            begins = np.concatenate([[0], ends[:-1] + 1])
            fields = np.add.reduceat((block == ord(self._separator)).view(np.uint8), begins, dtype=np.int64) + 1
            marks = np.flatnonzero(block == 34)
            if len(marks):
                quoted = np.unique(np.searchsorted(ends, marks))
                lines = [body[start + begins[k] : start + ends[k]].decode() for k in quoted]
                fields[quoted], rewritten = self._quoted(lines, quoted + row)
                changes += [(start + begins[quoted[k]], start + ends[quoted[k]], text) for k, text in rewritten]
            misfits = np.flatnonzero(fields != len(self.columns))
            wrong += (misfits + row).tolist()
            found += fields[misfits[:1]].tolist()
            row, start = row + len(ends), end
        if wrong:
            self._refuse_misfits(wrong, found[0])
        return _replaced(body, changes)

    def _refuse_misfits(self, rows: list[int], fields: int) -> None:
        names = ", ".join(map(str, list(self.columns)[:6])) + (", ..." if len(self.columns) > 6 else "")
        others = f" (so {self.where(rows)})" if len(rows) > 1 else ""
        hint = (
            ": is there a separator too many, at the end of the row or in a text?" if fields > len(self.columns) else ""
        )
        raise UserError(
            f"{self.path.name}, line {self.line(rows[0])} has {fields} field{'s' * (fields != 1)}, the header has "
            f"{len(self.columns)} ({shown(names, 120)}){others}{hint}"
        )

    def _quoted(self, lines: list[str], rows: Sequence[int] | np.ndarray) -> tuple[list[int], list[tuple[int, bytes]]]:
        """Fields of lines with quotation marks, and those lines that must be written otherwise to be read literally."""
        try:
            counts = [len(fields) for fields in csv.reader(lines, delimiter=self._separator, strict=True)]
            if len(counts) == len(lines):
                return counts, []
        except csv.Error:
            pass
        counts, rewritten = [], []
        for place, line in enumerate(lines):
            open_field = _open_field(line, self._separator)
            if open_field is None:
                counts.append(len(next(csv.reader([line], delimiter=self._separator))))
                continue
            if not self._literal:
                self._refuse_mark(line, int(rows[place]), open_field)
            fields = line.split(self._separator)
            counts.append(len(fields))
            rewritten.append((place, self._separator.join(map(_in_quotes, fields)).encode()))
        return counts, rewritten

    def _refuse_mark(self, line: str, row: int, field: int) -> None:
        names = list(self.columns)
        cell = _literal_fields(line, self._separator)[field]
        column = f"column {shown(names[field])}" if field < len(names) else f"field {field + 1}"
        raise UserError(
            f"{self.path.name}, line {self.line(row)}, {column}: the quotation mark that begins "
            f"{shown(cell, 60)} is not closed at the end of the field. Put the field between quotation marks and "
            "double those within, or leave them out"
        )


# bytes


def _one_byte(body: bytes, separator: str, file: Path) -> tuple[bytes, str]:
    """The rows with a separator of one byte in them, and that one."""
    encoded = separator.encode()
    if len(encoded) == 1:
        return body, separator
    if _STAND_IN in body:
        raise UserError(
            f"{file.name} holds the control character 0x1f, which cannot be read beside "
            f"field_separator={show(separator)}"
        )
    return body.replace(encoded, _STAND_IN), _STAND_IN.decode()


def _without_blank_lines(body: bytes) -> tuple[bytes, np.ndarray | None]:
    """Rows without empty lines between them, and the line number of each row where there were some."""
    if b"\n\n" not in body and not body.startswith(b"\n"):
        return body, None
    ends = np.flatnonzero(np.frombuffer(body, np.uint8) == 10)
    numbers = 2 + np.flatnonzero(np.diff(ends, prepend=-1) > 1)
    return re.sub(rb"\n{2,}", b"\n", body).removeprefix(b"\n"), numbers


def _replaced(body: bytes, changes: list[tuple[int, int, bytes]]) -> bytes:
    pieces, place = [], 0
    for start, end, text in changes:
        pieces += [body[place:start], text]
        place = end
    return b"".join([*pieces, body[place:]]) if changes else body


# fields


def _open_field(line: str, separator: str) -> int | None:
    """Number of the first field that begins with a quotation mark and does not end with its partner."""
    start, number = 0, 0
    while start <= len(line):
        if line[start : start + 1] == '"':
            found = _QUOTED.match(line, start)
            if not found or line[found.end() : found.end() + 1] not in ("", separator):
                return number
            end = found.end()
        else:
            end = line.find(separator, start)
            end = len(line) if end < 0 else end
        start, number = end + 1, number + 1
    return None


def _literal_fields(line: str, separator: str) -> list[str]:
    """The fields up to the open one as they are written; what follows it is cut at separators."""
    fields, start = [], 0
    while start <= len(line):
        found = _QUOTED.match(line, start)
        closed = found is not None and line[found.end() : found.end() + 1] in ("", separator)
        end = found.end() if found is not None and closed else line.find(separator, start)
        end = len(line) if end < 0 else end
        fields.append(line[start:end])
        start = end + 1
    return fields


def _in_quotes(field: str) -> str:
    whole = _QUOTED.fullmatch(field)
    return field if whole or not field.startswith('"') else '"' + field.replace('"', '""') + '"'


def _number(text: str) -> float | None:
    try:
        return float(text) if text.isascii() and "_" not in text else None
    except ValueError:
        return None
