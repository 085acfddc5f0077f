"""
recbole_contrec.cli.main
########################
From the words of a command line to a command and an exit code.
"""

import os
import sys
from collections.abc import Callable, Sequence

from recbole_contrec.cli.export import export
from recbole_contrec.cli.messages import end_progress_bars, error_text, show_messages
from recbole_contrec.cli.prepare import prepare
from recbole_contrec.cli.recommend import recommend
from recbole_contrec.cli.semantic_ids import semantic_ids
from recbole_contrec.cli.train import train
from recbole_contrec.cli.tune import tune
from recbole_contrec.cli.vectors import vectors
from recbole_contrec.errors import UserError, did_you_mean

COMMANDS: dict[str, Callable[[Sequence[str]], int]] = {
    "export": export,
    "prepare": prepare,
    "recommend": recommend,
    "semantic_ids": semantic_ids,
    "tune": tune,
    "vectors": vectors,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; 0 when it worked, 2 for an error that the user can mend (shown in one or two lines).

    Args:
        arguments: the words behind the program's name; those of this process if not given.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    show_messages()
    try:
        status = _run(arguments)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # whoever reads the output has enough: ... | head
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # so that Python's own last flush is silent
        return 1
    except Exception as error:
        text = None if "--debug" in arguments else error_text(error)
        if text is None:
            raise
        end_progress_bars()
        print(f"error: {text}", file=sys.stderr)
        return 2


def _run(arguments: list[str]) -> int:
    """The command that the first word names; training where it is an option."""
    first = arguments[0] if arguments else ""
    if first in COMMANDS:
        return COMMANDS[first](arguments[1:])
    if first and not first.startswith("-") and not {"--help", "-h"} & set(arguments):
        raise UserError(f"unknown command {first!r}{did_you_mean(first, COMMANDS)}")
    return train(arguments)
