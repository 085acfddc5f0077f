"""
recbole_contrec.data.published.lastfm
#####################################
Last.fm of HetRec 2011.
"""

import csv
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from recbole_contrec.data.published.zips import csv_member
from recbole_contrec.data.writing import ITEM, TIME, USER, Tables, reading


def read(paths: Sequence[Path], progress: bool = True) -> Tables:
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
        tags = csv_member(archive, "user_taggedartists-timestamps.dat", {**pair, "timestamp": np.int64}, sep="\t")
        plays = csv_member(archive, "user_artists.dat", {**pair, "weight": np.float64}, sep="\t")
        style = dict(sep="\t", quoting=csv.QUOTE_NONE, keep_default_na=False, encoding_errors="replace")
        artists = csv_member(archive, "artists.dat", {"id": str, "name": str}, **style)
    pairs = tags.groupby(["userID", "artistID"], sort=False, as_index=False)["timestamp"].min()
    pairs["timestamp"] //= 1000  # milliseconds
    pairs = pairs.merge(plays.drop_duplicates(list(pair)), on=list(pair), how="left")
    pairs["weight"] = pairs["weight"].fillna(0)
    inter = pairs[["userID", "artistID", "weight", "timestamp"]]
    inter.columns = [USER, ITEM, "weight:float", TIME]
    artists.columns = [ITEM, "name:token_seq"]
    return Tables(inter, artists)
