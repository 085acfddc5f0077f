"""
benchmarks.lib.running
######################
Several runs in one command: its options, those of the runs that are missing, one after another, and its report.
"""

import argparse
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from tqdm import tqdm

from benchmarks.lib.asked import missing
from benchmarks.lib.command_line import Parser, name_of_a_folder, number, results_folder
from benchmarks.lib.runs import RESULTS, Run, execute

FIRST_SEED = 2020
AnyRun = TypeVar("AnyRun")  # its text names it
OnEpoch = Callable[[int, float], None]  # with epoch and validation score


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
    runs = missing(runs, data_path, again)
    prepare(runs)
    return one_by_one(runs, lambda run, show: execute(run, data_path, show))


def one_by_one(runs: Sequence[AnyRun], execute: Callable[[AnyRun, OnEpoch], None]) -> list[str]:
    """Execute runs one after another under a progress bar; messages of those that failed with a RuntimeError."""
    failed: list[str] = []
    with tqdm(runs, unit="run", dynamic_ncols=True, disable=not runs) as bar:
        for run in bar:

            def show(epoch: int, score: float, run: AnyRun = run) -> None:
                bar.set_description(f"{run}, epoch {epoch}: {score:.4f}")

            bar.set_description(str(run))
            try:
                execute(run, show)
            except RuntimeError as error:
                failed.append(str(error))
    return failed


def conclude(
    folder: Path, report: Callable[[], str], failed: Sequence[str] = (), draw: Callable[[], Iterable[Path]] = tuple
) -> int:
    """Write the report of what is there, with its pictures, and say what failed.

    Args:
        report: raises a ValueError where there is nothing to report.
        failed: messages of the runs that failed.

    Returns:
        int: the exit code, 1 if a run failed or there is nothing to report.
    """
    try:
        text = report()
    except ValueError as error:
        failed = [*failed, f"error: {error}"]
    else:
        write_report(folder, text, draw())
    print(*failed, sep="\n", end="\n" if failed else "", file=sys.stderr)
    return 1 if failed else 0


def write_report(folder: Path, text: str, pictures: Iterable[Path] = ()) -> None:
    """Write the README of a folder of results, and show it."""
    (folder / "README.md").write_text(text)
    print(text)
    print("written:", folder / "README.md", *pictures)


def seeds_of(given: argparse.Namespace) -> range:
    """The seeds that ``--seeds`` asks for."""
    return range(FIRST_SEED, FIRST_SEED + given.seeds)


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
