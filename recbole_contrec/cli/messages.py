"""
recbole_contrec.cli.messages
############################
What a command says beside its output: messages on the screen, and errors in one or two lines.
"""

import errno
import logging
import sys
from typing import TextIO

from recbole_contrec.errors import UserError, bounded

# Errors of a disk or of rights, which no check can rule out.
_OF_THE_MACHINE = {
    errno.ENOSPC,
    getattr(errno, "EDQUOT", errno.ENOSPC),
    errno.EROFS,
    errno.EACCES,
    errno.EPERM,
    errno.EIO,
    errno.EMFILE,
    errno.ENAMETOOLONG,
    errno.EISDIR,
    errno.ENOTDIR,
    errno.ENOTEMPTY,
    errno.ELOOP,
    errno.EFBIG,
    errno.ESTALE,
}


def show_messages(stream: TextIO | None = None) -> None:
    """Print what is logged before a run starts; a run then logs to the screen and a file, through RecBole's handlers.

    Args:
        stream: where to; standard output if not given.
    """
    ours = logging.getLogger("recbole_contrec")
    ours.handlers, ours.propagate = [logging.StreamHandler(stream or sys.stdout)], False
    ours.setLevel(logging.INFO)


def error_text(error: Exception) -> str | None:
    """What the user can do about an error, in a line or two; None for a mistake of this program."""
    if lack := lack_of_memory(error):
        return f"out of memory: {lack}. Lower train_batch_size, eval_batch_size or MAX_ITEM_LIST_LENGTH"
    if isinstance(error, OSError) and error.errno in _OF_THE_MACHINE:
        return bounded(f"{error.strerror}: {error.filename}" if error.filename else str(error))
    return bounded(str(error)) if isinstance(error, (UserError, FloatingPointError)) else None


def lack_of_memory(error: Exception) -> str | None:
    """What an error says about memory; None where it is another error."""
    if not isinstance(error, (MemoryError, RuntimeError)):
        return None
    from recbole_contrec.memory import out_of_memory  # slow, and torch is loaded where this happens

    return out_of_memory(error)


def end_progress_bars() -> None:
    """Close the bars that an error has left standing in the middle of a line."""
    bars = sys.modules["tqdm"].tqdm if "tqdm" in sys.modules else None
    for bar in list(getattr(bars, "_instances", ())):
        bar.close()
