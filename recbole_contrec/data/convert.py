r"""
recbole_contrec.data.convert
############################
The data sets as their authors publish them -> tables of RecBole's atomic files.

Every function here returns :class:`Tables`; :func:`write` is the only one that makes files. Columns carry their
RecBole type from the start (``item_id:token``).
"""

import ast
import csv
import html
import json
import math
import re
import zipfile
import zlib
from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import pandas as pd
from tqdm import tqdm

from recbole_contrec.data.archives import DAMAGED, unpacked
from recbole_contrec.data.download import PrepareError
from recbole_contrec.data.values import as_seen
from recbole_contrec.errors import did_you_mean, shown

USER, ITEM = "user_id:token", "item_id:token"
RATING, TIME = "rating:float", "timestamp:float"
ROWS_AT_ONCE = 500_000


class Tables(NamedTuple):
    """The contents of ``.inter``, ``.item`` and ``.user``; ``notes`` are for the user's eyes."""

    inter: pd.DataFrame
    item: pd.DataFrame | None = None
    user: pd.DataFrame | None = None
    notes: tuple[str, ...] = ()


class Written(NamedTuple):
    users: int
    items: int
    interactions: int
    suffixes: tuple[str, ...]


# writing


def clean_text(text: Any) -> str:
    """One line, words separated by single blanks, no double quote: RecBole reads with quoting on."""
    text = str(text).replace('"', "''").replace("\0", "")
    return " ".join(text.encode("utf-8", "ignore").decode("utf-8").split())


def write(tables: Tables, folder: str | Path, name: str, progress: bool = True) -> Written:
    """Write ``folder/name.inter``, ``.item`` and ``.user``; rows of a user stand together, in order of time."""
    inter = tables.inter.reset_index(drop=True)
    if inter.empty:
        raise PrepareError(f"{name} has no interaction with a user, an item and a time")
    user_codes, users = _tokens(inter[USER], "user")
    item_codes, items = _tokens(inter[ITEM], "item")
    inter[USER], inter[ITEM] = users[user_codes], items[item_codes]
    # RecBole keeps times in single precision, steps of 128 seconds for present-day times, and its sorting keeps
    # the order of equal times. So the order of this file is the order of the history, and among rows of one time
    # the order of the source decides (lexsort is stable).
    order = np.lexsort((inter[TIME].to_numpy(), user_codes))
    frames = {"inter": inter.iloc[order]}
    if tables.item is not None:
        frames["item"] = _with_rows_for(items, ITEM, tables.item)
    if tables.user is not None:
        frames["user"] = _with_rows_for(users, USER, tables.user)
    for suffix, frame in frames.items():
        _write_one(frame, Path(folder, f"{name}.{suffix}"), progress)
    return Written(len(users), len(items), len(inter), tuple(frames))


def _tokens(column: pd.Series, kind: str) -> tuple[np.ndarray, np.ndarray]:
    """The number of the id in each row, and the ids as they will stand in the file, in order of appearance."""
    codes, distinct = pd.factorize(column)
    tokens = np.array([clean_text(token) for token in distinct], dtype=object)
    seen = pd.Series([token if token.isascii() and token.isprintable() else as_seen(token) for token in tokens])
    if (again := seen.duplicated()).any():
        twice = tokens[again][0]
        raise PrepareError(
            f"two {kind} ids differ only in blanks, quotes, invisible characters or how accents are encoded: "
            f"{shown(twice)}; rename one"
        )
    return codes, tokens


def _with_rows_for(tokens: np.ndarray, key: str, features: pd.DataFrame) -> pd.DataFrame:
    """One row for each id that occurs: items nobody chose would enlarge the catalogue that a model ranks."""
    features = features.assign(**{key: [clean_text(token) for token in features[key]]})
    features = features.drop_duplicates(key).set_index(key)
    present = features.index[features.index.isin(tokens)]
    absent = pd.Index(tokens)[~pd.Index(tokens).isin(present)]
    features = features.reindex(present.append(absent))
    texts = {column: ["" if pd.isna(text) else clean_text(text) for text in features[column]] for column in features}
    return pd.DataFrame(texts, index=features.index).rename_axis(key).reset_index()


def _write_one(frame: pd.DataFrame, path: Path, progress: bool) -> None:
    frame = frame.assign(**{c: _compact(frame[c]) for c in map(str, frame) if c.endswith(":float")})
    # QUOTE_NONE raises where a separator or a quote is left in a value: better than a shifted column
    style = dict(sep="\t", index=False, quoting=csv.QUOTE_NONE, lineterminator="\n", encoding="utf-8")
    frame.iloc[:0].to_csv(path, **style)
    with tqdm(total=len(frame), desc=path.name, unit=" rows", disable=not progress) as bar:
        for start in range(0, len(frame), ROWS_AT_ONCE):
            rows = frame.iloc[start : start + ROWS_AT_ONCE]
            rows.to_csv(path, mode="a", header=False, **style)
            bar.update(len(rows))


