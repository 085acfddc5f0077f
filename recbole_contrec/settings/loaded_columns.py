"""
recbole_contrec.settings.loaded_columns
#######################################
Columns that RecBole must load because a setting asks for them, beside those that the YAML of a data set lists.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from recbole.utils import ModelType

from recbole_contrec.catalogue.datasets import dataset_folder
from recbole_contrec.data.atomic_header import is_there, read_header
from recbole_contrec.data.headers import inter_file
from recbole_contrec.settings.named_columns import ITEM_COLUMNS, item_columns_asked_for


def fields_asked_for(values: Mapping[str, Any]) -> list[str]:
    """Columns that filters and labels read."""
    return list(dict.fromkeys(name for key in ("threshold", "val_interval") for name in values.get(key) or ()))


def load_columns(
    load_col: dict[str, Any], asked: Mapping[str, Any], data_path: str, dataset: str, folders: Sequence[Path]
) -> list[str]:
    """Add to ``load_col`` what other settings read.

    Args:
        load_col: the setting, changed in place.
        asked: all settings by key.
        data_path: the folder of the data set folders.
        dataset: name of the data set.
        folders: of properties.

    Returns:
        list: columns of histories that come with their rows, in ids of items.
    """
    if load_col.get("inter") and load_col["inter"] != "*":
        load_col["inter"] = list(dict.fromkeys([*load_col["inter"], *fields_asked_for(asked)]))
    folder = dataset_folder(data_path, dataset)
    histories: list[str] = []
    if asked.get("benchmark_filename") and asked["MODEL_TYPE"] == ModelType.SEQUENTIAL and load_col.get("inter") != "*":
        histories = _columns_of_histories(asked, folder, dataset, folders)
        if histories:
            load_col["inter"] = list(dict.fromkeys([*load_col["inter"], *histories]))
    items = folder / f"{dataset}.item"
    if load_col.get("item") != "*" and any(asked.get(key) for key in ITEM_COLUMNS) and is_there(items):
        header = read_header(items, asked["field_separator"], asked.get("encoding"))
        columns = item_columns_asked_for(asked, header, items)
        load_col["item"] = list(dict.fromkeys([asked["ITEM_ID_FIELD"], *(load_col.get("item") or ()), *columns]))
    for suffix in asked.get("unload_col") or ():  # all but these
        load_col[suffix] = "*"
    return histories


def _columns_of_histories(asked: Mapping[str, Any], folder: Path, dataset: str, folders: Sequence[Path]) -> list[str]:
    """Rows that come split bring the history of their target."""
    history = asked["ITEM_ID_FIELD"] + asked["LIST_SUFFIX"]
    file = inter_file(folder, dataset, asked["benchmark_filename"], folders)
    return [history] if history in read_header(file, asked["field_separator"], asked.get("encoding")) else []
