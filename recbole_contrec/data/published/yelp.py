"""
recbole_contrec.data.published.yelp
###################################
The open data set of Yelp, which one gets for accepting its terms.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

from recbole_contrec.data.published import records
from recbole_contrec.data.published.records import Fields
from recbole_contrec.data.writing import ITEM, Tables

REVIEWS = Fields("user_id", "business_id", "date", "stars", records.date)


def check(paths: Sequence[Path | None]) -> None:
    """Stop at once where the first review lacks a field."""
    records.check_first(paths[0], REVIEWS)


def read(paths: Sequence[Path], progress: bool = True) -> Tables:
    """``yelp_academic_dataset_review.json`` and ``yelp_academic_dataset_business.json``.

    ``category`` holds the city and the categories of a business. Dates are taken as UTC.
    """
    reviews, businesses = paths
    inter, notes = records.interactions(reviews, REVIEWS, progress)
    wanted = set(inter[ITEM].cat.categories)
    return Tables(inter, records.items(businesses, "business_id", wanted, _texts, progress), notes=notes)


def _texts(business: Mapping, where: str) -> tuple[str, list[str]]:
    categories = records.text(business, "categories", where).split(",")
    return records.text(business, "name", where), [records.text(business, "city", where), *categories]
