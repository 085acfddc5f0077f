"""
recbole_contrec.cli.prepare
###########################
``prepare``: download a public data set, or convert a table.
"""

import argparse
from collections.abc import Sequence
from textwrap import fill, indent
from typing import TYPE_CHECKING

from recbole_contrec.cli.options import PROGRAM, Command
from recbole_contrec.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from recbole_contrec.data.prepare import PreparedDataset  # slow

DESCRIPTION = """\
Download a public data set, or take a table of your own, and write RecBole's atomic files.
Nothing is left under the name of the data set unless all went well."""

EPILOG = """\
Data sets that can be downloaded:
{}

Examples:
  python run_recbole_contrec.py prepare --dataset=ml-1m
  python run_recbole_contrec.py prepare --dataset=ml-1m --from=Downloads/ml-1m.zip
  python run_recbole_contrec.py prepare --dataset=shop --from=buys.csv --user=uid --item=sku --time=ts
  python run_recbole_contrec.py prepare --dataset=lastfm --from=LastFM.txt --sequences"""


def parser() -> Command:
    """The options of ``prepare``."""
    from recbole_contrec.data.prepare import known_names

    known = fill(known_names().replace(", ", ",").replace(",", ", "), 116, break_on_hyphens=False)
    command = Command("prepare", DESCRIPTION, EPILOG.format(indent(known, "  ")))
    command.value("dataset", "NAME", "a data set that can be downloaded, or a name for your own table")
    command.value("data_path", "DIR", "the folder of the data set folders (default: dataset)", default="dataset")
    command.value("from", "FILE_OR_URL", "a file or an http(s) address to take instead")
    command.value("md5", "CHECKSUM", "the checksum of that file")
    command.flag("force", "replace a data set of that name")
    command.flag("sequences", "every line of the file is a user and then items in order of time, with blanks between")
    command.value("user", "COLUMN", "column of the user ids (default: user_id or another usual name)")
    command.value("item", "COLUMN", "column of the item ids (default: item_id or another usual name)")
    command.value("time", "COLUMN", "column of the times, numbers or ISO 8601 (default: timestamp or the like)")
    command.value("rating", "COLUMN", "column of the ratings")
    command.value("items", "FILE_OR_URL", "a second table, with the texts of the items")
    command.value("item_id", "COLUMN", "its column of item ids (default: as --item)")
    command.value("text", "COLUMN,COLUMN", "its columns of texts (default: title, name, brand, category and the like)")
    command.usual()
    return command


def prepare(arguments: Sequence[str]) -> int:
    """Make the atomic files of a data set.

    Raises:
        UserError: whatever the user can mend.
    """
    command = parser()
    if {"--help", "-h"} & set(arguments):
        command.print_help()
        return 0
    options = _read(command, arguments)
    from recbole_contrec.data import prepare as preparing

    done = preparing.prepare(
        options.dataset,
        options.data_path,
        getattr(options, "from"),
        columns={option: getattr(options, option) for option in preparing.COLUMN_OPTIONS},
        sequences=options.sequences,
        force=options.force,
        md5=options.md5,
    )
    _show(done, options)
    return 0


def _read(command: Command, arguments: Sequence[str]) -> argparse.Namespace:
    for before, word in zip(["", *arguments], arguments):
        if not word.startswith("-"):
            raise UserError(f"prepare: {word!r} stands alone; write {before.split('=')[0] or '--dataset'}={word}")
    options, unknown = command.read(arguments)
    if unknown:
        name = unknown[0].split("=")[0]
        raise UserError(f"prepare: unknown option {name}{did_you_mean(name, command.names())}")
    if not options.dataset:
        raise UserError(
            "prepare needs --dataset=NAME, for instance ml-1m, lastfm or amazon-beauty; prepare --help lists all that "
            "can be downloaded, and --from=FILE takes a table of your own"
        )
    return options


def _show(done: "PreparedDataset", options: argparse.Namespace) -> None:
    name = options.dataset
    mean = done.interactions / done.users
    sparsity = 100 * (1 - done.interactions / (done.users * done.items))
    print(f"{name}: {done.users:,} users, {done.items:,} items, {done.interactions:,} interactions")
    print(f"mean history {mean:.2f}, sparsity {sparsity:.3f} %, before RecBole's filters")
    print(f"written: {', '.join(str(file) for file in done.files)}")
    for note in done.notes:
        print(f"note: {note}")
    for begins, model in (("next:", "ContRec"), ("  or:", "SASRec")):
        print(f"{begins} {PROGRAM} --model={model} --dataset={name} --data_path={options.data_path}")
