"""
benchmarks.scale
################
How a run grows with users and items: seconds and peak memory of every stage on synthetic data.

    python benchmarks/scale.py                                                    # results/scale.json
    python benchmarks/scale.py --users 1e6 --items 1e6 --models ContRec SASRecAll
    python benchmarks/scale.py --summary=benchmarks/results/scale.json            # the tables of an earlier run

Users are varied with the first number of items, items with the first number of users; ``--grid`` takes every pair.
Each stage runs in a process of its own; one beyond ``--memory_gib`` or ``--stage_seconds`` is ended and told as such.
The results are written after every point, and a point that is there is not measured again.
"""

if not __package__:  # run by its path: see run_as_module
    from lib.checkout import run_as_module

    run_as_module(__file__)

import argparse
import json
import sys
from collections.abc import Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from benchmarks.lib.command_line import Parser, number
from benchmarks.lib.machine import machine, rounded
from benchmarks.lib.measuring import temporary_workplace
from benchmarks.lib.runs import RESULTS
from benchmarks.lib.scale_points import scale_point
from benchmarks.report.scale import summary
from recbole_contrec.errors import UserError
from recbole_contrec.training.results import write_json

WHAT = (
    "models",
    "users",
    "items",
    "grid",
    "only_reading",
    "output",
    "summary",
)  # options that say which points, not how


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of the command line."""
    parser = Parser("Measure time and memory of every stage by users and items; results go into a JSON file.")
    parser.formatter_class = argparse.ArgumentDefaultsHelpFormatter
    add, whole, positive = parser.add_argument, _whole, partial(number, float, 0, None)
    add("--models", nargs="+", default=["ContRec"], help="models to measure")
    add("--users", nargs="+", type=whole, default=[10**4, 10**5, 10**6], help="users, such as 1e5")
    add("--items", nargs="+", type=whole, default=[10**4, 10**5, 10**6], help="items")
    add("--grid", action="store_true", help="measure every pair of users and items")
    add("--only_reading", action="store_true", help="measure no stage behind reading and splitting")
    add("--output", type=Path, default=RESULTS / "scale.json", help="JSON file for the results")
    add("--summary", type=Path, help="measure nothing: print the tables of this JSON file")
    add("--memory_gib", type=positive, default=12.0, help="resident memory that a stage may take")
    add("--stage_seconds", type=positive, default=600.0, help="seconds that a stage may take")
    add("--median", type=positive, default=10.0, help="median length of a history")
    add("--spread", type=positive, default=1.0, help="standard deviation of its logarithm")
    add("--exponent", type=positive, default=1.0, help="of Zipf's law, by which items are drawn")
    add("--settings", nargs="+", default=[], metavar="KEY=VALUE", help="settings of the models")
    add("--threads", type=whole, default=1, help="threads of torch")
    add("--seed", type=whole, default=2020, help="of data and weights")
    add("--batches", type=whole, default=2, help="training steps to time at least, after one to warm up")
    add("--seconds", type=positive, default=5.0, help="time training steps for at least this long")
    add("--ranked_users", type=whole, default=1024, help="users that are evaluated, and given recommendations")
    return parser.parse_args(arguments)


def _whole(text: str) -> int:
    """A number of things, also as 1e6."""
    value = number(float, 1, None, text)
    if value != int(value):
        raise argparse.ArgumentTypeError(f"{text} is no whole number")
    return int(value)


def points_of(options: argparse.Namespace) -> list[tuple[str, int, int]]:
    """Model, users and items of every point, small ones first."""
    sizes = (
        set(product(options.users, options.items))
        if options.grid
        else {(n, options.items[0]) for n in options.users} | {(options.users[0], n) for n in options.items}
    )
    return [
        (model, *size) for size in sorted(sizes, key=lambda pair: (pair[0] * pair[1], pair)) for model in options.models
    ]


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Measure what the file of results lacks, write it after every point and give its content.

    Raises:
        UserError: the file holds points of other settings.
    """
    torch.set_num_threads(options.threads)
    options.output = options.output.absolute()
    options.output.parent.mkdir(parents=True, exist_ok=True)
    result = _begun(options)
    done = {(point["model"], point["users"], point["items"]) for point in result["points"]}
    for point in tqdm([point for point in points_of(options) if point not in done], desc="scale", ncols=100):
        with temporary_workplace():
            result["points"].append(rounded(scale_point(options, *point)))
        write_json(options.output, result)
    return result


def _begun(options: argparse.Namespace) -> dict[str, Any]:
    """The results so far."""
    settings = {key: value for key, value in vars(options).items() if key not in WHAT}
    if not options.output.exists():
        return {"machine": machine(options), "settings": settings, "points": []}
    result = json.loads(options.output.read_text(encoding="utf-8"))
    if other := [key for key in settings if result["settings"].get(key) != settings[key]]:
        raise UserError(
            f"{options.output.name} holds points with {other[0]}={result['settings'].get(other[0])}, not "
            f"{settings[other[0]]}: name another --output"
        )
    return result


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the summary, or only print that of an earlier run."""
    options = parse(arguments)
    try:
        result = json.loads(options.summary.read_text(encoding="utf-8")) if options.summary else measure(options)
    except (UserError, OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    print(summary(result))


if __name__ == "__main__":
    main()
