"""
benchmarks.beam
###############
What retrieval in one pass is worth: TokenRec beside the same codes and decoder that write the next item by beam search.

    python benchmarks/beam.py --dataset=ml-100k
    python benchmarks/compare.py --dataset=ml-100k --models TokenRec TokenRec-beam    # first, for accuracy beside speed

All rank the same test users in one process, in turns, on the CPU; the same search is also timed as it is commonly
written, by transformers' ``generate``, on fewer users. Tokenizers are fitted, other weights are as they start: the
clock does not see them. Further ``--key=value`` settings go to every model. The result is ``OUTPUT/DATASET/beam.json``;
where that folder holds finished runs, their accuracy stands beside the speed; that of TokenRec without its repeat bias,
which the beam cannot have, as well, from the row ``TokenRec,repeat_bias=False`` (``compare.py --name``).
"""

if not __package__:  # run by its path: see run_as_module
    from lib.checkout import run_as_module

    run_as_module(__file__)

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from tqdm import tqdm

from benchmarks.lib.beam_generate import GenerateScheme
from benchmarks.lib.command_line import Parser, name_of_a_folder, number, refuse_odd_settings, results_folder
from benchmarks.lib.machine import machine, rounded
from benchmarks.lib.measuring import seconds_of, temporary_workplace
from benchmarks.lib.runs import RESULTS
from benchmarks.report.beam import BASE, BEAM, RECORD, accuracy, report
from recbole_contrec.data.loading import load_data
from recbole_contrec.errors import UserError
from recbole_contrec.quick_start import LoadedRun, assemble
from recbole_contrec.settings.config import Config
from recbole_contrec.training.results import write_json

# The one between tells what the longer prompt costs from what the search costs.
CONTENDERS = {BASE: (BASE,), f"{BASE}, a position a code": (BASE, "--item_positions=each"), BEAM: (BEAM,)}
COMMON = "the same search by transformers' generate"


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write the record and print the table; 0, or 2 if that was not possible."""
    options, settings = _parse(arguments)
    folder = (options.output / options.dataset).absolute()
    try:
        record = rounded({**measure(options, settings), "accuracy": accuracy(folder)})  # the table of what is written
        write_json(folder / RECORD, record)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(report(record))
    return 0


def measure(options: argparse.Namespace, settings: Sequence[str]) -> dict[str, Any]:
    """Users a second of every contender.

    Raises:
        UserError: the models cannot be built with these settings.
    """
    torch.set_num_threads(options.threads)
    facts = {"dataset": options.dataset, "machine": machine(options), "settings": list(settings)}
    settings = [
        *settings,
        "--use_gpu=False",
        "--show_progress=False",
        *([f"--data_path={options.data_path.absolute()}"] if options.data_path else []),
    ]
    width = [f"--beam_size={options.beam_size}"] if options.beam_size else []
    with temporary_workplace():
        runs = {
            name: _prepared(model, options.dataset, [*settings, *own, *(width if model == BEAM else [])])
            for name, (model, *own) in CONTENDERS.items()
        }
        batches = {name: [batch[0] for batch in run.data.test] for name, run in runs.items()}
        seconds = {name: [] for name in runs}
        turns = [(turn, name) for turn in range(1 + options.rounds) for name in runs]  # the first one warms up
        for turn, name in tqdm(turns, desc="ranking", ncols=100):
            taken = seconds_of(partial(rank, runs[name], batches[name]))
            seconds[name] += [taken] if turn else []
        few = batches[BEAM][0][: options.generate_users]
        scheme = GenerateScheme(runs[BEAM].model, runs[BEAM].config["beam_size"])
        scheme.items(few[:1])  # warms up
        generate = seconds_of(lambda: scheme.items(few))
    config, users = runs[BEAM].config, sum(map(len, batches[BEAM]))
    rows = [row(name, users, seconds) for name in runs]
    rows.append(generate_row(len(few), generate, rows[0]))
    return {
        **facts,
        "users": users,
        "batch_size": config["eval_batch_size"],
        "history": config["MAX_ITEM_LIST_LENGTH"],
        "items": runs[BEAM].model.n_items - 1,
        "num_codebooks": config["num_codebooks"],
        "codebook_size": runs[BEAM].model.decoder.item_codes.codebook_size,
        "beam_size": config["beam_size"],
        "rows": rows,
    }


def _prepared(model: str, dataset: str, arguments: list[str]) -> LoadedRun:
    """A model in eval mode, its stages finished; what one model has fitted, the next finds on disk."""
    config = Config(model, dataset, arguments=arguments)
    loaded = assemble(config, load_data(config))
    loaded.trainer.begin(loaded.data.train)
    loaded.model.eval()
    return loaded


@torch.no_grad()
def rank(run: LoadedRun, batches: list) -> None:
    """The best items of every user, as RecBole's evaluation takes them."""
    for batch in batches:
        scores = run.model.full_sort_predict(batch)  # [B, N]
        scores[:, 0] = -torch.inf
        scores.topk(max(run.config["topk"]))


def row(name: str, users: int, seconds: dict[str, list[float]]) -> dict[str, Any]:
    """The medians of one contender over rounds, and its time as a multiple of TokenRec's round by round."""
    own = seconds[name]
    ratios = [taken / base for taken, base in zip(own, seconds[BASE], strict=True)]
    return {
        "name": name,
        "users_a_second": median(users / taken for taken in own),
        "seconds": own,
        "times_slower": median(ratios),
        "times_slower_range": [min(ratios), max(ratios)],
    }


def generate_row(users: int, seconds: float, base: dict[str, Any]) -> dict[str, Any]:
    """One timing of :class:`~benchmarks.lib.beam_generate.GenerateScheme` on fewer users, against TokenRec's users a
    second."""
    speed = users / seconds
    slower = base["users_a_second"] / speed
    return {
        "name": COMMON,
        "users_a_second": speed,
        "seconds": [seconds],
        "users": users,
        "times_slower": slower,
        "times_slower_range": [slower, slower],
    }


def _parse(arguments):
    parser, positive = Parser(__doc__), partial(number, int, 1, None)
    parser.add_argument("--dataset", required=True, type=name_of_a_folder)
    parser.add_argument("--data_path", type=Path, help="folder of data sets that RecBole does not ship")
    parser.add_argument("--beam_size", type=positive, help="another than TokenRec-beam's own")
    parser.add_argument("--rounds", type=positive, default=5, help="of which the median counts (5)")
    parser.add_argument("--threads", type=positive, default=1, help="threads of torch (1)")
    parser.add_argument(
        "--generate_users", type=positive, default=32, help="users for transformers' generate, which is slow (32)"
    )
    parser.add_argument(
        "--output", type=results_folder, default=RESULTS, help="folder for results (benchmarks/results)"
    )
    options, settings = parser.parse_known_args(arguments)
    refuse_odd_settings(parser, settings)
    return options, settings


if __name__ == "__main__":
    sys.exit(main())
