"""
recbole_contrec.cli.lists
#########################
``--list-models``, ``--list-datasets`` and ``--settings``: what there is to choose from.
"""

import argparse
from collections.abc import Sequence

from recbole_contrec.errors import UserError


def show_lists(options: argparse.Namespace, settings: Sequence[str]) -> int:
    """Print the lists that are asked for.

    Args:
        options: of training.
        settings: the other arguments; ``--data_path`` is the only one that a list reads.

    Raises:
        UserError: another setting, or ``--settings`` without a model.
    """
    from recbole_contrec.catalogue.datasets import DATA_PATH, list_datasets
    from recbole_contrec.catalogue.places import properties_folders
    from recbole_contrec.settings.registry import find_model, list_models
    from recbole_contrec.showing import show

    if other := [argument for argument in settings if not argument.startswith("--data_path=")]:
        raise UserError(f"{other[0]}: the lists read --model, --properties and --data_path only")
    folders = properties_folders(options.properties)
    if options.list_models:
        for name, where, description in list_models(folders):
            print(f"{name:<24} {where:<18} {description}")
    if options.list_datasets:
        data_path = settings[0].split("=", 1)[1] if settings else DATA_PATH
        for name, where in list_datasets(folders, data_path):
            print(f"{name:<24} {where}")
    if options.settings:
        if options.model is None:
            raise UserError("--settings needs --model=NAME")
        for setting in find_model(options.model, folders).settings.values():
            default = setting.default if isinstance(setting.default, str) else show(setting.default)
            allowed = f" ({setting.expected()})" if setting.expected() else ""
            print(f"--{setting.key}={default}{allowed}\n      {setting.meaning}")
    return 0
