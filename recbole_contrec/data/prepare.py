r"""
recbole_contrec.data.prepare
############################
Download a data set, or take a table of the user's, and write RecBole's atomic files.

RecBole's own downloads have been denied by their server since 2026 (RUCAIBox/RecBole#2218), so nothing here asks
it. A data set appears under its name only when it is complete: archives are checked before they get their name, and
the folder is made under a temporary name and renamed at the end.
"""

import os
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from recbole_contrec.data.download import PrepareError, disk_errors, is_url, local_files, source_files
from recbole_contrec.data.published.recipes import CATALOGUE, Recipe, known_datasets, known_names
from recbole_contrec.data.sequences import check_sequences
from recbole_contrec.data.sequences import sequences as read_sequences
from recbole_contrec.data.tables import check_table, table
from recbole_contrec.data.usual_columns import DEFAULTS
from recbole_contrec.data.writing import write
from recbole_contrec.errors import did_you_mean

__all__ = ["COLUMN_OPTIONS", "PrepareError", "PreparedDataset", "known_datasets", "known_names", "prepare"]

ATOMIC = (".inter", ".item", ".user")
COLUMN_OPTIONS = ("user", "item", "time", "rating", "items", "item_id", "text")
HISTORY_COLUMNS = ("user", "item", "time", "rating")  # of COLUMN_OPTIONS, those of the interactions


@dataclass(frozen=True)
class PreparedDataset:
    """What :func:`prepare` wrote."""

    path: Path
    users: int
    items: int
    interactions: int
    files: tuple[Path, ...]
    notes: tuple[str, ...] = ()


def prepare(
    dataset: str,
    data_path: str | Path = "dataset",
    source: str | Path | None = None,
    *,
    columns: dict[str, object] | None = None,
    sequences: bool = False,
    force: bool = False,
    md5: str | None = None,
    progress: bool = True,
) -> PreparedDataset:
    """Make ``<data_path>/<dataset>/<dataset>.inter``, ``.item`` and ``.user``.

    Args:
        dataset (str): one of :func:`known_datasets`, or any name together with ``source``.
        data_path (path): the folder that holds the data set folders.
        source (path or str): a file or an http(s) address to take instead of the known one.
        columns (dict): for a table of one's own, the columns ``user``, ``item``, ``time`` and optionally ``rating``;
            ``items`` is a second file, ``item_id`` its key, ``text`` a list of its text columns.
        sequences (bool): ``source`` has no columns: every line is a user and then items in order of time.
        force (bool): replace a data set of that name.
        md5 (str): the checksum of ``source`` (of the reviews for Amazon).
        progress (bool): show progress bars.

    Returns:
        PreparedDataset: the folder, its files, and what they hold.
    """
    columns = {option: value for option, value in (columns or {}).items() if value}
    recipe = _recipe(dataset, source, columns, sequences)
    if md5 is not None and not re.fullmatch("[0-9a-fA-F]{32}", md5):
        raise PrepareError(f"--md5={md5} is not an MD5 checksum of 32 hexadecimal digits")
    root = Path(data_path)
    target = root / dataset
    locations = _locations(recipe, source)
    recipe.check(local_files(locations))  # before a wrong file is said to be in the way of an older data set
    _refuse_existing(target, dataset, force)  # before anything is downloaded
    checksum = md5 or (recipe.md5 if locations[0] == recipe.urls[0] else None)
    with _workspace(root, dataset) as folder:
        with source_files(locations, root / ".downloads", checksum, progress) as paths:
            tables = recipe.convert(paths, progress=progress)
            with disk_errors(root):
                written = write(tables, folder, dataset, progress)
        with disk_errors(root):
            _put_in_place(folder, target)
    files = tuple(target / f"{dataset}.{suffix}" for suffix in written.suffixes)
    return PreparedDataset(target, written.users, written.items, written.interactions, files, tables.notes)


