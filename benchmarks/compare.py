"""
benchmarks.compare
##################
Models on one data set, over seeds, in one table: accuracy, speed and cost, with a paired test.

    python benchmarks/compare.py --models ContRec SASRecAll SASRec GRU4Rec --dataset=ml-100k --seeds 3

Each model runs with its own YAML. Every run is a process of its own; finished runs are kept and not repeated, a killed
one goes on after its last epoch, so the command can be stopped and given again. Where a run is there with other
settings or data than those asked for, the command says which and stops; ``--again`` replaces it. Further
``--key=value`` settings go to every run. The tables are written to ``OUTPUT/DATASET/README.md``, pictures beside it.
"""

if not __package__:  # run by its path: see run_as_module
    from lib.checkout import run_as_module

    run_as_module(__file__)

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial

from tqdm import tqdm

from benchmarks.lib.asked import missing
from benchmarks.lib.command_line import (
    Parser,
    name_of_a_folder,
    number,
    parse_with_settings,
    require_pictures,
    results_folder,
    told,
)
from benchmarks.lib.runs import RESULTS, Run, execute
from benchmarks.report.plots import draw
from benchmarks.report.tables import report, rows

FIRST_SEED = 2020


@told
def main(arguments: list[str] | None = None) -> int:
    """Run what is missing, then write tables and pictures; 0, 1 if a run failed, 2 if it was asked for what cannot
    be."""
    given = _parse(arguments)
    require_pictures()
    folder = given.output / given.dataset
    if not given.tables_only:
        failed = run_all(
            [
                Run(model, given.dataset, seed, folder, given.name, given.settings)
                for seed in range(FIRST_SEED, FIRST_SEED + given.seeds)
                for model in given.models
            ],
            given.data_path,
            given.again,
        )
        if failed:
            print(*failed, sep="\n", file=sys.stderr)
            return 1
    try:
        text = report(folder)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    (folder / "README.md").write_text(f"# {given.dataset}\n\n{text}")
    pictures = draw(rows(folder), folder)
    print(text)
    print("written:", folder / "README.md", *pictures)
    return 0


def run_all(
    runs: Sequence[Run],
    data_path: str | None,
    again: bool = False,
    prepare: Callable[[list[Run]], None] = lambda _: None,
) -> list[str]:
    """Execute those runs that are missing, one after another under a progress bar.

    Args:
        again: those that are there with other settings or data are replaced.
        prepare: called with the runs that are missing, before the first one starts.

    Returns:
        list: messages of the runs that failed; the others are done nevertheless.

    Raises:
        UserError: something is wrong with one of them; none has been started.
    """
    failed: list[str] = []
    runs = missing(runs, data_path, again)
    prepare(runs)
    if not runs:
        return failed
    with tqdm(runs, unit="run", dynamic_ncols=True) as bar:
        for run in bar:

            def show(epoch, score, run=run):
                bar.set_description(f"{run}, epoch {epoch}: {score:.4f}")

            bar.set_description(str(run))
            try:
                execute(run, data_path, show)
            except RuntimeError as error:
                failed.append(str(error))
    return failed


def common_parser(description: str, seeds: int = 3) -> argparse.ArgumentParser:
    """The options that every script over several runs has."""
    parser = Parser(description=description)
    parser.add_argument("--dataset", required=True, type=name_of_a_folder)
    parser.add_argument("--data_path", help="folder of data sets that RecBole does not ship")
    parser.add_argument(
        "--seeds", type=partial(number, int, 1, 1000), default=seeds, help=f"number of seeds, from {FIRST_SEED} on"
    )
    parser.add_argument(
        "--output", type=results_folder, default=RESULTS, help="folder for results (benchmarks/results)"
    )
    parser.add_argument("--again", action="store_true", help="replace runs that are there with other settings or data")
    parser.add_argument("--tables-only", action="store_true", help="no runs, only tables and pictures of what is there")
    return parser


def _parse(arguments):
    parser = common_parser(__doc__)
    parser.add_argument(
        "--models", nargs="+", type=name_of_a_folder, default=["ContRec", "SASRecAll", "SASRec", "GRU4Rec", "BERT4Rec"]
    )
    parser.add_argument(
        "--name", type=name_of_a_folder, help="of the row, for one model with other settings than its own (the model's)"
    )
    given = parse_with_settings(parser, arguments)
    if given.name and len(given.models) != 1:
        parser.error("--name is for one model")
    return given


if __name__ == "__main__":
    sys.exit(main())
