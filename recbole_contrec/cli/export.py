"""
recbole_contrec.cli.export
##########################
``export``: the vectors and codes of a trained model, as files for other systems.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from recbole_contrec.cli.checkpoints import checkpoint_option, load, place_options
from recbole_contrec.cli.options import Command, names, whole_number
from recbole_contrec.errors import UserError

DESCRIPTION = """\
Write the vectors by which a trained model ranks, and the codes of its items, for other systems.
The inner product of the vectors of a user and of an item is the score of the model; the metadata name what comes to
it. ONNX holds the way from a history to the vector of a preference instead."""

EPILOG = """\
Examples:
  python run_recbole_contrec.py export --checkpoint=saved/RUN --output=items.npz
  python run_recbole_contrec.py export --checkpoint=saved/RUN --output=space.safetensors --users=1,2,3
  python run_recbole_contrec.py export --checkpoint=saved/RUN --output=space --format=parquet --all
  python run_recbole_contrec.py export --checkpoint=saved/RUN --output=model.onnx"""


def parser() -> Command:
    """The options of ``export``."""
    command = Command("export", DESCRIPTION, EPILOG)
    checkpoint_option(command)
    command.value("output", "FILE", "the file to write, or the folder for parquet")
    command.value("format", "npz", "npz, safetensors, parquet or onnx (default: as the output ends)")
    command.value("users", "1,2,3", "users whose preference vectors are written as well", names)
    command.flag("all", "those of every user of the data set")
    command.value("batch_size", "256", "users read at once (default: 256)", whole_number("batch_size"), 256)
    place_options(command)
    command.usual()
    return command


def export(arguments: Sequence[str]) -> int:
    """Write vectors and codes.

    Raises:
        UserError: whatever the user can mend.
    """
    command = parser()
    if command.shows_help(arguments):
        return 0
    options = command.read_all(arguments)
    _check(options)
    from recbole_contrec import exporting  # slow

    exporting.check_output(options.output, options.format)
    loaded = load(options)
    users = "all" if options.all else options.users
    items, people = exporting.export(loaded, options.output, options.format, users, options.batch_size)
    print(f"written: {options.output}, {items:,} items" + f", {people:,} users" * (users is not None))
    return 0


def _check(options: argparse.Namespace) -> None:
    """Refuse what cannot work before the model is loaded.

    Raises:
        UserError: says what to give.
    """
    if options.checkpoint is None or options.output is None:
        raise UserError("name both --checkpoint=PATH and --output=FILE")
    if options.users is not None and options.all:
        raise UserError("--all stands for every user of the data set: leave --users away")
    if options.format is None:
        options.format = Path(options.output).suffix[1:]
        if not options.format:
            raise UserError(f"--output={options.output}: name the --format, or a file that ends in it")
