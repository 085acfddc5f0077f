"""
benchmarks.speed
################
How fast, and in how much memory: ContRec beside RecBole's models, beside what the machine can do, and as data grow.

    python benchmarks/speed.py                                  # all parts, results/speed.json
    python benchmarks/speed.py --parts train --models SASRec ContRec --histories 50 --output=train.json
    python benchmarks/speed.py --summary=benchmarks/results/speed.json      # the tables of an earlier run

Everything is computed on the CPU. The results are written after every part; a file of the same name is replaced.
"""

if not __package__:  # run by its path: see run_as_module
    from lib.checkout import run_as_module

    run_as_module(__file__)

import argparse
import json
import sys
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from tqdm import tqdm

from benchmarks.lib.command_line import Parser, number
from benchmarks.lib.flops import count_training_flops, matrix_rate
from benchmarks.lib.machine import machine, rounded
from benchmarks.lib.measuring import (
    count_targets_of,
    growth_exponents,
    isolated,
    temporary_workplace,
    time_training,
)
from benchmarks.lib.points import (
    configure,
    fits,
    history_point,
    ranking_point,
    released_point,
    users_point,
)
from benchmarks.lib.runs import RESULTS
from benchmarks.report.speed import summary
from recbole_contrec.data.loading import load_data
from recbole_contrec.errors import UserError
from recbole_contrec.quick_start import LoadedRun, assemble
from recbole_contrec.training.results import write_json

BASELINE = "SASRec"
PATHS = ("output", "summary", "data_path")  # options that say where, not what


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of the command line."""
    parser, _positive = (
        Parser("Measure speed and memory of ContRec; results go into a JSON file."),
        partial(number, int, 1, None),
    )
    parser.formatter_class = argparse.ArgumentDefaultsHelpFormatter
    add = parser.add_argument
    add("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what to measure")
    add("--output", type=Path, default=RESULTS / "speed.json", help="JSON file for the results")
    add("--summary", type=Path, help="measure nothing: print the tables of this JSON file")
    add("--threads", type=_positive, default=1, help="threads of torch")
    add("--seed", type=int, default=2020, help="of data and weights")
    add("--settings", nargs="+", default=[], metavar="KEY=VALUE", help="settings of ContRec in every part")
    add("--train_batch_size", type=_positive, help="targets a step of every model, where each shall not have its own")
    add("--rounds", type=_positive, default=3, help="repetitions, of which the median counts")
    add("--batches", type=_positive, default=4, help="training steps to time at least, after one to warm up")
    add("--seconds", type=float, default=10.0, help="time training steps for at least this long, or to the epoch's end")
    group = parser.add_argument_group("train, ceiling")
    group.add_argument("--dataset", default="ml-100k", help="RecBole data set to train on")
    group.add_argument("--data_path", type=Path, help="folder that holds it")
    group.add_argument(
        "--models",
        nargs="+",
        default=["SASRec", "SASRecAll", "GRU4Rec", "BERT4Rec", "ContRec", "DeftRec", "TokenRec"],
        help="models to train",
    )
    group.add_argument(
        "--histories",
        nargs="+",
        type=_positive,
        default=[50, 200],
        help="L to train at; the first one also in ceiling, ranking and users",
    )
    group.add_argument(
        "--matrix_sizes",
        nargs="+",
        type=_positive,
        default=[256, 512, 1024, 2048],
        help="square matrices whose product is timed",
    )
    group = parser.add_argument_group("ranking, history, users, released")
    group.add_argument(
        "--catalogues", nargs="+", type=_positive, default=[10**3, 10**4, 10**5, 10**6], help="items, ranking"
    )
    group.add_argument(
        "--score_memory",
        type=float,
        default=512.0,
        help="largest score matrix of a batch, MiB; beyond it only the chunked top K is measured",
    )
    group.add_argument("--ranked_users", type=_positive, default=1024, help="users ranked in each repetition")
    group.add_argument("--items", type=_positive, default=10**4, help="items, history and users and released")
    group.add_argument("--lengths", nargs="+", type=_positive, default=[20, 50, 100, 200, 500], help="L, history")
    group.add_argument("--targets", type=_positive, default=100_000, help="training targets to choose from, history")
    group.add_argument("--users", nargs="+", type=_positive, default=[10**3, 10**4, 10**5], help="users, users")
    group.add_argument("--rows", type=_positive, default=8, help="users answered by the released scheme")
    return parser.parse_args(arguments)


# the parts


def measure_train(options: argparse.Namespace) -> dict[str, Any]:
    """Every model at every L. Models take turns in rounds, since other work on the machine comes and goes."""
    rows = []
    for length in options.histories:
        runs = {model: _prepared(model, length, options) for model in options.models}
        times = {model: [] for model in runs}
        turns = [(turn, model) for turn in range(options.rounds) for model in runs]
        for turn, model in _progress(turns, f"train, L={length}"):
            times[model].append(
                time_training(runs[model].trainer, runs[model].data.train, options.batches, options.seconds, epoch=turn)
            )
        rows += [_training_row(model, length, run, times) for model, run in runs.items()]
    return {"dataset": options.dataset, "rows": rows}


def _prepared(model: str, length: int, options: argparse.Namespace) -> LoadedRun:
    """A model with its data, its stages before training finished."""
    config = configure(options, model, options.dataset, options.data_path, length)
    loaded = assemble(config, load_data(config))
    loaded.trainer.begin(loaded.data.train)
    return loaded


def _training_row(model: str, length: int, run: LoadedRun, times: dict[str, list]) -> dict[str, Any]:
    """The medians of one model, and its ratio to RecBole's SASRec round by round."""
    own, targets = times[model], _targets_an_epoch(run.data.train)
    seconds = [targets / time.targets_a_second for time in own]
    ratios = [time.targets_a_second / base.targets_a_second for time, base in zip(own, times.get(BASELINE, []))]
    return {
        "model": model,
        "history": length,
        "seconds_an_epoch": median(seconds),
        "rounds": seconds,
        "targets_a_second": median(time.targets_a_second for time in own),
        "targets_an_epoch": targets,
        "times_faster": median(ratios) if ratios else None,
        "times_faster_range": [min(ratios), max(ratios)] if ratios else None,
        "batches_timed": [time.batches for time in own],
        "batches_an_epoch": len(run.data.train),
        "train_batch_size": run.config["train_batch_size"],
        "seconds_before_training": sum(stage.seconds for stage in run.trainer.progress.stages.values()),
    }


