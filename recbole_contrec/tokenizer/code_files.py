"""Semantic ids of items in a file: read as the field writes them, and written back.

A ``.json`` file is one object, item -> list of codes. A code is a whole number, or a word that ends in one, such as
``"<b_7>"``. These are the files of

- LC-Rec and LETTER (``Beauty.index.json``: ``{"0": ["<a_183>", "<b_70>", "<c_232>", "<d_6>"], ...}``),
  https://github.com/zhengbw0324/LC-Rec (``index/generate_indices.py``), https://github.com/HonghuiBao2000/LETTER;
- RecBole 3 (``item_sids.json``: ``{"0": [17, 300, 601, 769], ...}``, where each level counts on from the one before,
  and ``*.index.json``, where only items that share their codes have one more to tell them apart),
  https://github.com/RUCAIBox/RecBole3.0 (``rqvae/trainer.py``).

A ``.npy`` file is an array of whole numbers [rows, codes]. The items of its rows stand beside it, one a line in
``NAME.tokens.txt``. The same file beside a ``.json`` says which item is number 0, 1, ... of it.

Axes: ``N`` items of the data set with row 0 for the padding, ``K`` codes of an item, ``C`` codes of a codebook.
"""

import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from .collaborative import read_rows, read_tokens

ENDINGS = (".json", ".npy")
MOST_CODES = 64  # of an item
LARGEST = 65_535  # code of a codebook
# <a_12>, a_12, 12: what stands before the number names the level
_WORD = re.compile(r"<(?:([^\W\d]+)[_-])?(\d+)>|(?:([^\W\d]+)[_-])?(\d+)")


class CodesOfFile(NamedTuple):
    """Semantic ids as a file has them, for the items of a data set.

    Attributes:
        codes: [N, K]; -1 for an item that the file does not have.
        largest: the largest code of the file.
        missing: items of the data set that the file does not have.
        unknown: items of the file that the data set does not have.
        shared: items of the data set whose codes another one has, too.
        notes: what was read otherwise than it stands there, a line each.
        doubt: why its items may be others than they seem; empty where nothing says so.
    """

    codes: Tensor
    largest: int
    missing: list[str]
    unknown: list[str]
    shared: list[str]
    notes: list[str]
    doubt: str


def read_codes(path: str | Path, tokens: Sequence[str]) -> CodesOfFile:
    """Read semantic ids keyed by item token.

    Args:
        path: a ``.json`` or ``.npy`` file.
        tokens: [N] item tokens in the order wanted; ``tokens[0]`` is the padding token.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: another kind of file, an item twice, what is no code, lists of unequal lengths, or no item in common
            with ``tokens``; names the item, and its line where the file has lines.
    """
    path = Path(path)
    if path.suffix not in ENDINGS:
        raise ValueError(f"{path}: semantic ids are read from a .json or .npy file")
    if not path.is_file():
        raise FileNotFoundError(f"no file {path}")
    notes: list[str] = []
    rows = _rows_of_json(path, notes) if path.suffix == ".json" else _counted_from_zero(_rows_of_array(path), notes)
    if not rows:
        raise ValueError(f"{path} holds no items")
    row_of = {token: row for row, token in enumerate(tokens) if row}
    known = [item for item in rows if item in row_of]
    if not known:
        raise ValueError(
            f"{path} and the data set have no item in common: the file has e.g. {next(iter(rows))!r}, the data set "
            f"e.g. {tokens[-1]!r}; where the file numbers its items from 0, name them beside it, one a line in "
            f"{_beside(path).name}"
        )
    matrix = np.array(list(rows.values()), dtype=np.int64)  # [rows, K]
    codes = torch.full((len(tokens), matrix.shape[1]), -1)
    codes[[row_of[item] for item in known]] = torch.from_numpy(matrix[[item in row_of for item in rows]])
    times = Counter(tuple(row) for row in codes[1:].tolist())
    shared = [token for token, row in zip(tokens[1:], codes[1:].tolist()) if row[0] >= 0 and times[tuple(row)] > 1]
    missing = [token for token in tokens[1:] if token not in rows]
    unknown = [item for item in rows if item not in row_of]
    return CodesOfFile(codes, int(matrix.max()), missing, unknown, shared, notes, _doubt(path, rows, unknown))


