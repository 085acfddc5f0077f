"""
recbole_contrec.data.published.gowalla
######################################
Check-ins of Gowalla, as SNAP publishes them.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from recbole_contrec.data.download import PrepareError
from recbole_contrec.data.table_files import opened
from recbole_contrec.data.tables import seconds
from recbole_contrec.data.writing import ITEM, TIME, USER, Tables, left_out, listed, reading

COLUMNS = ["user", "time", "latitude", "longitude", "location"]


def check(paths: Sequence[Path | None]) -> None:
    """Stop at once where the first line has not the five columns."""
    if (path := paths[0]) is None:
        return
    with reading(path), opened(path) as file:
        found = pd.read_csv(file, sep="\t", header=None, nrows=1).shape[1]
    if found != len(COLUMNS):
        raise PrepareError(
            f"{path.name}: the first line has {found} columns, with tabs between, in place of {len(COLUMNS)} "
            f"({', '.join(COLUMNS)})"
        )


def read(paths: Sequence[Path], progress: bool = True) -> Tables:
    """``loc-gowalla_totalCheckins.txt.gz``: user, time, latitude, longitude and location, without a header.

    Every check-in is an interaction: people return to places. Coordinates are left out.
    """
    check(paths)
    path = paths[0]
    with reading(path), opened(path) as file:
        wanted = ["user", "time", "location"]
        rows = pd.read_csv(file, sep="\t", names=COLUMNS, usecols=wanted, dtype=str, skip_blank_lines=False)
    inter = pd.DataFrame(
        {USER: rows["user"], ITEM: rows["location"], TIME: seconds(rows["time"], path, "time", _lines)}
    )
    lacking = np.flatnonzero(inter.isna().any(axis=1))
    notes = (left_out(len(lacking), f"{path.name}, {_lines(lacking)}"),) if len(lacking) else ()
    return Tables(inter.drop(index=lacking), notes=notes)


def _lines(rows: Iterable[int]) -> str:
    return listed([int(row) + 1 for row in rows])
