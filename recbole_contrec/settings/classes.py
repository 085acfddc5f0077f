"""
recbole_contrec.settings.classes
################################
From ``package.module:Class`` in a YAML file to the class, with errors that say what is wrong.
"""

import importlib
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator

from recbole_contrec.errors import UserError, did_you_mean

# What a class under each key must be; imported on use only.
_BASES = {"model_class": ("recbole.model.abstract_recommender", "AbstractRecommender", "RecBole recommender"),
          "dataset_class": ("recbole.data.dataset", "Dataset", "RecBole data set"),
          "trainer_class": ("recbole.trainer", "AbstractTrainer", "RecBole trainer")}


def load_class(text: str, key: str = "model_class") -> type:
    """The class that ``package.module:Class`` names; modules in the working directory are found as well.

    Args:
        text: module and class.
        key: ``model_class``, ``dataset_class`` or ``trainer_class``: what the class must be.

    Raises:
        UserError: another form, no such module or class, or a class of another kind.
    """
    module_name, colon, class_name = str(text).partition(":")
    if not (colon and module_name and class_name.isidentifier()):
        raise UserError(f"{text!r} must have the form package.module:Class")
    module = _import(module_name)
    found = getattr(module, class_name, None)
    base_module, base_name, kind = _BASES[key]
    base = getattr(importlib.import_module(base_module), base_name)
    classes = [name for name, value in vars(module).items() if isinstance(value, type) and issubclass(value, base)]
    if found is None:
        raise UserError(f"module {module_name} has no class {class_name}{did_you_mean(class_name, classes)}")
    if not (isinstance(found, type) and issubclass(found, base)):
        raise UserError(f"{text} is not a {kind}: it must be a subclass of {base_module}.{base_name}")
    return found


def _import(name: str):
    try:
        with _working_directory_on_path():
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(error.name + ".")):
            raise UserError(f"there is no module {error.name}, neither installed nor in {Path.cwd()}") from error
        raise UserError(f"module {name} needs {error.name}, which is not installed") from error
    except SyntaxError as error:
        raise UserError(f"module {name} is not valid Python: {error.filename}, line {error.lineno}") from error


@contextmanager
def _working_directory_on_path() -> Iterator[None]:
    """As under ``python -m``, but for one import only: files beside the user must not shadow modules later on."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    importlib.invalidate_caches()  # the module may be younger than Python's list of the folder
    try:
        yield
    finally:
        sys.path.remove(here)
