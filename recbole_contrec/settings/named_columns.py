"""
recbole_contrec.settings.named_columns
######################################
Columns that settings name: filters, labels, features, aliases. Each must be loaded, and of a type that the setting
reads.
"""

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from recbole.utils import InputType, ModelType

from recbole_contrec.data.atomic_header import is_there, read_header
from recbole_contrec.data.columns import loaded_columns
from recbole_contrec.data.headers import inter_file
from recbole_contrec.data.splits import check_history_column
from recbole_contrec.errors import UserError, did_you_mean, shown
from recbole_contrec.settings.parts import SUFFIXES, check_interval_and_type, named_columns
from recbole_contrec.settings.readers import learns_from_labels
from recbole_contrec.showing import show

logger = logging.getLogger("recbole_contrec")

_KINDS = {
    **dict.fromkeys(("threshold", "numerical_features", "normalize_field", "discretization"), "float"),
    **dict.fromkeys(("alias_of_user_id", "alias_of_item_id", "alias_of_entity_id", "alias_of_relation_id"), "token"),
}
ITEM_COLUMNS = ("selected_features", "item_attribute")  # GRU4RecF, SASRecF, FDSA and S3Rec read item columns


def check_named_columns(config: Any, dataset: str, folders: Iterable[Path]) -> None:
    """Every column that a setting names is loaded and holds what the setting reads.

    Args:
        config: the settings of a run.
        dataset: name of the data set.
        folders: properties folders, for the names in error texts.

    Raises:
        UserError: the setting, the column, and those that there are.
    """
    files = headers(config, dataset, folders)
    loaded = {
        suffix: {name: columns[name] for name in loaded_columns(config, suffix, columns)}
        for suffix, columns in files.items()
    }
    every = {name: kind for columns in reversed(list(loaded.values())) for name, kind in columns.items()}
    for key, names in named_columns(config.final_config_dict).items():
        for name in names:
            _require(key, name, every, files)
            if not every[name].startswith(_KINDS.get(key, "")):
                raise UserError(
                    f"{key}: column {shown(name)} is of type {every[name]}, and {key} reads {_KINDS[key]} columns"
                )
    for name, wanted in (config["val_interval"] or {}).items():
        check_interval_and_type(name, every[name], wanted)
    for name in config["seq_len"] or ():
        if not every[name].endswith("_seq"):
            raise UserError(f"seq_len: column {shown(name)} is of type {every[name]}, which has no length")
    _check_item_columns(config)
    _check_made_columns(config, every)
    _check_unused(config, loaded)
    _check_files(config, files, Path(config["data_path"]) / dataset)
    _check_twice(config, loaded)
    _check_numbers(config, loaded)
    _check_labels(config, every, loaded["inter"])
    if config["benchmark_filename"] and config["MODEL_TYPE"] == ModelType.SEQUENTIAL:
        history = config["ITEM_ID_FIELD"] + config["LIST_SUFFIX"]
        where = inter_file(Path(config["data_path"]), dataset, config["benchmark_filename"], folders)
        check_history_column(config, loaded["inter"].get(history), list(loaded["inter"]), where)


def headers(config: Any, dataset: str, folders: Iterable[Path]) -> dict[str, dict[str, str]]:
    """Columns and types of every file of a data set that RecBole may load, by suffix."""
    folder, style = Path(config["data_path"]), (config["field_separator"], config["encoding"])
    extra = config["additional_feat_suffix"] or ()
    found = {"inter": read_header(inter_file(folder, dataset, config["benchmark_filename"], folders), *style)}
    for suffix in dict.fromkeys((*SUFFIXES[1:], *([extra] if isinstance(extra, str) else extra))):
        if is_there(file := folder / f"{dataset}.{suffix}"):
            found[suffix] = read_header(file, *style)
        elif suffix in extra:
            raise UserError(f"additional_feat_suffix: there is no file {file}")
    return found


def item_columns_asked_for(values: Mapping[str, Any], columns: Mapping[str, str], file: Path) -> list[str]:
    """Columns of the ``.item`` file that settings of the model name.

    Args:
        columns: of the file, with their types.

    Raises:
        UserError: one that is not there, with those that are.
    """
    asked = [
        (key, name)
        for key in ITEM_COLUMNS
        if key in values
        for name in ([values[key]] if isinstance(values[key], str) else values[key] or ())
    ]
    for key, name in asked:
        if name not in columns:
            raise UserError(
                f"{key}: {file} has no column {shown(str(name))}{did_you_mean(str(name), columns)}; it has "
                f"{_listed(columns)}: set --{key}=['COLUMN']"
            )
    return [name for _, name in asked]


def _require(key: str, name: str, every: dict[str, str], files: dict[str, dict[str, str]]) -> None:
    if name in every:
        return
    for suffix, columns in files.items():
        if name in columns:
            raise UserError(
                f"{key}: column {shown(name)} of the .{suffix} file is not loaded: name it in load_col, for instance "
                f"--load_col={{'{suffix}': [..., '{name}']}}"
            )
    raise UserError(f"{key}: there is no column {shown(name)}{did_you_mean(name, every)}; loaded are {_listed(every)}")


