"""
recbole_contrec.data.published.amazon
#####################################
Amazon reviews of 2014 and of 2023, 5-core.

``category`` is a list separated by ", ": the brand (2014) or the store (2023) where it is known, then the categories
below the main one, each once.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from recbole_contrec.data.download import PrepareError
from recbole_contrec.data.published import records
from recbole_contrec.data.published.records import Fields
from recbole_contrec.data.tables import check_table, table
from recbole_contrec.data.writing import ITEM, TIME, Tables
from recbole_contrec.errors import shown

REVIEWS_2014 = Fields("reviewerID", "asin", "unixReviewTime", "overall")
COLUMNS_2023 = {"user": "user_id", "item": "parent_asin", "rating": "rating", "time": "timestamp"}


def check_2014(paths: Sequence[Path | None]) -> None:
    """Stop at once where the first review lacks a field."""
    records.check_first(paths[0], REVIEWS_2014)


def read_2014(paths: Sequence[Path], progress: bool = True) -> Tables:
    """``reviews_<Category>_5.json.gz`` and ``meta_<Category>.json.gz``.

    Reviews carry a day, not a second, and ties keep the order of the file, as in S3-Rec.
    """
    reviews, meta = paths
    inter, notes = records.interactions(reviews, REVIEWS_2014, progress)
    products = records.items(meta, "asin", _ids(inter), _texts("brand"), progress)
    return Tables(inter, products, notes=notes)


def check_2023(paths: Sequence[Path | None]) -> None:
    """Stop at once where the table of the ratings lacks a column."""
    check_table(paths[:1], COLUMNS_2023)


def read_2023(paths: Sequence[Path], progress: bool = True) -> Tables:
    """``<Category>.csv.gz`` of the 5-core ratings and ``meta_<Category>.jsonl.gz``.

    Times are in milliseconds there and in seconds here, with decimals. An item is a product with all its colours and
    sizes (``parent_asin``).
    """
    ratings, meta = paths
    tables = table([ratings], COLUMNS_2023, progress)
    inter = tables.inter.assign(**{TIME: tables.inter[TIME] / 1000})
    products = records.items(meta, "parent_asin", _ids(inter), _texts("store"), progress)
    return Tables(inter, products, notes=tables.notes)


def _ids(inter: Any) -> set[str]:
    return set(inter[ITEM].cat.categories)


def _texts(brand: str) -> Callable[[Mapping, str], tuple[str, list[str]]]:
    """Reader of title and labels; ``brand`` is the field of the maker or seller."""

    def texts(product: Mapping, where: str) -> tuple[str, list[str]]:
        return records.text(product, "title", where), [records.text(product, brand, where), *_below(product, where)]

    return texts


def _below(product: Mapping, where: str) -> list[str]:
    """The categories below the main one; of branches, as in 2014, or of a single one, as later."""
    branches = product.get("categories") or []
    if isinstance(branches, list) and all(isinstance(label, str) for label in branches):
        branches = [branches]
    if not isinstance(branches, list) or not all(
        isinstance(branch, list) and all(isinstance(label, str) for label in branch) for branch in branches
    ):
        raise PrepareError(f"{where}: categories holds {shown(branches)} and must be a list of lists of names")
    return [label for branch in branches for label in branch[1:]]
