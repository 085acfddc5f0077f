"""
recbole_contrec.storage.folders
###############################
A folder for every run: made by it alone, whoever else starts in the same second, and gone again where nothing came of
it.
"""

import itertools
import re
import threading
from pathlib import Path

from recbole_contrec import processes
from recbole_contrec.errors import UserError
from recbole_contrec.files import check_folder, clear_parts
from recbole_contrec.storage import lock

LAST = "last.safetensors"  # what a run is resumed from
STAGES = "stages"  # finished stages of all runs lie beside the runs under this name
# Names that a file system of Windows keeps for devices, with any ending.
_DEVICES = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\..*)?", re.I)


def check_run_name(name: str) -> None:
    """A run's name is that of a folder inside ``checkpoint_dir``.

    Raises:
        UserError: it would lie elsewhere, cannot be a folder, or has another meaning.
    """
    why = None
    if not name.strip(". "):
        why = "it is empty, or nothing but dots and blanks"
    elif re.search(r"[/\\:\x00-\x1f\x7f]", name):
        why = "a run lies inside --checkpoint_dir, so its name holds no /, \\, : or control characters"
    elif name.lower() == STAGES or _DEVICES.fullmatch(name):
        why = "this name is reserved"
    if why:
        raise UserError(f"--run_name={name!r:.100}: {why}")


def claim(parent: Path, name: str | None, made_up: str) -> Path:
    """Make the folder of a run, which no other run has.

    Args:
        parent: ``checkpoint_dir``.
        name: as the user wants it, or None.
        made_up: the name otherwise; with a number behind it where that is taken.

    Raises:
        UserError: the folder that the user wants is taken, or cannot be made.
    """
    return processes.from_first(lambda: _claim(Path(parent), name, made_up))


def _claim(parent: Path, name: str | None, made_up: str) -> Path:
    if name is not None:
        check_run_name(name)
    if name is not None and (parent / name).exists() and not free(parent / name):
        raise taken(parent / name)
    check_folder(parent / (name or made_up), "--checkpoint_dir" if name is None else "--run_name")
    if name is not None:
        if not _take(parent / name):
            raise taken(parent / name)
        return parent / name
    return next(
        folder
        for number in itertools.count(1)
        if _take(folder := parent / (made_up if number == 1 else f"{made_up}-{number}"))
    )


def taken(folder: Path) -> UserError:
    """The error of a name that another run has."""
    goes_on = f"go on with it by --resume={folder}, " if (folder / LAST).is_file() else ""
    return UserError(
        f"--run_name={folder.name}: {folder} is there already, and a run does not write over another: choose "
        f"another name, {goes_on}or remove it"
    )


def free(folder: Path) -> bool:
    """Whether a run may have this folder: there is none, or one that a killed process left before its first
    checkpoint."""
    return not folder.exists() or folder.is_dir() and all(path.name.endswith(".part") for path in folder.iterdir())


def release(folder: Path) -> None:
    """Let go of a run's folder; where nothing has been saved in it, it goes, and so do the folders above that were made
    for it."""
    lock.release(folder)
    if not processes.is_first() or not free(folder):
        return
    clear_parts(folder)
    for place in (folder, *_made.pop(folder, ())):
        try:
            place.rmdir()
        except OSError:
            return


_made: dict[Path, list[Path]] = {}  # folder of a run -> folders above it that were made with it, the nearest first
_one_thread = threading.Lock()  # locks of folders are the same to all threads


def _take(folder: Path) -> bool:
    with _one_thread:
        try:
            return any(
                _try(folder) for _ in range(3)
            )  # what we make may go at once with the failed start of another run
        except FileExistsError:
            return False
        except OSError as error:
            raise UserError(f"cannot make the folder {folder}: {error.strerror or error}") from error


def _try(folder: Path) -> bool:
    """Take a folder; False where it has gone meanwhile.

    Raises:
        FileExistsError: another run has it.
    """
    missing = [place for place in folder.parents if not place.exists()]
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        try:
            folder.mkdir()
        except FileExistsError:
            if not free(folder) or not lock.AVAILABLE or lock.held(folder):
                raise
        lock.acquire(folder)
    except FileNotFoundError:
        return False
    except UserError:  # another process was faster
        raise FileExistsError from None
    if not free(folder):
        lock.release(folder)
        raise FileExistsError
    clear_parts(folder)
    _made[folder] = missing
    return folder.is_dir()
