"""
recbole_contrec.data.published.recipes
######################################
Every published data set that ``prepare`` knows: its files, where they are and what reads them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from recbole_contrec.data.published import amazon, gowalla, lastfm, movielens, steam, yelp
from recbole_contrec.data.published.zips import check_archives
from recbole_contrec.data.writing import Tables

MOVIELENS = "https://files.grouplens.org/datasets/movielens/"
HETREC = "https://files.grouplens.org/datasets/hetrec2011/"
AMAZON_2014 = "https://snap.stanford.edu/data/amazon/productGraph/categoryFiles/"
AMAZON_2023 = "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_2023/"
STEAM = "https://cseweb.ucsd.edu/~wckang/"
GOWALLA = "https://snap.stanford.edu/data/"


@dataclass(frozen=True)
class Recipe:
    """Where a data set comes from; ``urls[1:]`` are looked for beside ``urls[0]``.

    ``md5`` belongs to ``urls[0]`` and stands here only where it is certain; the others are asked of the server.
    """

    description: str
    urls: tuple[str, ...]
    convert: Callable[..., Tables]  # convert(paths, progress=True)
    check: Callable[[Sequence[Path | None]], None]  # what a glance tells of those files that are here already
    md5: str | None = None
    page: str | None = None  # where one gets files that nobody may download without accepting terms


def _movielens(
    name: str, size: str, reader: Callable[..., Tables] = movielens.read_csv, md5: str | None = None
) -> Recipe:
    return Recipe(f"MovieLens, {size} ratings", (f"{MOVIELENS}{name}.zip",), reader, check_archives, md5)


def _amazon_2014(category: str) -> Recipe:
    urls = (f"{AMAZON_2014}reviews_{category}_5.json.gz", f"{AMAZON_2014}meta_{category}.json.gz")
    name = category.replace("_", " ")
    return Recipe(f"Amazon reviews 2014, {name}, 5-core", urls, amazon.read_2014, amazon.check_2014)


def _amazon_2023(category: str) -> Recipe:
    ratings = f"{AMAZON_2023}benchmark/5core/rating_only/{category}.csv.gz"
    urls = (ratings, f"{AMAZON_2023}raw/meta_categories/meta_{category}.jsonl.gz")
    name = category.replace("_", " ")
    return Recipe(f"Amazon reviews 2023, {name}, 5-core", urls, amazon.read_2023, amazon.check_2023)


# RecBole's names (its properties/dataset/url.yaml); amazon-clothing is short for the last one of its line.
CATEGORIES_2014 = {
    "amazon-apps-for-android": "Apps_for_Android",
    "amazon-automotive": "Automotive",
    "amazon-baby": "Baby",
    "amazon-beauty": "Beauty",
    "amazon-books": "Books",
    "amazon-cds-vinyl": "CDs_and_Vinyl",
    "amazon-cell-phones-accessories": "Cell_Phones_and_Accessories",
    "amazon-clothing": "Clothing_Shoes_and_Jewelry",
    "amazon-clothing-shoes-jewelry": "Clothing_Shoes_and_Jewelry",
    "amazon-digital-music": "Digital_Music",
    "amazon-electronics": "Electronics",
    "amazon-grocery-gourmet-food": "Grocery_and_Gourmet_Food",
    "amazon-health-personal-care": "Health_and_Personal_Care",
    "amazon-home-kitchen": "Home_and_Kitchen",
    "amazon-instant-video": "Amazon_Instant_Video",
    "amazon-kindle-store": "Kindle_Store",
    "amazon-movies-tv": "Movies_and_TV",
    "amazon-musical-instruments": "Musical_Instruments",
    "amazon-office-products": "Office_Products",
    "amazon-patio-lawn-garden": "Patio_Lawn_and_Garden",
    "amazon-pet-supplies": "Pet_Supplies",
    "amazon-sports-outdoors": "Sports_and_Outdoors",
    "amazon-tools-home-improvement": "Tools_and_Home_Improvement",
    "amazon-toys-games": "Toys_and_Games",
    "amazon-video-games": "Video_Games",
}

# amazon-2023-video-games for Video_Games
CATEGORIES_2023 = [
    "All_Beauty",
    "Amazon_Fashion",
    "Appliances",
    "Arts_Crafts_and_Sewing",
    "Automotive",
    "Baby_Products",
    "Beauty_and_Personal_Care",
    "Books",
    "CDs_and_Vinyl",
    "Cell_Phones_and_Accessories",
    "Clothing_Shoes_and_Jewelry",
    "Digital_Music",
    "Electronics",
    "Gift_Cards",
    "Grocery_and_Gourmet_Food",
    "Handmade_Products",
    "Health_and_Household",
    "Health_and_Personal_Care",
    "Home_and_Kitchen",
    "Industrial_and_Scientific",
    "Kindle_Store",
    "Magazine_Subscriptions",
    "Movies_and_TV",
    "Musical_Instruments",
    "Office_Products",
    "Patio_Lawn_and_Garden",
    "Pet_Supplies",
    "Software",
    "Sports_and_Outdoors",
    "Subscription_Boxes",
    "Tools_and_Home_Improvement",
    "Toys_and_Games",
    "Video_Games",
]

CATALOGUE: dict[str, Recipe] = {
    "ml-1m": _movielens("ml-1m", "1 million", movielens.read_dat, "c4d9eecfca2ab87c1945afe126590906"),
    "ml-20m": _movielens("ml-20m", "20 million", md5="cd245b17a1ae2cc31bb14903e1204af3"),
    "ml-latest-small": _movielens("ml-latest-small", "100 thousand (changes over time)"),
    "lastfm": Recipe(
        "Last.fm of HetRec 2011, artists in the order of their first tag",
        (f"{HETREC}hetrec2011-lastfm-2k.zip",),
        lastfm.read,
        check_archives,
    ),
    "gowalla": Recipe(
        "check-ins of Gowalla", (f"{GOWALLA}loc-gowalla_totalCheckins.txt.gz",), gowalla.read, gowalla.check
    ),
    "steam": Recipe(
        "reviews of games on Steam, 7.8 million",
        (f"{STEAM}steam_reviews.json.gz", f"{STEAM}steam_games.json.gz"),
        steam.read,
        steam.check,
    ),
    "yelp": Recipe(
        "reviews of Yelp's open data set",
        ("yelp_academic_dataset_review.json", "yelp_academic_dataset_business.json"),
        yelp.read,
        yelp.check,
        page="https://www.yelp.com/dataset",
    ),
    **{name: _amazon_2014(category) for name, category in CATEGORIES_2014.items()},
    **{f"amazon-2023-{category.lower().replace('_', '-')}": _amazon_2023(category) for category in CATEGORIES_2023},
}


def known_datasets() -> dict[str, str]:
    """Name -> one line on what it is, for every data set that ``prepare`` can make."""
    return {name: recipe.description for name, recipe in CATALOGUE.items()}


def known_names() -> str:
    """The names of :func:`known_datasets` on one line, those of Amazon in short."""
    groups: dict[str, list[str]] = {"amazon-2023-": [], "amazon-": []}
    others = []
    for name in CATALOGUE:
        prefix = next((prefix for prefix in groups if name.startswith(prefix)), None)
        groups[prefix].append(name.removeprefix(prefix)) if prefix else others.append(name)
    return ", ".join([*others, *(f"{prefix}{{{','.join(groups[prefix])}}}" for prefix in reversed(groups))])
