r"""
recbole_contrec.data.writing
############################
Tables -> RecBole's atomic files.

Whatever reads a source, a published data set or a table of the user's, returns :class:`Tables`; :func:`write` is the
only one that makes files. Columns carry their RecBole type from the start (``item_id:token``).
"""

import csv
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from tqdm import tqdm

from recbole_contrec.data.archives import DAMAGED
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
    if lacking := int(inter[[USER, ITEM, TIME]].isna().any(axis=1).sum()):  # would pass for the last id
        raise PrepareError(f"{lacking:,} interactions of {name} lack a user, an item or a time: the file is damaged")
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


def left_out(count: int, where: str) -> str:
    """The note on rows that lack what every row needs."""
    return f"rows left out for want of a user, an item or a time: {count:,} ({where})"


def listed(numbers: Sequence[int], what: str = "line") -> str:
    """``line 5``, or ``lines 5, 7, 9 and 120 more``."""
    named = ", ".join(map(str, numbers[:3])) + (f" and {len(numbers) - 3:,} more" if len(numbers) > 3 else "")
    return f"{what}{'s' if len(numbers) > 1 else ''} {named}"
