"""
recbole_contrec.storage.memory_mapped
#####################################
Long columns in ``.npy`` files. The system keeps in memory what is being read of them, once for all processes of a
machine, and lets go of it where memory is short.
"""

import logging
import re
from io import BytesIO
from pathlib import Path

import numpy as np

from recbole_contrec import processes
from recbole_contrec.files import clear_parts, write_whole
from recbole_contrec.storage.stages import fingerprint

logger = logging.getLogger("recbole_contrec")


def memory_mapped(name: str, column: np.ndarray, folder: Path) -> np.ndarray:
    """The same column, read from a file.

    The file is named by a hash of what is in it: a column that is another one, whatever has changed it, has a file of
    its own, and runs with equal ones share it. Of several processes the first one writes; a damaged file is written
    again.

    Args:
        name: of the column, for the name of the file.
        column: numbers [n, ...].
        folder: where files are kept.

    Returns:
        array: of the same type and shape. Where its file cannot be written, which the log says, it is the column.
    """
    column = np.ascontiguousarray(column)
    key = _key(column)
    path = Path(folder) / f"{re.sub(r'[^A-Za-z0-9_]+', '_', name)[:60]}-{key[:16]}.npy"
    found = None
    with processes.first_goes_first():
        if processes.is_first():
            clear_parts(path.parent)
            try:
                found = _opened(path, column, key)
                if found is None:
                    write_whole(path, lambda part: _write(part, column))
            except OSError as error:
                logger.warning("%s stays in memory: cannot write %s (%s)", name, path, error.strerror or error)
        if found is None:
            found = _opened(path, column, key)
    return column if found is None else found


def _key(column: np.ndarray) -> str:
    return fingerprint(column, texts=[(str(column.dtype), str(column.shape))])


def _write(part: Path, column: np.ndarray) -> None:
    with open(part, "wb") as file:  # by its name, numpy would add an ending
        np.save(file, column)


def _opened(path: Path, column: np.ndarray, key: str) -> np.ndarray | None:
    """The array of a file, if there is one and it is the one of this column and key. What such a file begins with is
    known: numpy's readers take archives, pickles and damaged headers for more than they are."""
    header = BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(column))
    begin = header.getvalue()
    try:
        with open(path, "rb") as file:
            if file.read(len(begin)) != begin:
                return None
        # copy on write: no tensor is read-only, and what somebody writes into one must not reach the file
        array = np.asarray(np.memmap(path, column.dtype, "c", len(begin), column.shape))
    except (OSError, ValueError):
        return None
    return array if _key(array) == key else None