def _compact(column: pd.Series) -> pd.Series:
    """Whole numbers without a decimal point."""
    whole = np.isfinite(column).all() and (column == np.floor(column)).all()
    return column.astype(np.int64) if whole else column


# reading


@contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """Say in words why a source file cannot be read."""
    name = Path(path).name
    try:
        yield
    except PrepareError:
        raise
    except (*DAMAGED, zlib.error, EOFError) as error:
        size = Path(path).stat().st_size
        raise PrepareError(
            f"{name} ({size:,} bytes) is cut off or not the archive it should be ({error}): fetch it again"
        ) from error
    except UnicodeDecodeError as error:
        raise PrepareError(f"{name} is not UTF-8 text (byte {error.start}): convert it") from error
    except (ValueError, SyntaxError, RuntimeError) as error:  # parsers; RuntimeError: a zip with a password
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise PrepareError(f"cannot read {name}: {reason}") from error
    except OSError as error:
        raise PrepareError(f"cannot read {path}: {error.strerror or error}") from error


def require_column(wanted: str, names: Sequence[str], where: str, hint: str = "") -> None:
    if wanted not in names:
        listed = ", ".join(map(str, list(names)[:20]))
        raise PrepareError(f"no column {wanted!r} in {where}{did_you_mean(wanted, names)}{hint}; columns: {listed}")


def check_archives(paths: Sequence[Path | None]) -> None:
    """Stop at once where a file is no archive; None for one that is not on this machine yet."""
    for path in filter(None, paths):
        with reading(path), zipfile.ZipFile(path):
            pass


def _file_of(archive: zipfile.ZipFile) -> str:
    return Path(archive.filename or "").name


