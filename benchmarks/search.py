"""
benchmarks.search
#################
How fast identifiers are found that are items: TIGER's beam search on a data set, part by part, and as the catalogue
grows.

    python benchmarks/search.py --dataset=ml-1m --data_path=FOLDER      # both parts, results/search.json
    python benchmarks/search.py --parts catalogue --catalogues 1000 1000000 --output=growth.json
    python benchmarks/search.py --summary=benchmarks/results/search.json        # the tables of an earlier run

``users`` ranks the test rows of a data set on the CPU: identifiers are made by a quick method, weights are as they
start, which the clock does not see. ``catalogue`` searches random identifiers, once behind a table of random
log-probabilities, so that nothing else is timed, and once behind the model. Further ``--key=value`` settings go to
every TIGER. Core-seconds are processor time over all threads: they are not disturbed by what else the machine computes.
"""

if not __package__:  # run by its path: see run_as_module
    from lib.checkout import run_as_module

    run_as_module(__file__)

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode
from tqdm import tqdm

from benchmarks.lib.command_line import Parser, number, refuse_odd_settings
from benchmarks.lib.flops import ATTENTION
from benchmarks.lib.machine import machine, rounded
from benchmarks.lib.measuring import growth_exponents, isolated, temporary_workplace
from benchmarks.lib.runs import RESULTS
from benchmarks.lib.synthetic import SyntheticDataset, random_histories
from benchmarks.report.search import GROWING, report
from recbole_contrec.backbone import CausalDecoder
from recbole_contrec.data.loading import load_data
from recbole_contrec.decoding import CodeTrie, beam_search
from recbole_contrec.errors import UserError
from recbole_contrec.model.semantic_ids import code_decoder
from recbole_contrec.quick_start import assemble
from recbole_contrec.settings.config import Config
from recbole_contrec.training.results import write_json

MODEL = "TIGER"
DEPTH = 4  # codes of a random identifier
SMALL, CODES = 10**5, (256, 1024)  # codes of a codebook below so many items, and from there on
PATHS = ("output", "summary", "data_path")  # options that say where, not what
# Parts of the work by the function that does them; what one calls of another counts for the other.
WORK = {
    "search": (code_decoder, "beam_search"),
    "heads": (code_decoder.CodeWriter, "__call__"),
    "prompt": (CausalDecoder, "start"),
    "decoder": (CausalDecoder, "step"),
}
REST = "rest"  # what no part does: groups of equal lengths, scores of the whole catalogue


class Timing(NamedTuple):
    """Medians of one piece of work over some rounds."""

    seconds: float  # by the clock
    core_seconds: float  # of processor time, over all threads


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, write the record and print its tables; 0, or 2 if that was not possible."""
    options = _parse(arguments)
    try:
        record = json.loads(options.summary.read_text(encoding="utf-8")) if options.summary else measure(options)
    except (UserError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(report(record))
    return 0


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Measure the chosen parts; the record is written after each.

    Raises:
        UserError: the model cannot be built with these settings.
    """
    torch.set_num_threads(options.threads)
    record = {
        "machine": machine(options),
        "parts": {},
        "settings": {key: value for key, value in vars(options).items() if key not in PATHS},
    }
    output = options.output.absolute()
    options.data_path = options.data_path and options.data_path.absolute()
    for part in options.parts:
        with temporary_workplace():
            record["parts"][part] = rounded(PARTS[part](options))
        write_json(output, record)
    return record


# on a data set