def _check_made_columns(config: Any, every: Mapping[str, Any]) -> None:
    """Columns that RecBole makes would take the place of others of the same name without a word."""
    roles = [config[key] for key in ("USER_ID_FIELD", "ITEM_ID_FIELD", "TIME_FIELD") if config[key]]
    if len({*roles}) < len(roles):
        raise UserError(
            f"USER_ID_FIELD, ITEM_ID_FIELD and TIME_FIELD must be three columns; they are {', '.join(roles)}"
        )
    made = []
    if config["MODEL_TYPE"] == ModelType.SEQUENTIAL and not config["benchmark_filename"]:
        made = [(name + config["LIST_SUFFIX"], "LIST_SUFFIX") for name in every]
        made.append((config["ITEM_LIST_LENGTH_FIELD"], "ITEM_LIST_LENGTH_FIELD"))
    if config["MODEL_INPUT_TYPE"] == InputType.PAIRWISE:
        made.append((config["NEG_PREFIX"] + config["ITEM_ID_FIELD"], "NEG_PREFIX"))
    taken = {*every}
    for name, key in made:
        if name in taken:
            raise UserError(
                f"{key}={show(config[key])}: RecBole would make a column {shown(name)}, and there is one of this "
                "name: choose another"
            )
        taken.add(name)


def _check_item_columns(config: Any) -> None:
    """Models of item columns read some."""
    for key in ITEM_COLUMNS:
        if key in config.entry.values and config[key] == []:
            raise UserError(f"{key}=[]: {config.model} reads columns of items: set --{key}=['COLUMN']")


def _check_labels(config: Any, every: Mapping[str, Any], interactions: Mapping[str, Any]) -> None:
    """Whoever learns from labels, or is rated by them, finds some."""
    if config["threshold"] or config["LABEL_FIELD"] in every or config["benchmark_filename"]:
        return
    numbers = [name for name, kind in interactions.items() if kind == "float" and name != config["TIME_FIELD"]]
    if learns_from_labels(config) or "labeled" in config["eval_args"]["mode"].values():
        raise UserError(
            f"{config.model} needs labels, and no column {config['LABEL_FIELD']} is loaded: say from which value on an "
            f"interaction counts, for instance --threshold={{'{(numbers or ['rating'])[0]}': 4}}"
        )


def _check_unused(config: Any, loaded: Mapping[str, Mapping[str, str]]) -> None:
    for suffix, names in (config["unused_col"] or {}).items():
        for name in names:
            if name not in loaded.get(suffix, ()):
                raise UserError(
                    f"unused_col: no column {shown(name)} of the .{suffix} file is loaded; loaded are "
                    f"{_listed(loaded.get(suffix, {})) or 'none'}"
                )
            if name in (config["USER_ID_FIELD"], config["ITEM_ID_FIELD"], config["LABEL_FIELD"]):
                raise UserError(f"unused_col: {show(name)} is needed: a model is trained on it")


def _check_files(config: Any, files: Mapping[str, Mapping[str, str]], path: Path) -> None:
    """What ``load_col`` and ``unload_col`` name is there; of ``load_col`` where the user has written it, not a YAML of
    the data set."""
    for suffix in config["load_col"] or () if "load_col" in config.external_config_dict else ():
        if suffix not in files:
            raise UserError(f"load_col: there is no file {path}.{suffix}: leave {suffix} out")
    for suffix, names in (config["unload_col"] or {}).items():
        for name in [names] if isinstance(names, str) else names or ():
            if name not in files.get(suffix, ()):
                raise UserError(
                    f"unload_col: the .{suffix} file has no column "
                    f"{shown(name)}{did_you_mean(name, files.get(suffix, ()))}; it has "
                    f"{_listed(files.get(suffix, {})) or 'none'}"
                )


def _check_twice(config: Any, loaded: Mapping[str, Mapping[str, str]]) -> None:
    """A name stands for one column, but for the ids by which files are joined: RecBole keeps one column of a name."""
    joins = {config["USER_ID_FIELD"]: ("inter", "user"), config["ITEM_ID_FIELD"]: ("inter", "item")}
    seen: dict[str, str] = {}
    for suffix, columns in loaded.items():
        for name in columns if suffix != "link" else ():
            if seen.setdefault(name, suffix) != suffix and suffix not in joins.get(name, ()):
                raise UserError(
                    f"column {shown(name)} is loaded of the .{seen[name]} and of the .{suffix} file: "
                    f"rename one of them, or name in load_col what shall be loaded"
                )


def _check_numbers(config: Any, loaded: Mapping[str, Mapping[str, str]]) -> None:
    """RecBole's layers read those columns of numbers only that ``numerical_features`` names."""
    named = config["numerical_features"] or ()
    if "selected_features" in config.final_config_dict:
        for name in config["selected_features"] or ():
            kind = loaded.get("item", {}).get(name, "")
            if kind.startswith("float") and name not in named:
                raise UserError(
                    f"selected_features: column {shown(name)} is of type {kind}, and {config.model} reads "
                    f"only those numbers that numerical_features names: set --numerical_features=['{name}']"
                )
    if config["MODEL_TYPE"] == ModelType.CONTEXT:
        known = (
            config["TIME_FIELD"],
            config["LABEL_FIELD"],
            *(config["threshold"] or ()),
            *(config["val_interval"] or ()),
        )
        idle = [
            name
            for columns in loaded.values()
            for name, kind in columns.items()
            if kind.startswith("float") and name not in (*named, *known)
        ]
        if idle:
            logger.warning(
                "%s does not read the columns %s: it reads those numbers only that numerical_features names",
                config.model,
                ", ".join(idle[:8]) + (", ..." if len(idle) > 8 else ""),
            )


def _listed(columns: Mapping[str, str]) -> str:
    return shown(", ".join(f"{name}:{kind}" for name, kind in columns.items()), 400)[1:-1]
