"""
recbole_contrec.data.published.zips
###################################
Members of the zip archives that data sets are published in; nothing is ever unpacked to disk.
"""

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import pandas as pd

from recbole_contrec.data.download import PrepareError
from recbole_contrec.data.writing import reading, require_column


def check_archives(paths: Sequence[Path | None]) -> None:
    """Stop at once where a file is no archive; None for one that is not on this machine yet."""
    for path in filter(None, paths):
        with reading(path), zipfile.ZipFile(path):
            pass


def file_of(archive: zipfile.ZipFile) -> str:
    return Path(archive.filename or "").name


def member(archive: zipfile.ZipFile, name: str) -> IO[bytes]:
    """Open a member by its file name, whatever folder it lies in; nothing is ever unpacked to disk."""
    names = [entry for entry in archive.namelist() if entry.rsplit("/", 1)[-1] == name]
    if not names:
        raise PrepareError(f"no {name} in {file_of(archive)}; it holds: {', '.join(archive.namelist()[:10])}")
    return archive.open(min(names, key=len))


def csv_member(archive: zipfile.ZipFile, name: str, columns: Mapping[str, Any], **style: Any) -> pd.DataFrame:
    """The named columns, with their types, of a member that has a header."""
    with member(archive, name) as file:
        header = pd.read_csv(file, nrows=0, **style).columns
    for column in columns:
        require_column(column, header, f"{file_of(archive)}:{name}")
    with member(archive, name) as file:
        return pd.read_csv(file, usecols=list(columns), dtype=dict(columns), **style)[list(columns)]
