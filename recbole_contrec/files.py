"""
recbole_contrec.files
#####################
Files that are whole or absent, whoever else writes the same ones, and what killed processes left of theirs.
"""

import os
import re
import shutil
import socket
from pathlib import Path
from typing import Callable

import psutil

_HOST = re.sub(r"[^\w-]", "-", socket.gethostname())[:40]
_PART = re.compile(r".*?\.(?:(?P<host>[\w-]+)\.)?(?P<pid>\d+)\.part")


def part_of(path: Path) -> Path:
    """The temporary name of a file that this process is writing: another process has its own."""
    return path.with_name(f"{path.name}.{_HOST}.{os.getpid()}.part")


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
        if found and found["host"] in (None, _HOST) and not psutil.pid_exists(int(found["pid"][:12])):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
