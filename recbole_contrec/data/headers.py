"""
recbole_contrec.data.headers
############################
What the first lines of atomic files say: which column is the user, the item, the time, and which hold texts. So a
folder of RecBole files needs no YAML.
"""

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from recbole_contrec.catalogue.datasets import dataset_folder, list_datasets
from recbole_contrec.data.atomic_header import is_there, read_header
from recbole_contrec.errors import UserError, did_you_mean, nearest, shown

PREPARE = "python run_recbole_contrec.py prepare --dataset={}"

ROLES = {  # key -> (RecBole's default, other usual names, types), in the order in which columns are given away
    "USER_ID_FIELD": ("user_id", ("user", "uid", "reviewer_id", "session_id", "visitor_id", "customer_id"), ("token",)),
    "ITEM_ID_FIELD": (
        "item_id",
        (
            "item",
            "iid",
            "asin",
            "parent_asin",
            "movie_id",
            "product_id",
            "business_id",
            "track_id",
            "artist_id",
            "book_id",
            "game_id",
            "venue_id",
        ),
        ("token",),
    ),
    "TIME_FIELD": ("timestamp", ("time", "ts", "unix_review_time", "date", "datetime"), ("float",)),
}
_RATINGS = ("rating", "score", "overall", "stars", "label", "weight", "count")


class Headers(NamedTuple):
    """What the headers of a data set say: settings by key, and a line for the log."""

    settings: dict[str, Any]
    found: str


def dataset_settings_from_headers(
    data_path: str | Path,
    dataset: str,
    named: dict[str, str] | None = None,
    *,
    wanted: Iterable[str] = (),
    need_time: bool = True,
    separator: str = "\t",
    encoding: str | None = None,
    parts: list[str] | None = None,
    folders: Iterable[Path] = (),
) -> Headers:
    """Columns of user, item and time, and what to load, for a folder of RecBole atomic files without a YAML.

    RecBole's default names count first, then usual names, then types: the first two ``token`` columns and the only
    ``float`` column that is no rating.

    Args:
        data_path: the folder that holds the data set's folder.
        dataset: name of the data set.
        named: ``USER_ID_FIELD`` and so on as far as the user has set them.
        wanted: further columns of the ``.inter`` file to load (a rating that a threshold reads).
        need_time: whether a missing time column is an error.
        separator, encoding: of the files.
        parts: ``benchmark_filename``: the data comes split as ``NAME.<part>.inter``.
        folders: properties folders, for the names in error texts.

    Raises:
        UserError: no such data set (with the nearest names and the ``prepare`` command), or a missing column.
    """
    folder = dataset_folder(data_path, dataset)
    file = inter_file(folder, dataset, parts, folders)
    columns = read_header(file, separator, encoding)
    fields: dict[str, str] = dict(named or {})
    if parts and fields.get("TIME_FIELD") == ROLES["TIME_FIELD"][0] and fields["TIME_FIELD"] not in columns:
        del fields["TIME_FIELD"]  # the usual name, in the record of a run whose data came split and without times
    require_columns(file, columns, [name for name in (*fields.values(), *wanted) if name])
    for key in ROLES:
        if key not in fields and (name := _find_column(key, columns, set(fields.values()))):
            fields[key] = name
    missing = [key for key in ROLES if key not in fields and (need_time or key != "TIME_FIELD")]
    if missing:
        kinds = ", ".join(f"{key.split('_')[0].lower()} column ({ROLES[key][0]}:{ROLES[key][2][0]})" for key in missing)
        raise UserError(f"{file} lacks: {kinds}; it has {_listed(columns)}. Name it with --{missing[0]}=COLUMN")
    inter = list(dict.fromkeys([*filter(None, fields.values()), *wanted]))
    texts = _text_columns(folder / f"{dataset}.item", fields, separator, encoding)  # loaded beside RecBole, see text.py
    found = f"{dataset}: columns {', '.join(inter)} of {file.name}; item texts: {', '.join(texts) or 'none'}"
    return Headers({**fields, "load_col": {"inter": inter}}, found)


def _find_column(key: str, columns: Mapping[str, str], taken: Collection[str]) -> str | None:
    default, usual, types = ROLES[key]
    others = {_plain(name) for role in ROLES if role != key for name in (ROLES[role][0], *ROLES[role][1])}
    free = [
        name for name, kind in columns.items() if kind in types and name not in taken and _plain(name) not in others
    ]
    if default in free:
        return default
    plain = {_plain(name): name for name in reversed(free)}
    for name in (default, *usual):
        if _plain(name) in plain:
            return plain[_plain(name)]
    if key == "TIME_FIELD":
        free = [name for name in free if name.lower() not in _RATINGS]
        return free[0] if len(free) == 1 else None
    return free[0] if free else None


def _plain(name: str) -> str:
    return name.lower().replace("_", "")


def _text_columns(file: Path, fields: Mapping[str, str], separator: str, encoding: str | None) -> list[str]:
    """Token columns of the ``.item`` file; none where there is no file, or none keyed by the item field."""
    columns = read_header(file, separator, encoding) if is_there(file) else {}
    if fields["ITEM_ID_FIELD"] not in columns:
        return []
    return [
        name for name, kind in columns.items() if kind in ("token_seq", "token") and name != fields["ITEM_ID_FIELD"]
    ]


def inter_file(folder: Path, dataset: str, parts: list[str] | None, folders: Iterable[Path]) -> Path:
    file = folder / (f"{dataset}.{parts[0]}.inter" if parts else f"{dataset}.inter")
    if is_there(file):
        return file
    known = list_datasets(folders, folder.parent)
    present = [line.name for line in known if not line.where.startswith("no data")]
    here = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    near = did_you_mean(file.name, here) or did_you_mean(dataset, [name for name in present if name != dataset])
    what = (
        f"{folder} has no file {file.name}"
        if folder.is_dir()
        else f"there is no data set {dataset!r} in {folder.parent}"
    )
    name = next(iter(nearest(dataset, [line.name for line in known if line.name not in present])), None)
    own = f"{PREPARE.format(dataset)} --from=FILE --user= --item= --time="
    raise UserError(
        f"{what}{near}; there are {', '.join(present)}.\n"
        + (f"The command that gets one: {PREPARE.format(name)}" if name else f"A table of your own: {own}")
    )


def require_columns(file: Path, columns: Mapping[str, str], names: Iterable[str]) -> None:
    missing = list(dict.fromkeys(name for name in names if name not in columns))
    if missing:
        raise UserError(
            f"{file} lacks {', '.join(missing)}{did_you_mean(missing[0], columns)}; it has {_listed(columns)}"
        )


def _listed(columns: Mapping[str, str]) -> str:
    return shown(", ".join(f"{name}:{kind}" for name, kind in columns.items()), 400)[1:-1]
