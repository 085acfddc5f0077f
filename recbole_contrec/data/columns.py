"""
recbole_contrec.data.columns
############################
What the columns of atomic files must be for what RecBole does with them, whatever named them: headers, a YAML, the
command line. RecBole takes a time that is a category for a time, and counts its numbers.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from recbole_contrec.data.atomic_header import is_there, read_header
from recbole_contrec.data.headers import inter_file, require_columns
from recbole_contrec.errors import UserError, shown
from recbole_contrec.showing import show

IDS = ("USER_ID_FIELD", "ITEM_ID_FIELD")
ENTITIES = ("HEAD_ENTITY_ID_FIELD", "TAIL_ENTITY_ID_FIELD", "RELATION_ID_FIELD", "ENTITY_ID_FIELD")
_NAMES = {
    "USER_ID_FIELD": "user",
    "ITEM_ID_FIELD": "item",
    "TIME_FIELD": "time",
    "LABEL_FIELD": "label",
    **dict.fromkeys(ENTITIES, "knowledge graph's"),
}


def check_columns(config: Mapping[str, Any], dataset: str, folders: Iterable[Path]) -> None:
    """Every column that RecBole will ask for is in its file, and of the type that its part needs.

    Args:
        config: the settings of a run.
        dataset: name of the data set.
        folders: properties folders, for the names in error texts.

    Raises:
        UserError: names the columns that lack, and those that are there; or the column, its type and the right one.
    """
    folder, style = Path(config["data_path"]), (config["field_separator"], config["encoding"])
    first = inter_file(folder, dataset, config["benchmark_filename"], folders)
    columns = read_header(first, *style)
    inter = loaded_columns(config, "inter", columns)
    fields = [config[key] for key in IDS]
    if fields[0] == fields[1]:
        raise UserError(f"USER_ID_FIELD and ITEM_ID_FIELD are both {show(fields[0])}: they must be two columns")
    by_time = (
        config["eval_args"]["order"] == "TO" and not config["benchmark_filename"]
    )  # what comes split is not sorted
    fields += [config["TIME_FIELD"]] if by_time else []
    require_columns(first, columns, [*filter(None, fields), *_named_in(config, "inter")])
    if lost := [name for name in filter(None, fields) if name not in inter]:
        key = "unload_col" if config["load_col"] is None else "load_col"
        must = "leave out" if key == "unload_col" else "hold"
        not_ = " not" if key == "unload_col" else ""
        raise UserError(
            f"{key}: inter must{not_} {must} {', '.join(lost)} as well, it is {show((config[key] or {}).get('inter'))}"
        )
    check_types(first, {name: columns[name] for name in inter}, config, whole=True)
    _check_parts(folder, dataset, first, {name: columns[name] for name in inter}, config, style)
    for suffix, key in (("item", "ITEM_ID_FIELD"), ("user", "USER_ID_FIELD")):
        file = folder / f"{dataset}.{suffix}"
        if _is_loaded(config, suffix) and is_there(file):
            columns = read_header(file, *style)
            names = loaded_columns(config, suffix, columns)
            require_columns(file, columns, [config[key], *_named_in(config, suffix)])
            if config[key] not in names:
                raise UserError(f"load_col: {suffix} must hold {config[key]} as well, it is {show(names)}")
            check_types(file, {name: columns[name] for name in names}, config)
    for suffix in _as_list(config["additional_feat_suffix"]):
        file = folder / f"{dataset}.{suffix}"
        if not is_there(file):
            raise UserError(f"additional_feat_suffix: there is no file {file}")
        require_columns(file, read_header(file, *style), _named_in(config, suffix))


def _check_parts(
    folder: Path, dataset: str, first: Path, wanted: dict[str, str], config: Mapping[str, Any], style: Any
) -> None:
    """The files of a data set that comes split have the same columns: RecBole fills those that lack."""
    for part in list(config["benchmark_filename"] or ())[1:]:
        file = folder / f"{dataset}.{part}.inter"
        if not is_there(file):
            raise UserError(f"benchmark_filename: there is no file {file}")
        columns = read_header(file, *style)
        require_columns(file, columns, wanted)
        for name, kind in wanted.items():
            if columns[name] != kind:
                raise UserError(
                    f"{file}: column {shown(name)} is of type {columns[name]}, in {first.name} it is {kind}"
                )


def check_types(file: Path, columns: dict[str, str], config: Mapping[str, Any], whole: bool = False) -> None:
    """The type of every column that has a part to play.

    Args:
        file: for the error text.
        columns: those that are loaded, with their types.
        config: the settings of a run.
        whole: the file holds interactions, so that it has times, labels and what filters read.

    Raises:
        UserError: names the column, its type and the right one.
    """
    for key in (*IDS, *ENTITIES, *(("TIME_FIELD", "LABEL_FIELD") if whole else ())):
        right = "token" if key.endswith("ID_FIELD") else "float"
        kind = columns.get(config[key])
        if kind not in (None, right):
            raise UserError(
                f"{file}: the {_NAMES[key]} column {shown(config[key])} is of type {kind} and must be {right}: "
                f"write {config[key]}:{right} in its first line, or name another column with --{key}=COLUMN"
            )
    for name in config["threshold"] or () if whole else ():
        if columns.get(name, "float") != "float":
            raise UserError(
                f"{file}: threshold compares numbers, and column {shown(name)} is of type {columns[name]}; it must "
                "be float"
            )


def loaded_columns(config: Mapping[str, Any], suffix: str, columns: Iterable[str]) -> list[str]:
    """Those of some columns that RecBole loads of the file with this suffix, in order of its ``load_col`` and
    ``unload_col``."""
    if not _is_loaded(config, suffix):
        return []
    named, left_out = _named_in(config, suffix), _as_list((config["unload_col"] or {}).get(suffix))
    return [name for name in columns if (not named or name in named) and name not in left_out]


def _is_loaded(config: Mapping[str, Any], suffix: str) -> bool:
    return config["load_col"] is None or suffix in config["load_col"]


def _named_in(config: Mapping[str, Any], suffix: str) -> list[str]:
    """Columns that ``load_col`` names; none where all are loaded."""
    named = (config["load_col"] or {}).get(suffix)
    return [] if named == "*" else _as_list(named)


def _as_list(value: Any) -> list:
    return list(value) if isinstance(value, (list, tuple, set)) else [value] if value else []
