"""
benchmarks.index
################
What an approximate search finds, and how fast: random unit vectors, or a trained model, for some values of ef_search.

    python benchmarks/index.py --items 100000 --width 64 --users 256
    python benchmarks/index.py --checkpoint=saved/RUN --users 256

Recall is the share of the exact top 10 that is found. Random vectors are a hard case: no item has near neighbours.
"""

if not __package__:  # run by its path: see run_as_module
    from lib.checkout import run_as_module

    run_as_module(__file__)

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from itertools import islice
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor

from benchmarks.lib.command_line import Parser, number
from recbole_contrec.errors import UserError
from recbole_contrec.retrieval import Retrieval

K = 10


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print a table; 0, or 2 if that was not possible."""
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    try:
        retrieval, items, asked = of_checkpoint(options) if options.checkpoint else synthetic(options)
        measure(retrieval, items, asked, options.ef)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of the command line."""
    parser, positive = Parser("Recall and speed of an approximate search."), partial(number, int, 1, None)
    parser.formatter_class = argparse.ArgumentDefaultsHelpFormatter
    add = parser.add_argument
    add("--checkpoint", type=Path, help="a trained ContRec, DeftRec or TokenRec; random vectors if not given")
    add("--items", type=positive, default=100_000, help="random vectors")
    add("--width", type=positive, default=64, help="of random vectors")
    add("--users", type=positive, default=256, help="ranked in each repetition")
    add("--ef", nargs="+", type=positive, default=[50, 100, 200, 400, 800], help="candidates that a search keeps")
    add("--threads", type=positive, default=1, help="threads of torch and faiss")
    return parser.parse_args(arguments)


def synthetic(options: argparse.Namespace) -> tuple[Retrieval, Tensor, tuple[Tensor, Tensor | None]]:
    """Random item vectors and preferences."""
    torch.manual_seed(0)
    items = torch.randn(options.items + 1, options.width)
    return Retrieval("cosine"), items, (torch.randn(options.users, options.width), None)


@torch.no_grad()
def of_checkpoint(options: argparse.Namespace) -> tuple[Retrieval, Tensor, tuple[Tensor, Tensor | None]]:
    """The vectors of a trained model, and the preferences of its first users.

    Raises:
        UserError: no such checkpoint, or a model that does not rank by item vectors.
    """
    from recbole_contrec.people import as_interaction, known_people
    from recbole_contrec.recommendation import check_index
    from recbole_contrec.reloading import load_data_and_model

    loaded = load_data_and_model(options.checkpoint)
    check_index(loaded.model, loaded.config["model"], "hnsw")
    people = list(islice(known_people(loaded, None), options.users))
    interaction = as_interaction(loaded.config, people).to(loaded.config["device"])
    preference = loaded.model.generate_preferences(interaction)
    history = interaction[loaded.model.ITEM_SEQ]
    return loaded.model.retrieval, loaded.model.item_vectors.weight, (preference, history)


@torch.no_grad()
def measure(
    retrieval: Retrieval, items: Tensor, asked: tuple[Tensor, Tensor | None], widths: Sequence[int]
) -> list[tuple[str, float, float]]:
    """Search exactly, then with each ef_search; prints a line each.

    Returns:
        list: name, recall and users a second.
    """
    preference, history = asked
    users, lines = preference.shape[-2], []

    def timed(name: str) -> Tensor:
        start = perf_counter()
        found = retrieval.top_k(preference, items, K, None, history)[1]
        speed = users / (perf_counter() - start)
        wanted = exact if lines else found
        recall = float((wanted[:, :, None] == found[:, None]).any(2).float().mean())
        lines.append((name, recall, speed))
        print(f"{name:<16} recall@{K} {recall:.4f} {speed:12,.1f} users/s", flush=True)
        return found

    exact = Tensor()
    exact = timed("exact")
    start = perf_counter()
    with retrieval.searching(items, min(widths)):
        print(f"graph of {len(items) - 1:,} items built in {perf_counter() - start:.1f} s", flush=True)
        for width in widths:
            assert retrieval.approximate is not None
            retrieval.approximate.index.ef_search = width
            timed(f"ef_search={width}")
    return lines


if __name__ == "__main__":
    sys.exit(main())
