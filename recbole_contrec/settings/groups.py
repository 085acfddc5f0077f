"""
recbole_contrec.settings.groups
###############################
Settings that several models share are in one file, ``properties/groups/NAME.yaml``. The YAML file of a model names the
groups that it includes, ``include: [histories, vectors]``, and states its own settings and the values that differ.
"""

from collections.abc import Iterable
from pathlib import Path

from recbole_contrec.errors import UserError, did_you_mean
from recbole_contrec.settings.yaml_file import read_mapping

INCLUDE = "include"
FOLDER = "groups"


def included(path: Path, folders: Iterable[Path]) -> list[Path]:
    """The files of the groups that a YAML file includes, in its order. A file in an earlier folder counts.

    Args:
        path: the YAML file of a model.
        folders: folders of properties, as :func:`~recbole_contrec.catalogue.places.properties_folders` finds them.

    Raises:
        UserError: no list of names, a name twice, or no such group; names file and line.
    """
    file = read_mapping(path)
    if INCLUDE not in file.value:
        return []
    names, folders = file.value[INCLUDE], list(folders)
    where = f"{path}, line {file.entries[INCLUDE].key.start_mark.line + 1}: {INCLUDE}"
    if not (isinstance(names, list) and names and all(isinstance(name, str) for name in names)):
        raise UserError(f"{where}: must be a list of groups, such as [histories, vectors]")
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"{where}: names {twice[0]} twice")
    known = list_groups(folders)
    for name in names:
        if name not in known:
            raise UserError(
                f"{where}: there is no group {name!r}{did_you_mean(name, known)}; there are {', '.join(known)}"
            )
    return [known[name] for name in names]


def list_groups(folders: Iterable[Path]) -> dict[str, Path]:
    """All groups by name, and their files."""
    found: dict[str, Path] = {}
    for folder in folders:
        for path in sorted((Path(folder) / FOLDER).glob("*.yaml")):
            found.setdefault(path.stem, path)
    return dict(sorted(found.items()))


def shown_name(path: Path) -> str:
    """A YAML file in an error text: ``groups/llm.yaml`` for a group, else its name."""
    return f"{FOLDER}/{path.name}" if path.parent.name == FOLDER else path.name
