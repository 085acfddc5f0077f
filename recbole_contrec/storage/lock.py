"""
recbole_contrec.storage.lock
############################
One process a run: a folder that one is training in is not resumed by another.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from recbole_contrec import processes
from recbole_contrec.errors import UserError

try:
    import fcntl
except ImportError:  # Windows: nothing is locked there
    fcntl = None  # type: ignore[assignment]

AVAILABLE = fcntl is not None

_held: dict[Path, int] = {}  # folder -> descriptor that holds its lock; all are the same to this process


def acquire(folder: Path) -> None:
    """Hold the folder of a run until :func:`release` or the end of this process, however it ends; nothing is written.
    Of several processes that train together the first one holds it.

    Raises:
        UserError: another process holds it.
    """
    folder = Path(folder).resolve()
    if fcntl is None or folder in _held or not processes.is_first():
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise UserError(f"{folder}: another process is training this run; wait for its end, or stop it first") from None
    except OSError:  # a file system without locks
        os.close(descriptor)
    else:
        _held[folder] = descriptor


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Inside such a block there is one process at a time, for each folder; the others wait."""
    descriptor = os.open(folder, os.O_RDONLY) if fcntl is not None else None
    try:
        if descriptor is not None:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def held(folder: Path) -> bool:
    """Whether this process holds it."""
    return Path(folder).resolve() in _held


def release(folder: Path) -> None:
    """Let others have it; nothing where it is not held."""
    descriptor = _held.pop(Path(folder).resolve(), None)
    if descriptor is not None:
        os.close(descriptor)
