"""
recbole_contrec.settings.classes
################################
From ``package.module:Class`` in a YAML file to the class, with errors that say what is wrong.
"""

import importlib
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from recbole_contrec.errors import UserError, did_you_mean
from recbole_contrec.memory import out_of_memory

# What a class under each key must be; imported on use only.
_BASES = {
    "model_class": ("recbole.model.abstract_recommender", "AbstractRecommender", "RecBole recommender"),
    "dataset_class": ("recbole.data.dataset", "Dataset", "RecBole data set"),
    "trainer_class": ("recbole.trainer", "AbstractTrainer", "RecBole trainer"),
}


def load_class(text: str, key: str = "model_class") -> type:
    """The class that ``package.module:Class`` names; modules in the working directory are found as well.

    Args:
        text: module and class.
        key: ``model_class``, ``dataset_class`` or ``trainer_class``: what the class must be.

    Raises:
        UserError: another form, no such module or class, a class of another kind, or a module that fails while it is
            imported, whatever it raises; names the line.
    """
    module_name, colon, class_name = str(text).partition(":")
    if not (colon and all(part.isidentifier() for part in [*module_name.split("."), class_name])):
        raise UserError(f"{str(text)!r:.200} must have the form package.module:Class")
    base_module, base_name, kind = _BASES[key]
    base = getattr(importlib.import_module(base_module), base_name)
    with _told(module_name):
        module = _import(module_name)
        found = getattr(module, class_name, None)
        classes = [name for name in dir(module) if _is_kind(getattr(module, name, None), base)] if found is None else []
        fits = found is not None and _is_kind(found, base)
    if found is None:
        raise UserError(f"module {module_name} has no class {class_name}{did_you_mean(class_name, classes)}")
    if not fits:
        raise UserError(f"{text} is not a {kind}: it must be a subclass of {base_module}.{base_name}")
    return found


def _is_kind(found: Any, base: type) -> bool:
    return isinstance(found, type) and base in found.__mro__  # not issubclass, which a metaclass can change


def _import(name: str) -> ModuleType:
    try:
        with _working_directory_on_path():
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name and (name == error.name or name.startswith(error.name + ".")):
            raise UserError(f"there is no module {error.name}, neither installed nor in {Path.cwd()}") from error
        if error.name is None:
            raise
        raise UserError(f"module {name} needs {error.name}, which is not installed{_line_in(name, error)}") from error
    except SyntaxError as error:
        where = f": {error.filename}, line {error.lineno}" if error.filename and error.lineno else f": {error.msg}"
        raise UserError(f"module {name} is not valid Python{where}") from error


@contextmanager
def _told(name: str) -> Iterator[None]:
    """Whatever a module raises while it is imported or asked for a name, ``SystemExit`` as well, as one line."""
    try:
        yield
    except (UserError, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise UserError(f"module {name} cannot be imported: {_what(error)}{_line_in(name, error)}") from error


@contextmanager
def faults_of(entry: Any) -> Iterator[None]:
    """Whatever goes wrong in the classes of a model that a user's file names, while they are built or used,
    ``SystemExit`` as well, as one line. What is wrong with input or machine passes, and so do faults of other models,
    which are ours.

    Args:
        entry: :class:`~recbole_contrec.settings.registry.ModelEntry`.

    Raises:
        UserError: names the model, the error, and the line in the module of the model.
    """
    try:
        yield
    except (UserError, KeyboardInterrupt, FloatingPointError, OSError):
        raise
    except BaseException as error:
        if not entry.of_user or isinstance(error, Exception) and out_of_memory(error):
            raise
        raise UserError(
            f"model {entry.name}: {_what(error)}{_line_in(entry.model_class.__module__, error)}; --debug shows "
            "the traceback"
        ) from error


def _what(error: BaseException) -> str:
    text = " ".join(_text_of(error).split())
    return f"{type(error).__name__}: {text:.300}" if text else type(error).__name__


def _text_of(error: BaseException) -> str:
    try:
        return str(error)
    except Exception:  # a __str__ of the user's own
        return ""


def _line_in(name: str, error: BaseException) -> str:
    """`` (FILE, line N)``: the line of the module itself, else the last line of the user's."""
    lines = [
        (frame.filename, frame.lineno)
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith("<frozen") and Path(frame.filename) not in (Path(__file__), _IMPORTLIB)
    ]
    path = Path(*name.split("."))
    own = [
        place
        for place in lines
        if Path(place[0]).with_suffix("").parts[-len(path.parts) :] == path.parts
        or Path(place[0]).parent.name == path.name
    ]
    file, line = (own or lines or [("", None)])[-1]
    return f" ({file}, line {line})" if line else ""


_IMPORTLIB = Path(importlib.__file__)


@contextmanager
def _working_directory_on_path() -> Iterator[None]:
    """As under ``python -m``, but for one import only: files beside the user must not shadow modules later on."""
    here = str(Path.cwd())
    sys.path.insert(0, here)
    importlib.invalidate_caches()  # the module may be younger than Python's list of the folder
    try:
        yield
    finally:
        if here in sys.path:  # unless the module has taken it away itself
            sys.path.remove(here)