def measure_users(options: argparse.Namespace) -> dict[str, Any]:
    """Users of the test set ranked a second, and what each part of the work has of time and operations."""
    config = _configure(options, {"semantic_ids": options.semantic_ids})
    loaded = assemble(config, load_data(config))
    loaded.trainer.begin(loaded.data.train)
    model, batches = loaded.model.eval(), [batch[0] for batch in loaded.data.test][: options.batches]
    users = sum(map(len, batches))

    def rank():
        for batch in tqdm(batches, desc="ranking", ncols=100, leave=False):
            model.full_sort_predict(batch)

    time = timed(rank, options.rounds)
    core_seconds, flops = by_part(rank, process_time), flops_by_part(lambda: model.full_sort_predict(batches[0]))
    lengths = torch.cat([batch[model.ITEM_SEQ_LEN] for batch in batches]).double()
    return {
        "dataset": options.dataset,
        "users": users,
        "batch_size": config["eval_batch_size"],
        "history": config["MAX_ITEM_LIST_LENGTH"],
        "mean_history": float(lengths.mean()),
        "semantic_ids": options.semantic_ids,
        "beam_size": config["beam_size"],
        **_about_trie(model.decoder.trie),
        "users_a_second": users / time.seconds,
        "users_a_core_second": users / time.core_seconds,
        "core_share": {part: spent / sum(core_seconds.values()) for part, spent in core_seconds.items()},
        "mflop_a_user": {part: count / len(batches[0]) / 1e6 for part, count in flops.items()},
    }


def by_part(work: Callable[[], Any], read: Callable[[], float]) -> dict[str, float]:
    """What a rising counter gained in each part of :data:`WORK`, and in the rest of ``work``."""
    gained, open_parts, last = dict.fromkeys((*WORK, REST), 0), [], read()

    def count():
        nonlocal last
        now = read()
        if open_parts:
            gained[open_parts[-1]] += now - last
        last = now

    def counted(part, function):
        def call(*arguments, **named):
            count()
            open_parts.append(part)
            try:
                return function(*arguments, **named)
            finally:
                count()
                open_parts.pop()

        return call

    patches = [
        mock.patch.object(place, name, counted(part, getattr(place, name))) for part, (place, name) in WORK.items()
    ]
    for patch in patches:
        patch.start()
    try:
        counted(REST, work)()
    finally:
        for patch in patches:
            patch.stop()
    return gained


def flops_by_part(work: Callable[[], Any]) -> dict[str, float]:
    """Operations of matrix products in each part of the work, see :mod:`benchmarks.lib.flops`."""
    with FlopCounterMode(display=False, custom_mapping=ATTENTION) as counter:
        return by_part(work, counter.get_total_flops)


# as the catalogue grows


def measure_catalogue(options: argparse.Namespace) -> dict[str, Any]:
    """A point a size of the catalogue, each in a process of its own, and growth between neighbours."""
    rows = [
        isolated(catalogue_point, options, n_items, threads=options.threads)
        for n_items in tqdm(options.catalogues, desc="catalogue", ncols=100)
    ]
    sizes = [row["items"] for row in rows]
    return {
        "users": options.users,
        "history": options.history,
        "beam_size": options.beam_size,
        "rows": rows,
        "growth": {name: growth_exponents(sizes, list(map(value, rows))) for name, value in GROWING.items()},
    }


@torch.no_grad()
def catalogue_point(options: argparse.Namespace, n_items: int) -> dict[str, Any]:
    """The tree of a catalogue, and a batch of users searched along it."""
    n_codes, rounds = CODES[n_items >= SMALL], options.rounds
    codes = distinct_codes(n_items, n_codes, DEPTH, options.seed)
    trie = CodeTrie(codes, n_codes)
    building = timed(lambda: CodeTrie(codes, n_codes), rounds)
    drawn = torch.Generator().manual_seed(options.seed)
    log_probs = torch.randn(options.users, options.beam_size, n_codes, generator=drawn).log_softmax(-1)

    def search(excluded=None):
        return beam_search(
            trie, options.beam_size, lambda codes, _: log_probs[:, : 1 if codes is None else codes.shape[1]], excluded
        )

    model, batch = _untrained(options, codes, n_codes)
    seen = batch[model.ITEM_SEQ]
    work = {
        "search": search,
        "search_excluded": lambda: search(seen),
        "model": lambda: model.generate(batch),
        "model_excluded": lambda: model.generate(batch, excluded=seen),
    }
    times = {name: timed(function, rounds)._asdict() for name, function in work.items()}
    spent = by_part(work["model_excluded"], process_time)
    return {
        "items": n_items,
        "codebook_size": n_codes,
        **_about_trie(trie),
        "building": building._asdict(),
        **times,
        "core_share": {part: seconds / sum(spent.values()) for part, seconds in spent.items()},
    }


