"""
recbole_contrec.cli.recommend
#############################
``recommend``: ranked items on the screen or in a file.
"""

import argparse
import logging
from collections.abc import Sequence
from pathlib import Path

from recbole_contrec.cli.checkpoints import checkpoint_option, load, place_options
from recbole_contrec.cli.options import Command, names, whole_number
from recbole_contrec.cli.tables import ENDINGS, print_tables, write_tables
from recbole_contrec.errors import UserError
from recbole_contrec.files import check_file
from recbole_contrec.packages import require

DESCRIPTION = "Rank items for users of the data set, or for somebody new, with a trained model."

EPILOG = """\
Examples:
  python run_recbole_contrec.py recommend --checkpoint=saved/RUN --users=1,2,3 --k=5
  python run_recbole_contrec.py recommend --checkpoint=saved/RUN --all --output=top.csv
  python run_recbole_contrec.py recommend --checkpoint=saved/RUN --history=50,181,174"""


def parser() -> Command:
    """The options of ``recommend``."""
    command = Command("recommend", DESCRIPTION, EPILOG)
    checkpoint_option(command)
    command.value("users", "1,2,3", "users of the data set, by their ids", names)
    command.value("users_file", "FILE", "users of the data set, an id on every line (for ids with commas)")
    command.flag("all", "every user of the data set")
    command.value("history", "ITEM,ITEM", "what somebody new has seen, in order of time", names)
    command.value("k", "10", "items a user (default: 10)", whole_number("k"), 10)
    command.flag("include_seen", "rank items of the history as well")
    command.value("batch_size", "256", "users scored at once (default: 256)", whole_number("batch_size"), 256)
    command.value(
        "index", "hnsw", "how items are found: exact (default), or hnsw, an approximate search", default="exact"
    )
    command.value("ef_search", "200", "candidates of hnsw (default: 200)", whole_number("ef_search"), 200)
    command.value("output", "FILE", "a .csv or .parquet file to write, instead of the screen")
    place_options(command)
    command.usual()
    return command


def recommend(arguments: Sequence[str]) -> int:
    """Rank items.

    Raises:
        UserError: whatever the user can mend.
    """
    command = parser()
    if command.shows_help(arguments):
        return 0
    options = command.read_all(arguments)
    _check(options)
    loaded = load(options)
    from recbole_contrec.recommendation import index_logger, recommend_batches  # slow

    index_logger.setLevel(logging.INFO)  # what an approximate search finds is told beside warnings
    histories = [] if options.history is None else [[item for item in options.history if item]]
    tables = recommend_batches(
        loaded,
        options.users if options.users_file is None else users_in(options.users_file),
        histories,
        options.k,
        not options.include_seen,
        options.batch_size,
        options.index,
        options.ef_search,
    )
    if options.output is None:
        print_tables(tables)
    else:
        write_tables(tables, options.output)
    return 0


def users_in(path: str) -> list[str]:
    """The ids in a file of one a line; blank lines count for nothing.

    Raises:
        UserError: there is no such file, it is no text, or it names nobody.
    """
    try:
        users = [line.strip() for line in Path(path).read_text(encoding="utf-8-sig").splitlines()]
    except OSError as error:
        raise UserError(f"--users_file: cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"--users_file: {path} is not UTF-8 text") from error
    if not any(users):
        raise UserError(f"--users_file: {path} names no user")
    return [user for user in users if user]


def _check(options: argparse.Namespace) -> None:
    """Refuse what cannot work before the model is loaded.

    Raises:
        UserError: says what to give.
    """
    if options.checkpoint is None:
        raise UserError("name the checkpoint with --checkpoint=PATH")
    if options.users is not None and options.users_file is not None:
        raise UserError("--users and --users_file both name users: leave one away")
    some = any(value is not None for value in (options.users, options.users_file, options.history))
    if not some and not options.all:
        raise UserError(
            "name the users with --users=1,2,3, --users_file=FILE or --all, or bring a --history=item,item,..."
        )
    if some and options.all:
        raise UserError("--all stands for every user of the data set: leave --users, --users_file and --history away")
    if options.users_file is not None:
        users_in(options.users_file)
    if options.index not in ("exact", "hnsw"):
        raise UserError(f"--index={options.index}: choose exact or hnsw")
    if options.index == "hnsw":
        require("faiss", "--index=hnsw")
    if options.output is None:
        return
    if not options.output.endswith(ENDINGS):
        raise UserError(f"--output={options.output}: the name must end in .csv or .parquet")
    check_file(options.output, "--output", makes_folders=False)
    if options.output.endswith(".parquet"):
        require("pyarrow", "writing Parquet")
