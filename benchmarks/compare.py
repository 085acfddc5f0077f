"""
benchmarks.compare
##################
Models on one data set, over seeds, in one table: accuracy, speed and cost, with a paired test.

    python benchmarks/compare.py --models ContRec SASRecAll SASRec GRU4Rec --dataset=ml-100k --seeds 3

Each model runs with its own YAML. Every run is a process of its own; finished runs are kept and not repeated, a killed
one goes on after its last epoch, so the command can be stopped and given again. Where a run is there with other
settings or data than those asked for, the command says which and stops; ``--again`` replaces it. Further
``--key=value`` settings go to every run. With ``--repeat-bias`` every sequential model of RecBole has a second row,
``SASRec,repeat``: after training, a repeat bias is fitted on training data, as ours learn one. The tables are written
to ``OUTPUT/DATASET/README.md``, pictures beside it; ``report.html`` has all of it to look at, to sort and to enlarge.
"""

if not __package__:  # run by its path: see run_as_module
    from lib.checkout import run_as_module

    run_as_module(__file__)

import sys
from argparse import Namespace
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

from benchmarks.lib.command_line import (
    name_of_a_folder,
    parse_with_settings,
    require_pictures,
    told,
)
from benchmarks.lib.running import common_parser, conclude, run_all, seeds_of
from benchmarks.lib.runs import Run
from benchmarks.report.export import FORMATS
from benchmarks.report.groups import fill, groups_table
from benchmarks.report.page import write_page
from benchmarks.report.plots import draw
from benchmarks.report.rows import Row, rows
from benchmarks.report.tables import beyond_table, report


@told
def main(arguments: list[str] | None = None) -> int:
    """Run what is missing, then write tables and pictures; 0, 1 if a run failed, 2 if it was asked for what cannot
    be."""
    given = _parse(arguments)
    require_pictures()
    folder = given.output / given.dataset
    biased = _biased(given)
    runs = [
        Run(model, given.dataset, seed, folder, given.name, given.settings, repeat_bias=model in biased)
        for seed in seeds_of(given)
        for model in given.models
    ]
    failed = [] if given.tables_only else run_all(runs, given.data_path, given.again)
    table = cache(lambda: _table(given, folder))
    if given.format:
        return _export(given.format, folder, table, failed)
    return conclude(folder, lambda: _text(given, folder, table()), failed, lambda: _pictures(folder, table()))


def _export(form: str, folder: Path, table: Callable[[], list[Row]], failed: Sequence[str]) -> int:
    """Print the main table alone, in some format, and write it beside the results; what failed is told elsewhere."""
    try:
        ending, write = FORMATS[form]
        text = write(table())
    except ValueError as error:
        failed = [*failed, f"error: {error}"]
    else:
        (folder / f"table.{ending}").write_text(text, encoding="utf-8")
        print(text, end="")
        print("written:", folder / f"table.{ending}", file=sys.stderr)
    print(*failed, sep="\n", end="\n" if failed else "", file=sys.stderr)
    return 1 if failed else 0


def _text(given: Namespace, folder: Path, table: list[Row]) -> str:
    """The README of a folder, with the tables that were asked for."""
    text = f"# {given.dataset}\n\n{report(folder)}"
    if given.groups:
        text += f"\n## By group of users and items\n\n{groups_table(table)}\n"
    if given.beyond:
        text += f"\n## Beyond accuracy\n\n{beyond_table(table)}\n"
    return text


def _table(given: Namespace, folder: Path) -> list[Row]:
    """The rows, with what groups are made by where it is asked for.

    Raises:
        ValueError: there is no finished run.
    """
    table = rows(folder)
    if given.groups:
        fill(table, given.data_path)
    return table


def _pictures(folder: Path, table: list[Row]) -> list[Path]:
    """Draw what is there, and write the page that shows it."""
    return [*draw(table, folder), write_page(folder, table)]


def _biased(given):
    """The models that get a repeat bias after training.

    Raises:
        UserError: it is asked for, and none takes one.
    """
    if not given.repeat_bias or given.tables_only:
        return []
    from benchmarks.lib.repeats import takes_repeat_bias  # slow imports
    from recbole_contrec import UserError

    if found := [model for model in given.models if takes_repeat_bias(model)]:
        return found
    raise UserError(
        f"--repeat-bias: {', '.join(given.models)}: not one of RecBole's own sequential models that score the whole "
        "catalogue. Models of this package learn theirs in training (repeat_bias)"
    )


def _parse(arguments):
    parser = common_parser(__doc__)
    parser.add_argument(
        "--models", nargs="+", type=name_of_a_folder, default=["ContRec", "SASRecAll", "SASRec", "GRU4Rec", "BERT4Rec"]
    )
    parser.add_argument(
        "--name", type=name_of_a_folder, help="of the row, for one model with other settings than its own (the model's)"
    )
    parser.add_argument(
        "--repeat-bias",
        action="store_true",
        help="test RecBole's sequential models also with a repeat bias that is fitted after training",
    )
    parser.add_argument(
        "--groups", action="store_true", help="also a table by length of history and popularity of the target"
    )
    parser.add_argument(
        "--beyond", action="store_true", help="also a table of coverage, popularity, novelty and diversity of the lists"
    )
    parser.add_argument(
        "--format",
        choices=FORMATS,
        help="print the main table alone, for a paper or a spreadsheet, and write table.tex, table.csv or table.md",
    )
    given = parse_with_settings(parser, arguments)
    if given.name and len(given.models) != 1:
        parser.error("--name is for one model")
    return given


if __name__ == "__main__":
    sys.exit(main())
