"""
benchmarks.lib.running
######################
Several runs in one command: its options, and those of the runs that are missing, one after another.
"""

import argparse
from collections.abc import Callable, Sequence
from functools import partial

from tqdm import tqdm

from benchmarks.lib.asked import missing
from benchmarks.lib.command_line import Parser, name_of_a_folder, number, results_folder
from benchmarks.lib.runs import RESULTS, Run, execute

FIRST_SEED = 2020


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
