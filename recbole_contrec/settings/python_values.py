"""
recbole_contrec.settings.python_values
######################################
Settings that are given as a dictionary of Python values, read as a YAML file would give them, and written for JSON.
"""

from collections.abc import Mapping
from copy import deepcopy
from pathlib import PurePath
from typing import Any

import numpy as np

from recbole_contrec.errors import UserError
from recbole_contrec.showing import show

# Arguments beside the settings: RecBole knows their names as keys, and nothing reads them in a dictionary.
_OWN_ARGUMENTS = {"config_files": "config_file_list=[...]", "properties": "properties=..."}


def python_settings(
    settings: Mapping[str, Any] | None, model: str | type | None = None, dataset: str | None = None
) -> dict[str, Any]:
    """A copy of settings that are given as Python values, as a YAML file would give them: numbers and arrays of numpy
    are Python's, tuples lists, and paths texts.

    Args:
        settings: by key.
        model, dataset: as they are named beside the settings; None where the settings name them.

    Raises:
        UserError: they are no dictionary, or name what has an argument of its own.
    """
    if settings is not None and not isinstance(settings, Mapping):
        raise UserError(
            f"settings={show(settings)}: must be a dictionary such as {{'epochs': 3}}; what has the form '--epochs=3' "
            "is given as arguments=[...]"
        )
    given: dict[str, Any] = without_numpy(dict(settings or {}))
    for key, argument in _OWN_ARGUMENTS.items():
        if key in given:
            raise UserError(f"settings: {key} is no setting: give it as {argument}")
    named = {"model": model if isinstance(model, str) else getattr(model, "__name__", None), "dataset": dataset}
    for key, name in named.items():
        if name is not None and given.get(key, name) != name:
            raise UserError(f"settings: {key}={show(given[key])}, and the {key} is {name}: name it once")
    return given


def without_numpy(value: Any) -> Any:
    """A copy in which numbers and arrays of numpy, as searches hand them over, are Python's, tuples lists, and paths
    texts: RecBole and we look for these types."""
    if isinstance(value, dict):
        return {key: without_numpy(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_numpy(part) for part in value]
    if isinstance(value, PurePath):
        return str(value)
    return value.tolist() if isinstance(value, (np.generic, np.ndarray)) else deepcopy(value)


def plain(value: Any) -> Any:
    """A value as JSON has it: numbers of numpy, tuples, paths and enums become plain ones."""
    if isinstance(value, dict):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    return value.item() if hasattr(value, "item") else str(value)
