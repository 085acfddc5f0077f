"""
recbole_contrec.catalogue.datasets
##################################
The data sets that there are, and where their files lie.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from recbole_contrec.catalogue.places import first_comment, properties_file, recbole_folder
from recbole_contrec.errors import UserError, shown

BUNDLED = "ml-100k"  # RecBole ships it
DATA_PATH = "dataset"  # where data lie unless the user says otherwise


class ListedDataset(NamedTuple):
    """A line of the list of data sets; ``where`` starts with ``no data`` where only a YAML is known."""

    name: str
    where: str


def check_name(name: str, what: str) -> None:
    """A name that becomes that of folders and files is no path, and short enough for a folder of a run.

    Raises:
        UserError: says what is wrong.
    """
    if not name.strip(". ") or re.search(r"[/\\\x00-\x1f\x7f]", name):
        raise UserError(
            f"{shown(name)} cannot be the name of a {what}: no /, \\ or control characters, and not dots alone; "
            "--data_path names the folder"
        )
    if len(name.encode(errors="replace")) > 150:
        raise UserError(f"{shown(name)} cannot be the name of a {what}: it is longer than 150 bytes")


def dataset_folder(data_path: str | Path, name: str) -> Path:
    """Where a data set's files are: RecBole's own ml-100k, unless the user names a folder that holds another."""
    own = Path(data_path) / name
    if name == BUNDLED and (Path(data_path) == Path(DATA_PATH) or not (own / f"{name}.inter").is_file()):
        return recbole_folder() / "dataset_example" / name
    return own


def list_datasets(folders: Iterable[Path], data_path: str | Path) -> list[ListedDataset]:
    """Data sets by name: folders ``NAME/NAME.inter``, those with a YAML file only, and RecBole's ml-100k."""
    found: dict[str, str] = {}
    for folder in folders:
        for path in sorted(Path(folder).glob("dataset/*.yaml")):
            found.setdefault(path.stem, f"no data yet: {first_comment(path)}".rstrip(": "))
    for path in sorted(Path(data_path).glob("*/*.inter")):
        name = path.parent.name
        if path.stem == name or path.stem.startswith(f"{name}."):  # NAME.train.inter: pre-split
            found[name] = str(path.parent)
    found[BUNDLED] = "bundled with RecBole"
    return [ListedDataset(name, where) for name, where in sorted(found.items())]


def dataset_files(name: str, folders: Iterable[Path]) -> list[Path]:
    """YAML files of a data set in these folders; the one that counts most comes last."""
    return [path for folder in reversed(list(folders)) if (path := properties_file(folder, "dataset", name))]