def _doubt(path: Path, rows: dict[str, list[int]], unknown: list[str]) -> str:
    """Ids of a data set may be numbers as well, and then a file of places looks like one of ids."""
    if not unknown or not all(str(place) in rows for place in range(len(rows))):
        return ""
    return (
        f"its items are 0 to {len(rows) - 1}, and the data set has no item {unknown[0]}: if these are places and no "
        f"ids, the codes go to other items; name the items beside it, one a line in {_beside(path).name}"
    )


def write_codes(path: str | Path, tokens: Sequence[str], codes: Tensor, n_codes: int) -> int:
    """Write semantic ids as :func:`read_codes` reads them, a line an item; gives how many there are.

    Args:
        path: the ``.json`` file.
        tokens: [N] item tokens.
        codes: [N, K]; an item with the number C, which is no code, is left out.
        n_codes: C.

    Raises:
        OSError: it cannot be written.
    """
    rows = [(token, row) for token, row in zip(tokens, codes.tolist()) if row[0] < n_codes]
    lines = [f"{json.dumps(token, ensure_ascii=False)}: {json.dumps(row)}" for token, row in rows]
    Path(path).write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8", newline="\n")
    return len(rows)


# JSON


def _rows_of_json(path: Path, notes: list[str]) -> dict[str, list[int]]:
    """The codes of every item of the file, all of one length."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: save it as UTF-8 ({error.reason})") from None
    if not text.strip():
        raise ValueError(f"{path} is empty")
    pairs = _pairs(path, text)
    if twice := [item for item, times in Counter(item for item, _ in pairs).items() if times > 1]:
        raise ValueError(f"{path}{_line(text, twice[0], last=True)}: item {twice[0]!r} stands there twice")
    rows = {item: _codes_of(path, text, item, value) for item, value in pairs}
    _check_levels(path, text, pairs)
    # Numbered before a code is added to some: the added ones begin at 0, and would hide that levels count on.
    rows = _of_one_length(path, text, _counted_from_zero(rows, notes), notes)
    if not _beside(path).is_file():
        return rows
    names = read_tokens(_beside(path))
    numbers = {str(number): name for number, name in enumerate(names)}
    named = {}
    for item, row in rows.items():
        if item not in numbers:
            raise ValueError(
                f"{path}{_line(text, item)}: {_beside(path).name} names items 0 to {len(names) - 1}, and {item!r} is "
                "none of these numbers"
            )
        named[numbers[item]] = row
    return named


def _pairs(path: Path, text: str) -> list[tuple[str, Any]]:
    """Items and their values, as they stand in the one object of the file."""
    try:
        read = json.loads(text, object_pairs_hook=_Pairs)
    except json.JSONDecodeError as error:
        raise ValueError(f"{path}, line {error.lineno}: no JSON ({error.msg})") from None
    except RecursionError:
        raise ValueError(f"{path} is nested too deeply to be a file of semantic ids") from None
    except ValueError as error:  # a number of thousands of digits
        raise ValueError(f"{path}: no JSON ({error})") from None
    if not isinstance(read, _Pairs):
        raise ValueError(f'{path} must be an object, item -> list of codes, such as {{"i1": [3, 0, 7], ...}}')
    return read


class _Pairs(list):
    """A JSON object in which a key may stand twice."""


def _codes_of(path: Path, text: str, item: str, value: Any) -> list[int]:
    where = f"{path}{_line(text, item)}: item {item!r}"
    if not isinstance(value, list) or isinstance(value, _Pairs) or not value:
        raise ValueError(f"{where} must have a list of codes, not {_shown(value)}")
    if len(value) > MOST_CODES:
        raise ValueError(f"{where} has {len(value)} codes: at most {MOST_CODES} are read")
    return [_code(where, code) for code in value]


def _code(where: str, value: Any) -> int:
    """A whole number, or that at the end of a word such as ``<a_12>``."""
    found = _word(value)
    number = (int(found.digits) if len(found.digits) < 20 else LARGEST + 1) if found else value
    if isinstance(number, bool) or not isinstance(number, int):
        raise ValueError(f"{where}: {_shown(value)} is no code; codes are whole numbers, or words such as <a_12>")
    if not 0 <= number <= LARGEST:
        raise ValueError(f"{where}: code {_shown(value)} is out of range, which is 0 to {LARGEST}")
    return number


class _Word(NamedTuple):
    """A code as a word: ``a`` and ``12`` of ``<a_12>``."""

    level: str
    digits: str


def _word(value: Any) -> _Word | None:
    found = _WORD.fullmatch(value.strip()) if isinstance(value, str) else None
    return _Word(found[1] or found[3] or "", found[2] or found[4]) if found else None


def _check_levels(path: Path, text: str, pairs: list[tuple[str, Any]]) -> None:
    """Words say which level they are of, so ``["<b_1>", "<a_0>"]`` among ``["<a_0>", "<b_1>"]`` is no order of codes.

    Raises:
        ValueError: names the first item whose words are of other levels than those of most items.
    """
    levels: dict[int, Counter[str]] = {}
    for _, value in pairs:
        for place, code in enumerate(value):
            if (word := _word(code)) and word.level:
                levels.setdefault(place, Counter())[word.level] += 1
    usual = {place: found.most_common(1)[0][0] for place, found in levels.items()}
    for item, value in pairs:
        for place, code in enumerate(value):
            word = _word(code)
            if word and word.level and word.level != usual[place]:
                raise ValueError(
                    f"{path}{_line(text, item)}: item {item!r} has {_shown(code)} at place {place + 1}, where "
                    f"most have words of {usual[place]!r}"
                )


def _of_one_length(path: Path, text: str, rows: dict[str, list[int]], notes: list[str]) -> dict[str, list[int]]:
    """Lists of one length. Some files give a further code only to items that would share the others: then those
    without it get the first one that is free."""
    lengths = Counter(map(len, rows.values()))
    if len(lengths) == 1 or not rows:
        return rows
    usual, longest = lengths.most_common(1)[0][0], max(lengths)
    if set(lengths) != {longest - 1, longest} or longest == 1:
        item = next(item for item, row in rows.items() if len(row) != usual)
        raise ValueError(
            f"{path}{_line(text, item)}: item {item!r} has {len(rows[item])} codes and {lengths[usual]} others have "
            f"{usual}: all must have as many"
        )
    taken = {tuple(row) for row in rows.values() if len(row) == longest}
    whole = {}
    for item, row in rows.items():
        if len(row) < longest:
            last = next(code for code in range(LARGEST + 1) if (*row, code) not in taken)
            row = [*row, last]
            taken.add(tuple(row))
        whole[item] = row
    notes.append(
        f"{lengths[longest]} items have {longest} codes and {lengths[longest - 1]} have {longest - 1}: the last code "
        "tells apart what shares the others, and those without it get the first that is free"
    )
    return whole


def _line(text: str, item: str, last: bool = False) -> str:
    """Where an item stands in a file of several lines."""
    if "\n" not in text.strip():
        return ""
    written = (json.dumps(item), json.dumps(item, ensure_ascii=False))
    places = [match.start() for key in written for match in re.finditer(rf"{re.escape(key)}\s*:", text)]
    if not places:
        return ""
    return f", line {text.count(chr(10), 0, max(places) if last else min(places)) + 1}"


def _shown(value: Any) -> str:
    shown = json.dumps(dict(value) if isinstance(value, _Pairs) else value)
    return shown if len(shown) <= 40 else f"{shown[:37]}..."


# arrays


def _rows_of_array(path: Path) -> dict[str, list[int]]:
    array = read_rows(path, kinds="iu")  # [rows, K]
    names = read_tokens(_beside(path), len(array))
    if array.shape[1] > MOST_CODES:
        raise ValueError(f"{path} has {array.shape[1]} codes an item: at most {MOST_CODES} are read")
    if len(bad := np.flatnonzero(((array < 0) | (array > LARGEST)).any(1))):
        raise ValueError(f"{path}, row {bad[0]}, item {names[bad[0]]!r}: a code is out of range, 0 to {LARGEST}")
    return dict(zip(names, array.tolist()))


def _beside(path: Path) -> Path:
    return path.with_suffix(".tokens.txt")


# both


def _counted_from_zero(rows: dict[str, list[int]], notes: list[str]) -> dict[str, list[int]]:
    """Codes of every item, each level from 0 on where it counts on from the one before. Not all need have a code on
    the last level."""
    longest = max(map(len, rows.values()), default=0)
    levels = [[row[level] for row in rows.values() if level < len(row)] for level in range(longest)]
    least, most = [*map(min, levels)], [*map(max, levels)]  # [K]
    if longest < 2 or any(low <= high for low, high in zip(least[1:], most)):
        return rows
    notes.append(f"levels count on from each other: their codes are numbered from {least}")
    return {item: [code - low for code, low in zip(row, least)] for item, row in rows.items()}