def _targets_an_epoch(loader) -> int:
    """Of windows, every item but a history's first; RecBole's loaders hold a row for each."""
    return loader.n_targets if hasattr(loader, "n_targets") else len(loader.dataset)


def measure_ceiling(options: argparse.Namespace) -> dict[str, Any]:
    """Share of the machine's matrix rate that training reaches. Operations are counted over one batch, and the rate is
    taken anew beside every model."""
    rows = []
    for model in _progress(["ContRec", BASELINE], "ceiling"):
        run = _prepared(model, options.histories[0], options)
        loader = run.data.train
        time = time_training(run.trainer, loader, options.batches, options.seconds)
        rate = matrix_rate(options.matrix_sizes)
        batch = next(iter(loader))
        targets = count_targets_of(run.model)(batch)
        flops = count_training_flops(run.model, batch)
        gflops = flops.total / targets * time.targets_a_second / 1e9
        rows.append(
            {
                "model": model,
                "history": options.histories[0],
                "matrix_gflops": rate.gflops,
                "matrix_size": rate.size,
                "flops_a_target": flops.total / targets,
                "attention_share": flops.attention / flops.total,
                "targets_a_second": time.targets_a_second,
                "gflops": gflops,
                "share": gflops / rate.gflops,
                "batches_timed": time.batches,
            }
        )
    return {"dataset": options.dataset, "rows": rows}


def measure_ranking(options: argparse.Namespace) -> dict[str, Any]:
    """Full ranking by size of the catalogue, both ways."""
    points = [
        (n_items, method)
        for method in ("full_sort", "top_k")
        for n_items in options.catalogues
        if method == "top_k" or fits(options, n_items)
    ]
    rows = [isolated(ranking_point, options, *point, threads=options.threads) for point in _progress(points, "ranking")]
    growth = {}
    for method in sorted({row["method"] for row in rows}):
        own = [row for row in rows if row["method"] == method]
        growth[method] = _growth(own, "items", {"seconds": lambda row: 1 / row["users_a_second"]})
    return {"history": options.histories[0], "rows": rows, "growth": growth}


def measure_history(options: argparse.Namespace) -> dict[str, Any]:
    """Ranking and training by length of the histories."""
    rows = [
        isolated(history_point, options, length, threads=options.threads)
        for length in _progress(options.lengths, "history")
    ]
    return {
        "items": options.items,
        "rows": rows,
        "growth": _growth(
            rows,
            "history",
            {
                "ranking seconds a user": lambda row: 1 / row["users_a_second"],
                "training seconds a target": lambda row: 1 / row["targets_a_second"],
            },
        ),
    }


def measure_users(options: argparse.Namespace) -> dict[str, Any]:
    """Everything that a run does, by number of users."""
    rows = [
        isolated(users_point, options, n_users, threads=options.threads)
        for n_users in _progress(options.users, "users")
    ]
    return {
        "items": options.items,
        "history": options.histories[0],
        "rows": rows,
        "growth": _growth(rows, "users", {"seconds": lambda row: row["seconds"]["total"]}),
    }


def measure_released(options: argparse.Namespace) -> dict[str, Any]:
    """The inference scheme of the released code against ours."""
    return next(isolated(released_point, options, threads=options.threads) for _ in _progress([None], "released"))


PARTS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "train": measure_train,
    "ceiling": measure_ceiling,
    "ranking": measure_ranking,
    "history": measure_history,
    "users": measure_users,
    "released": measure_released,
}


def _growth(rows: list[dict], size: str, measures: dict[str, Callable[[dict], float]]) -> dict[str, list]:
    """Growth exponents between neighbouring sizes, of some measures and of memory beyond the libraries'."""
    measures = {**measures, "memory": lambda row: row["peak_mib"] - row["start_mib"]}
    return {
        name: growth_exponents([row[size] for row in rows], list(map(value, rows))) for name, value in measures.items()
    }


def _progress(points: Iterable, part: str) -> Iterable:
    return tqdm(points, desc=part, ncols=100)


# results


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Measure the chosen parts, write the JSON file and give its content."""
    torch.set_num_threads(options.threads)
    options.output, options.data_path = options.output.absolute(), options.data_path and options.data_path.absolute()
    options.output.parent.mkdir(parents=True, exist_ok=True)  # an unwritable place is found before the work
    result = {
        "machine": machine(options),
        "parts": {},
        "settings": {key: value for key, value in vars(options).items() if key not in PATHS},
    }
    for part in options.parts:
        with temporary_workplace():
            result["parts"][part] = rounded(PARTS[part](options))
        write_json(options.output, result)
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
