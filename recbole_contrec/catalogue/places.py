"""
recbole_contrec.catalogue.places
################################
Where YAML files lie: folders of the user come first, then this package's own, then RecBole's.
"""

import importlib.util
import os
import re
from itertools import dropwhile, takewhile
from pathlib import Path

from recbole_contrec.compat import require_recbole
from recbole_contrec.errors import UserError


def properties_folders(extra: str | Path | None = None) -> list[Path]:
    """Where YAML files are looked for, first wins: ``extra``, ``./properties``, the package's own.

    Raises:
        UserError: ``extra`` is not a folder.
    """
    if extra is not None and not (str(extra) and Path(extra).is_dir()):
        raise UserError(f"--properties={extra}: there is no such folder")
    folders = [Path(extra)] if extra is not None else []
    folders += [folder for folder in (Path("properties").absolute(), package_properties()) if folder.is_dir()]
    return list({folder.resolve(): folder for folder in reversed(folders)}.values())[::-1]


def package_properties() -> Path:
    """The package's own folder: inside an installed wheel, beside the package in a checkout."""
    inside = Path(__file__).parents[1] / "properties"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "properties"


def recbole_folder() -> Path:
    """Where RecBole is installed; it is not imported.

    Raises:
        UserError: it is not installed.
    """
    require_recbole()
    found = importlib.util.find_spec("recbole")
    assert found and found.submodule_search_locations  # as require_recbole says
    return Path(found.submodule_search_locations[0])


def recbole_properties() -> Path:
    """The folder of RecBole's own YAML files."""
    return recbole_folder() / "properties"


def properties_file(folder: Path, kind: str, name: str) -> Path | None:
    """The file ``KIND/NAME.yaml`` of a properties folder; None where there is none.

    Raises:
        UserError: something is there that cannot be read.
    """
    if not re.fullmatch(r"[\w.+-]{1,200}", name):
        return None
    return file_if_there(Path(folder) / kind / f"{name}.yaml")


def file_if_there(path: Path) -> Path | None:
    """The path where something is there. What cannot be read must not be passed over for a file of the next folder."""
    try:
        if path.is_file():
            return path
        if not os.path.lexists(path):
            return None
        why = "it is a folder" if path.is_dir() else "it is no file"
    except OSError as error:
        why = error.strerror or str(error)
    raise UserError(f"cannot read {path}: {why}")


def first_comment(path: Path) -> str:
    """The description of a YAML file: the first sentence of its first comment, on one line; empty where the file cannot
    be read."""
    try:
        lines = path.read_text(encoding="utf-8-sig", errors="replace").splitlines()
    except OSError:
        return ""
    comment = takewhile(lambda line: line.startswith("#"), dropwhile(lambda line: not line.startswith("#"), lines))
    first, end, _ = " ".join(line.lstrip("# ").strip() for line in comment).partition(". ")
    return first + end.strip()
