"""
recbole_contrec.data.published.movielens
########################################
The MovieLens data sets.
"""

import re
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from recbole_contrec.data.download import PrepareError
from recbole_contrec.data.published.zips import csv_member, member
from recbole_contrec.data.writing import ITEM, RATING, TIME, USER, Tables, reading


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


def read_dat(paths: Sequence[Path], progress: bool = True) -> Tables:
    """ml-1m.zip: ``ratings.dat``, ``movies.dat``, ``users.dat``, fields separated by ``::``, Latin-1."""
    with reading(paths[0]), zipfile.ZipFile(paths[0]) as archive:
        with member(archive, "ratings.dat") as file:
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
    with member(archive, name) as file:
        lines = file.read().decode("latin-1").splitlines()
    rows = [line.split("::") for line in lines if line]
    for number, row in enumerate(rows, 1):
        if len(row) != fields:
            raise PrepareError(f"{name}, line {number}: {len(row)} fields instead of {fields}")
    return rows


def read_csv(paths: Sequence[Path], progress: bool = True) -> Tables:
    """ml-20m.zip, ml-latest-small.zip and their like: ``ratings.csv``, ``movies.csv``, UTF-8."""
    with reading(paths[0]), zipfile.ZipFile(paths[0]) as archive:
        types: dict[str, Any] = {"userId": np.int32, "movieId": np.int32, "rating": np.float32, "timestamp": np.int64}
        inter = csv_member(archive, "ratings.csv", types)
        types = {"movieId": str, "title": str, "genres": str}
        movies = csv_member(archive, "movies.csv", types, keep_default_na=False)
    inter.columns = [USER, ITEM, RATING, TIME]
    return Tables(inter, _movies(movies.itertuples(index=False, name=None)))