def _member(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    """Open a member by its file name, whatever folder it lies in; nothing is ever unpacked to disk."""
    names = [entry for entry in archive.namelist() if entry.rsplit("/", 1)[-1] == name]
    if not names:
        raise PrepareError(f"no {name} in {_file_of(archive)}; it holds: {', '.join(archive.namelist()[:10])}")
    return archive.open(min(names, key=len))


def _csv_member(archive: zipfile.ZipFile, name: str, columns: Mapping[str, Any], **style: Any) -> pd.DataFrame:
    """The named columns, with their types, of a member that has a header."""
    with _member(archive, name) as file:
        header = pd.read_csv(file, nrows=0, **style).columns
    for column in columns:
        require_column(column, header, f"{_file_of(archive)}:{name}")
    with _member(archive, name) as file:
        return pd.read_csv(file, usecols=list(columns), dtype=dict(columns), **style)[list(columns)]


# MovieLens


def split_title(title: str) -> tuple[str, str]:
    """``Toy Story (1995)`` -> title and year; the first year of a series; an empty year without one."""
    found = re.fullmatch(r"(.*?)\s*\((\d{4})(?:\s*[-\u2013]\s*(?:\d{4})?)?\s*\)", title.strip())
    return (found.group(1), found.group(2)) if found else (title.strip(), "")


def _movies(rows: Iterable[Any]) -> pd.DataFrame:
    """(id, title with year, genres with bars) -> RecBole's columns."""
    movies = []
    for item, title, genres in rows:
        genres = "" if genres == "(no genres listed)" else genres.replace("|", " ")
        movies.append((item, *split_title(title), genres))
    return pd.DataFrame(movies, columns=[ITEM, "movie_title:token_seq", "release_year:token", "genre:token_seq"])


def movielens_dat(paths: Sequence[Path], progress: bool = True) -> Tables:
    """ml-1m.zip: ``ratings.dat``, ``movies.dat``, ``users.dat``, fields separated by ``::``, Latin-1."""
    with reading(paths[0]), zipfile.ZipFile(paths[0]) as archive:
        with _member(archive, "ratings.dat") as file:
            # every second field is the nothing between two colons; a one-letter separator is read in C
            inter = pd.read_csv(file, sep=":", header=None, usecols=[0, 2, 4, 6])
        inter.columns = [USER, ITEM, RATING, TIME]
        movies = _movies(_dat_rows(archive, "movies.dat", 3))
        users = pd.DataFrame(
            _dat_rows(archive, "users.dat", 5),
            columns=[USER, "gender:token", "age:token", "occupation:token", "zip_code:token"],
        )
    users = users[[USER, "age:token", "gender:token", "occupation:token", "zip_code:token"]]
    return Tables(inter, movies, users)


def _dat_rows(archive: zipfile.ZipFile, name: str, fields: int) -> list[list[str]]:
    with _member(archive, name) as file:
        lines = file.read().decode("latin-1").splitlines()
    rows = [line.split("::") for line in lines if line]
    for number, row in enumerate(rows, 1):
        if len(row) != fields:
            raise PrepareError(f"{name}, line {number}: {len(row)} fields instead of {fields}")
    return rows


def movielens_csv(paths: Sequence[Path], progress: bool = True) -> Tables:
    """ml-20m.zip, ml-latest-small.zip and their like: ``ratings.csv``, ``movies.csv``, UTF-8."""
    with reading(paths[0]), zipfile.ZipFile(paths[0]) as archive:
        types: dict[str, Any] = {"userId": np.int32, "movieId": np.int32, "rating": np.float32, "timestamp": np.int64}
        inter = _csv_member(archive, "ratings.csv", types)
        types = {"movieId": str, "title": str, "genres": str}
        movies = _csv_member(archive, "movies.csv", types, keep_default_na=False)
    inter.columns = [USER, ITEM, RATING, TIME]
    return Tables(inter, _movies(movies.itertuples(index=False, name=None)))


# Last.fm


def lastfm(paths: Sequence[Path], progress: bool = True) -> Tables:
    """HetRec 2011 Last.fm: a user's artists in the order in which the user first tagged them.

    Listening counts have no times, so the only order that the data hold is that of the tags. Each user-artist pair
    counts once, at its earliest tag; 5-core of that is the version of S3-Rec, TokenRec and BSARec (1,090 users, 3,646
    artists, 52,551 pairs; ``properties/dataset/lastfm.yaml`` filters so). Most times are the first of a month: ties
    are many, and the order of the source, which is by artist number, decides them. A few times are impossible (1956);
    they are kept as they are.

    ``weight`` is the listening count, 0 where the artist is not among the fifty that are listed for the user.
    """
    with reading(paths[0]), zipfile.ZipFile(paths[0]) as archive:
        pair = {"userID": np.int64, "artistID": np.int64}
        tags = _csv_member(archive, "user_taggedartists-timestamps.dat", {**pair, "timestamp": np.int64}, sep="\t")
        plays = _csv_member(archive, "user_artists.dat", {**pair, "weight": np.float64}, sep="\t")
        style = dict(sep="\t", quoting=csv.QUOTE_NONE, keep_default_na=False, encoding_errors="replace")
        artists = _csv_member(archive, "artists.dat", {"id": str, "name": str}, **style)
    pairs = tags.groupby(["userID", "artistID"], sort=False, as_index=False)["timestamp"].min()
    pairs["timestamp"] //= 1000  # milliseconds
    pairs = pairs.merge(plays.drop_duplicates(list(pair)), on=list(pair), how="left")
    pairs["weight"] = pairs["weight"].fillna(0)
    inter = pairs[["userID", "artistID", "weight", "timestamp"]]
    inter.columns = [USER, ITEM, "weight:float", TIME]
    artists.columns = [ITEM, "name:token_seq"]
    return Tables(inter, artists)


# Amazon 2014

_REVIEW = {USER: "reviewerID", ITEM: "asin", RATING: "overall", TIME: "unixReviewTime"}


def check_amazon(paths: Sequence[Path | None]) -> None:
    """Stop at once where the first line of the reviews lacks a field; None for a file that is not on this machine
    yet."""
    reviews = paths[0]
    if reviews is None:
        return
    with reading(reviews):
        for line_number, line in _lines(reviews, progress=False):
            _check_fields(_record(line, reviews, line_number), f"{reviews.name}, line {line_number}")
            return


def _check_fields(review: dict, where: str) -> None:
    for field in _REVIEW.values():
        require_column(field, list(review), where)


def amazon(paths: Sequence[Path], progress: bool = True) -> Tables:
    """Amazon reviews of 2014, 5-core: ``reviews_<Category>_5.json.gz`` and ``meta_<Category>.json.gz``.

    ``category`` is a list separated by ", ": the brand where it is known, then the categories below the
    main one, each once. Reviews carry a day, not a second, and ties keep the order of the file, as in S3-Rec.
    """
    reviews, meta = paths
    numbers: dict[str, dict[str, int]] = {
        USER: {},
        ITEM: {},
    }  # an id is kept once; a review costs 24 bytes, not four objects
    columns: dict[str, Any] = {USER: array("i"), ITEM: array("i"), RATING: array("d"), TIME: array("d")}
    lines = []  # without a user, an item or a time
    with reading(reviews):
        for line_number, line in _lines(reviews, progress):
            review, where = _record(line, reviews, line_number), f"{Path(reviews).name}, line {line_number}"
            _check_fields(review, where)
            row: dict[str, Any] = {
                column: (_text if column in numbers else _number)(review, field, where)
                for column, field in _REVIEW.items()
            }
            if not (row[USER] and row[ITEM] and math.isfinite(row[TIME])):
                lines.append(line_number)
                continue
            for column, value in row.items():
                columns[column].append(
                    numbers[column].setdefault(value, len(numbers[column])) if column in numbers else value
                )
    inter = pd.DataFrame({column: np.array(values) for column, values in columns.items()})
    for column, codes in numbers.items():
        inter[column] = pd.Categorical.from_codes(inter[column].to_numpy(), categories=pd.Index(list(codes)))
    products = _products(meta, numbers[ITEM], progress)
    notes = (left_out(len(lines), f"{Path(reviews).name}, {listed(lines)}"),) if lines else ()
    return Tables(inter, pd.DataFrame(products, columns=[ITEM, "title:token_seq", "category:token_seq"]), notes=notes)


def left_out(count: int, where: str) -> str:
    """The note on rows that lack what every row needs."""
    return f"rows left out for want of a user, an item or a time: {count:,} ({where})"


def listed(numbers: Sequence[int], what: str = "line") -> str:
    """``line 5``, or ``lines 5, 7, 9 and 120 more``."""
    named = ", ".join(map(str, numbers[:3])) + (f" and {len(numbers) - 3:,} more" if len(numbers) > 3 else "")
    return f"{what}{'s' if len(numbers) > 1 else ''} {named}"


def _products(path: Path, wanted: Collection[str], progress: bool) -> list[tuple[str, str, str]]:
    """Title and category text of the wanted products."""
    asin = re.compile(rb"""['"]asin['"]:\s*['"]([^'"]+)['"]""")
    products = []
    with reading(path):
        for line_number, line in _lines(path, progress):
            found = asin.search(line)  # most products have no reviewer of the 5-core: do not parse their lines
            if found and found.group(1).decode("ascii", "replace") not in wanted:
                continue
            product, where = _record(line, path, line_number), f"{Path(path).name}, line {line_number}"
            labels = [_text(product, "brand", where), *_labels(product, where)]
            distinct = dict.fromkeys(filter(None, (clean_text(html.unescape(label)) for label in labels)))
            title = html.unescape(_text(product, "title", where))
            products.append((_text(product, "asin", where), title, ", ".join(map(str, distinct))))
    return products


def _labels(product: dict, where: str) -> list[str]:
    """The categories below the main one; of branches, as in 2014, or of a single one, as later."""
    branches = product.get("categories") or []
    if isinstance(branches, list) and all(isinstance(label, str) for label in branches):
        branches = [branches]
    if not isinstance(branches, list) or not all(
        isinstance(branch, list) and all(isinstance(label, str) for label in branch) for branch in branches
    ):
        raise PrepareError(f"{where}: categories holds {shown(branches)} and must be a list of lists of names")
    return [label for branch in branches for label in branch[1:]]


def _text(record: dict, field: str, where: str) -> str:
    """A field that holds a text, or a number for one; empty where it holds nothing."""
    value = record.get(field)
    if value is None or value != value:  # JSON's NaN
        return ""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise PrepareError(f"{where}: {field} holds {shown(value)}, which is no text")
    return str(value)


def _number(record: dict, field: str, where: str) -> float:
    """A field that holds a number, or a text of one; NaN where it holds nothing."""
    value = record.get(field)
    try:
        number = math.nan if value is None or value == "" else float(value)
    except (TypeError, ValueError, OverflowError):
        number = None
    if number is None or isinstance(value, bool):
        raise PrepareError(f"{where}: {field} holds {shown(value)}, which is no number")
    return number


def _record(line: bytes, path: Path, line_number: int) -> dict:
    """The reviews are JSON, the products Python literals; neither is ever executed."""
    text = line.decode("utf-8")
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        try:
            record = ast.literal_eval(text.strip())
        except (ValueError, SyntaxError, MemoryError, RecursionError) as error:
            raise PrepareError(f"{Path(path).name}, line {line_number}: neither JSON nor a literal") from error
    if not isinstance(record, dict):
        raise PrepareError(f"{Path(path).name}, line {line_number}: no record with named fields")
    return record


def _lines(path: Path, progress: bool) -> Iterator[tuple[int, bytes]]:
    """Numbered lines of a file, packed or not; the bar counts bytes of the file as it is on disk."""
    name, size = Path(path).name, Path(path).stat().st_size
    with open(path, "rb") as raw, unpacked(raw, name) as lines:
        with tqdm(total=size, desc=name, unit="B", unit_scale=True, disable=not progress) as bar:
            for number, line in enumerate(lines, 1):
                if number % 4096 == 0:
                    bar.update(raw.tell() - bar.n)
                if line.strip():
                    yield number, line
            bar.update(size - bar.n)
