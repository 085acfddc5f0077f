"""
recbole_contrec.data.published.steam
####################################
Reviews and games of Steam, as SASRec's authors collected them.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from recbole_contrec.data.published import records
from recbole_contrec.data.published.records import Fields
from recbole_contrec.data.writing import ITEM, Tables

REVIEWS = Fields("username", "product_id", "date", seconds=records.date)


def check(paths: Sequence[Path | None]) -> None:
    """Stop at once where the first review lacks a field."""
    records.check_first(paths[0], REVIEWS)


def read(paths: Sequence[Path], progress: bool = True) -> Tables:
    """``steam_reviews.json.gz`` and ``steam_games.json.gz``.

    ``category`` holds the developer, the genres and the tags of a game. A review carries a day; ties keep the order of
    the file. There is no rating.
    """
    reviews, games = paths
    inter, notes = records.interactions(reviews, REVIEWS, progress)
    wanted = set(inter[ITEM].cat.categories)
    return Tables(inter, records.items(games, "id", wanted, _texts, progress), notes=notes)


def _texts(game: Mapping, where: str) -> tuple[str, list[str]]:
    title = records.text(game, "title", where) or records.text(game, "app_name", where)
    developer = records.text(game, "developer", where)
    return title, [developer, *records.labels(game, "genres", where), *records.labels(game, "tags", where)]
