"""
recbole_contrec.settings.recbole_models
#######################################
What RecBole itself brings to the registry: its models, found without an import, and the settings that it has for all
or for one of them.
"""

import importlib
import re
from dataclasses import replace
from functools import lru_cache
from pathlib import Path

from recbole_contrec.catalogue.places import properties_file, recbole_folder, recbole_properties
from recbole_contrec.errors import UserError
from recbole_contrec.packages import missing
from recbole_contrec.settings.schema import Constraint, Setting, read_settings

# Keys that RecBole or its command line reads and none of its YAML files declares.
_UNDECLARED = {
    "model": ("str",),
    "dataset": ("str",),
    "config_files": ("str",),
    "properties": ("str",),
    "encoding": ("str", "~"),
    "tail_ratio": ("float",),
    "nproc": ("int",),
    "ip": ("str",),
    "port": ("int", "str"),
    "world_size": ("int",),
    "offset": ("int",),
    "group_offset": ("int",),
    "local_rank": ("int",),
    "mask_ratio": ("float",),
    "ft_ratio": ("float",),
    "reg_weight": ("float",),
}

# Settings that RecBole sets to nothing itself (for some models or data sets), whatever their default is.
_MAY_BE_NOTHING = (
    "train_neg_sample_args",
    "load_col",
    "TIME_FIELD",
    "user_inter_num_interval",
    "item_inter_num_interval",
    "entity_kg_num_interval",
    "relation_kg_num_interval",
)

# What RecBole computes from other settings: no key for a user, although models read it.
_DERIVED = (
    "device",
    "MODEL_TYPE",
    "MODEL_INPUT_TYPE",
    "eval_type",
    "single_spec",
    "valid_neg_sample_args",
    "test_neg_sample_args",
)
_SOURCE_KEY = re.compile(r"""config\[\s*["'](\w+)["']\s*\]""")


# settings


@lru_cache(maxsize=1)
def recbole_settings() -> dict[str, Setting]:
    """The settings that RecBole has for every model. Treat the result as read-only."""
    from recbole.utils import argument_list

    settings = {}
    # sample.yaml comes after overall.yaml, as in RecBole.
    for file in ("overall.yaml", "dataset/sample.yaml"):
        settings.update(read_settings(recbole_properties() / file, tolerant=True))
    for part in ("general", "training", "evaluation", "dataset"):
        for key in getattr(argument_list, f"{part}_arguments"):
            settings.setdefault(key, Setting(key))
    for key, types in _UNDECLARED.items():
        settings.setdefault(key, Setting(key, None, types))
    settings["tail_ratio"] = replace(settings["tail_ratio"], types=("float", "~"), constraint=Constraint.read("> 0"))
    for key in _MAY_BE_NOTHING:
        setting = settings[key]
        settings[key] = replace(setting, types=(*setting.types, "~") if setting.types else ())
    return settings


# models


@lru_cache(maxsize=1)
def recbole_models() -> dict[str, str]:
    """RecBole's models: class name -> module. A module holds the class whose lower-case name it bears, which is how
    RecBole's ``get_model`` finds it; files are read, not imported."""
    found = {}
    for path in sorted((recbole_folder() / "model").glob("*_recommender/*.py")):
        names = re.findall(r"^class (\w+)\(", path.read_text(encoding="utf-8"), re.M)
        for name in names:
            if name.lower() == path.stem:
                found[name] = f"recbole.model.{path.parent.name}.{path.stem}"
    return found


def recbole_source(name: str) -> Path:
    """The file of a RecBole model."""
    return recbole_folder().parent.joinpath(*recbole_models()[name].split(".")).with_suffix(".py")


def recbole_model_settings(name: str) -> dict[str, Setting]:
    """The settings in a RecBole model's YAML, and the keys that only its source names."""
    read = set(_SOURCE_KEY.findall(recbole_source(name).read_text(encoding="utf-8"))) - {*_DERIVED, *recbole_settings()}
    settings = {key: Setting(key) for key in sorted(read)}
    if path := properties_file(recbole_properties(), "model", name):
        settings.update(read_settings(path, tolerant=True))
    return settings


def recbole_model_class(name: str) -> type:
    """The class of a RecBole model, imported.

    Raises:
        UserError: a model that is kept in pickled files, or that needs a package which is not there.
    """
    if ".exlib_recommender." in recbole_models()[name]:
        raise UserError(
            f"RecBole's {name} is trained outside torch and kept in pickled files; that is not supported here"
        )
    try:
        return getattr(importlib.import_module(recbole_models()[name]), name)
    except ImportError as error:
        raise missing(error.name or "a package", f"RecBole's {name}") from error