def distinct_codes(n_items: int, n_codes: int, depth: int, seed: int) -> Tensor:
    """Random codes [1 + N, K] that no two items share, the padding's in front."""
    generator = torch.Generator().manual_seed(seed)
    numbers = torch.randint(n_codes**depth, (2 * n_items,), generator=generator).unique()
    numbers = numbers[torch.randperm(len(numbers), generator=generator)[:n_items]]
    codes = torch.stack([numbers // n_codes**level % n_codes for level in reversed(range(depth))], dim=1)
    return torch.cat([codes[:1], codes])


def _untrained(options, codes, n_codes):
    """A model with random weights and given identifiers, and a batch of users with full histories."""
    torch.manual_seed(options.seed)
    n_items, length = len(codes) - 1, options.history
    config = _configure(
        options, {"codebook_size": n_codes, "num_codebooks": codes.shape[1] - 1, "MAX_ITEM_LIST_LENGTH": length}
    )
    histories = random_histories(options.users, n_items, length, length, options.seed)
    dataset = SyntheticDataset(config, histories, n_items)
    model = config.model_class(config, dataset).eval()
    model.decoder.assign(codes)
    return model, next(dataset.ranking_batches(length, options.users))


PARTS: dict[str, Callable[[argparse.Namespace], dict[str, Any]]] = {
    "users": measure_users,
    "catalogue": measure_catalogue,
}


# both


@torch.no_grad()
def timed(function: Callable[[], Any], rounds: int) -> Timing:
    """Medians of some calls, after one to warm up."""
    function()
    taken = []
    for _ in range(rounds):
        start, spent = perf_counter(), process_time()
        function()
        taken.append((perf_counter() - start, process_time() - spent))
    return Timing(*map(median, zip(*taken)))


def _about_trie(trie: CodeTrie) -> dict[str, Any]:
    return {"items": len(trie.items), "widest": trie.widest, "trie_bytes": trie.nbytes}


def _configure(options, own: dict[str, Any]) -> Config:
    """Of TIGER; ``own`` settings of a measurement have the last word."""
    values = {
        **dict(argument[2:].split("=", 1) for argument in options.settings),
        "beam_size": options.beam_size,
        "seed": options.seed,
        "backbone": "causal",
        "use_gpu": False,
        "show_progress": False,
        **own,
    }
    values.update({"data_path": options.data_path} if options.data_path else {})
    return Config(MODEL, options.dataset, arguments=[f"--{key}={value}" for key, value in values.items()])


def _parse(arguments):
    parser, _positive = Parser(__doc__), partial(number, int, 1, None)
    add = parser.add_argument
    add("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="what to measure (both)")
    add("--dataset", default="ml-100k", help="whose test users are ranked (ml-100k)")
    add("--data_path", type=Path, help="folder of data sets that RecBole does not ship")
    add("--semantic_ids", default="rkmeans", help="how the items of the data set get theirs (rkmeans)")
    add("--batches", type=_positive, help="of the test set, at most (all)")
    add("--catalogues", nargs="+", type=_positive, default=[10**3, 10**4, 10**5, 10**6], help="items, catalogue")
    add("--users", type=_positive, default=128, help="searched for at once, catalogue (128)")
    add("--history", type=_positive, default=50, help="items a user, catalogue (50)")
    add("--beam_size", type=_positive, default=20, help="beams (20)")
    add("--rounds", type=_positive, default=3, help="of which the median counts (3)")
    add("--threads", type=_positive, default=2, help="threads of torch (2)")
    add("--seed", type=int, default=2020, help="of random identifiers, histories and weights (2020)")
    add("--output", type=Path, default=RESULTS / "search.json", help="JSON file for the results")
    add("--summary", type=Path, help="measure nothing: print the tables of this JSON file")
    options, options.settings = parser.parse_known_args(arguments)
    refuse_odd_settings(parser, options.settings)
    return options


if __name__ == "__main__":
    sys.exit(main())
