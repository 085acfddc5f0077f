"""
recbole_contrec.files
#####################
Files that are whole or absent, whoever else writes the same ones, what killed processes left of theirs, and whether a
place can be written to, asked before the work is done.
"""

import os
import re
import shutil
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path

import psutil

from recbole_contrec.errors import UserError

_HOST = re.sub(r"[^\w-]", "-", socket.gethostname())[:40]
_PART = re.compile(r".+\.(?P<pid>\d{1,12})(?:@(?P<host>[\w-]+))?\.part")


def part_of(path: Path) -> Path:
    """The temporary name of a file that this process is writing: another process has its own."""
    return path.with_name(f"{path.name}.{os.getpid()}@{_HOST}.part")


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file that appears when it is complete; one that is there stays whole until then.

    Args:
        path: of the file; its folders are made.
        write: writes to the path that it is given.

    Raises:
        OSError: it cannot be written.
    """
    path = Path(os.path.realpath(path))  # a link stays a link
    temporary = part_of(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def clear_parts(folder: Path) -> None:
    """Remove temporary files and folders that processes of this machine, dead by now, have left in a folder."""
    for path in Path(folder).glob("*.part"):
        found = _PART.fullmatch(path.name)
        if found and found["host"] in (None, _HOST) and not psutil.pid_exists(int(found["pid"])):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)


def check_file(path: str | Path, setting: str, makes_folders: bool = True) -> None:
    """Whether a file can be written: an unwritable place shall not be found after hours of training. Nothing is left
    behind.

    Args:
        path: as the user gave it.
        setting: that names it, for the error.
        makes_folders: whether the folders above it are made with it; else they must be there.

    Raises:
        UserError: a folder, no regular file, a name that cannot be, or a folder that cannot be written to.
    """
    text = str(path)
    name = os.path.basename(text)
    if name in ("", ".", ".."):
        raise _not_there(text, setting, "it names no file")
    if not makes_folders and not os.path.isdir(os.path.dirname(text) or "."):
        raise _not_there(text, setting, f"there is no folder {os.path.dirname(text)}")
    if os.path.isdir(text):
        raise _not_there(text, setting, "it is a folder; name a file in it")
    if os.path.lexists(text) and not os.path.isfile(os.path.realpath(text)) and os.path.exists(text):
        raise _not_there(text, setting, "it is a device, and would be replaced; name a file")
    _check_place(
        Path(os.path.realpath(text)) if os.path.islink(text) else Path(text),
        text,
        setting,
        len(part_of(Path("x")).name),
    )


def check_folder(path: str | Path, setting: str) -> None:
    """Whether a folder is there, or can be made, and can be written to.

    Raises:
        UserError: as for :func:`check_file`.
    """
    if not str(path):
        raise _not_there("", setting, "it names no folder")
    _check_place(Path(path) / "x", str(path), setting, 0)


def check_room(folder: Path, size: int) -> None:
    """Whether the file system of a folder, which may not be there yet, has room for some bytes.

    Raises:
        UserError: it has less.
    """
    existing = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    try:
        room = shutil.disk_usage(existing).free
    except OSError:  # a file system that does not say
        return
    if room < size:
        raise UserError(
            f"no space left for checkpoints in {folder}: they take at least {size / 2**20:,.0f} MiB, there are "
            f"{room / 2**20:,.0f}. Free some space or choose another folder with --checkpoint_dir=DIR"
        )


def _check_place(file: Path, shown: str, setting: str, room: int) -> None:
    """That a file of this name, with some characters behind it, can be made."""
    if "\0" in shown:
        raise _not_there(shown.replace("\0", "?"), setting, "a name holds no NUL")
    if file.parts[0].startswith("~"):
        raise _not_there(shown, setting, "~ is not read as the home folder here; write the path out")
    folders = [*file.absolute().parents]
    existing = next(place for place in folders if os.path.lexists(place))
    if not existing.is_dir():
        raise _not_there(shown, setting, f"{existing} is no folder")
    try:
        longest = os.pathconf(existing, "PC_NAME_MAX") if hasattr(os, "pathconf") else 255
        new = file.absolute().parts[len(existing.parts) :]
        if (
            any(len(os.fsencode(part)) + room * (part == new[-1]) > longest for part in new)
            or len(os.fsencode(file)) > 4000
        ):
            raise _not_there(shown, setting, "the name is too long")
        with tempfile.TemporaryFile(dir=existing):
            pass
    except UnicodeEncodeError:
        raise _not_there(shown, setting, "the name holds characters that no file has") from None
    except OSError as error:
        raise _not_there(shown, setting, f"{existing} cannot be written to ({error.strerror or error})") from error


def _not_there(shown: str, setting: str, why: str) -> UserError:
    shown = (shown if len(shown) <= 120 else f"{shown[:100]}...") or "''"
    return UserError(f"cannot write {shown}: {why}; choose another {setting}")