def _recipe(dataset: str, source: str | Path | None, columns: dict[str, object], sequences: bool) -> Recipe:
    """The known recipe, or one for a table with named columns or for histories."""
    if not re.fullmatch(r"[A-Za-z0-9_][\w.+-]*", dataset):
        raise PrepareError(f"{dataset!r} cannot be the name of a data set: use letters, digits, - _ . +")
    if dataset == "ml-100k":
        raise PrepareError("ml-100k comes with RecBole, which reads no other copy: run with --dataset=ml-100k at once")
    for option in columns:
        if option not in COLUMN_OPTIONS:
            raise PrepareError(f"unknown column option {option!r}{did_you_mean(option, COLUMN_OPTIONS)}")
    if source is None and columns:
        raise PrepareError("name the file that holds these columns: --from=FILE_OR_URL")
    if source is None and sequences:
        raise PrepareError("name the file of the histories: --from=FILE_OR_URL")
    if named := [f"--{option}" for option in HISTORY_COLUMNS if sequences and option in columns]:
        raise PrepareError(f"with --sequences the file has no columns: leave out {', '.join(named)}")
    if dataset in CATALOGUE and not columns and not sequences:
        return CATALOGUE[dataset]
    if source is None:
        raise PrepareError(
            f"unknown data set {dataset!r}{did_you_mean(dataset, CATALOGUE)}: prepare --help lists those that can be "
            "downloaded.\nFor a table of your own pass --from=FILE --user= --item= --time=, for a user's history on "
            "every line --from=FILE --sequences"
        )
    texts: Any = columns.get("text") or []
    listed = texts.split(",") if isinstance(texts, str) else texts
    names: list[str] = [text.strip() for text in listed if text.strip()]
    columns["text"] = names
    urls = (str(source), str(columns["items"])) if columns.get("items") else (str(source),)
    of_items = {"item_id": columns.get("item_id"), "text": ",".join(names) if sequences else None}
    if len(urls) == 1 and (named := [f"--{option}={value}" for option, value in of_items.items() if value]):
        raise PrepareError(f"{' and '.join(named)}: columns of the table of the items, pass it as --items=FILE")
    if sequences and len(urls) > 1 and not names:
        raise PrepareError(f"--items={columns['items']} needs --text=COLUMN,COLUMN: which of its columns are texts?")
    if sequences:
        columns.setdefault("item_id", DEFAULTS["item"])
        check = partial(check_sequences, columns=columns)
        return Recipe("histories", urls, partial(read_sequences, columns=columns), check)
    return Recipe("a table", urls, partial(table, columns=columns), partial(check_table, columns=columns))


def _locations(recipe: Recipe, source: str | Path | None) -> list[str]:
    """Path or address of every file; companions of ``source`` are expected beside it under their published name."""
    if source is None and recipe.page:
        raise PrepareError(
            f"cannot download this data set, whose terms have to be accepted: get it at {recipe.page}, unpack it and "
            f"pass --from={recipe.urls[0]}"
        )
    if source is None or str(source) == recipe.urls[0]:
        return list(recipe.urls)
    source = str(source)
    folder = source.rsplit("/", 1)[0] + "/" if is_url(source) else f"{Path(source).parent}{os.sep}"
    locations = [source]
    for url in recipe.urls[1:]:
        locations.append(folder + url.rsplit("/", 1)[-1])
        companion = Path(locations[-1])
        if not is_url(source) and not companion.exists() and not companion.with_suffix("").exists():
            raise PrepareError(f"no file {companion} (it belongs to {Path(source).name}): put the file of {url} there")
    return locations


# the folder


def _refuse_existing(target: Path, dataset: str, force: bool) -> None:
    if not os.path.lexists(target) or (target.is_dir() and not any(target.iterdir())):
        return  # an empty folder is what RecBole leaves of an interrupted download
    if not target.is_dir():
        raise PrepareError(f"{target} exists and is not a folder: remove it or choose another --data_path")
    if not force:
        raise PrepareError(f"{target} exists already: pass --force to replace it or choose another --data_path")
    own = {dataset + suffix for suffix in ATOMIC}
    others = sorted(entry.name for entry in target.iterdir() if entry.name not in own)
    if others:
        raise PrepareError(
            f"--force would delete files of {target} that are not part of the data set "
            f"({', '.join(others[:5])}): move them first"
        )


@contextmanager
def _workspace(root: Path, dataset: str) -> Iterator[Path]:
    """An empty folder beside the target, gone afterwards whatever happens."""
    made = [folder for folder in (root, *root.parents) if not folder.exists()]
    folder = root / f".{dataset}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        with disk_errors(root):
            root.mkdir(parents=True, exist_ok=True)
            folder.mkdir()
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        for parent in made:
            if parent.is_dir() and not any(parent.iterdir()):
                parent.rmdir()


def _put_in_place(folder: Path, target: Path) -> None:
    """Rename the finished folder to its name; an older one is deleted only once the new one stands."""
    old = folder.with_suffix(".old")
    if target.exists():
        os.replace(target, old)
    try:
        os.replace(folder, target)
    except OSError:
        if old.exists():
            os.replace(old, target)
        raise
    old.unlink() if old.is_symlink() else shutil.rmtree(old, ignore_errors=True)
