"""
benchmarks.peers
################
Recommenders that one would pick instead, on the same files and split: RecTools' SASRec and BERT4Rec beside ours.

    python -m venv peers && peers/bin/pip install "rectools[torch]"
    python benchmarks/peers.py --dataset=ml-1m --peer_python=peers/bin/python

The peers run in that other environment. They read the training histories of our split and no more, validate after
every epoch by ranking the whole catalogue, and leave the places of the targets; RecBole's metrics and our tests judge
them as they judge ours. All contenders read ``--history`` items at ``--width`` and ``--layers``, and a peer has as many
targets a step as the first of ours; what else they have is their own, for the peers RecTools' defaults or
``--peer_settings``.

``--parts accuracy`` trains all of them, ours as ``compare.py`` does; finished runs are kept, killed ones go on after
their last epoch. ``--parts speed`` then trains every one for one epoch and ranks the test users, in turns, and prints
how many times as fast as the first peer ours are. Everything is computed on the CPU. Further ``--key=value`` settings
go to ours. The tables are written to ``OUTPUT/DATASET-peers/README.md``.
"""

if not __package__:  # run by its path: see run_as_module
    from lib.checkout import run_as_module

    run_as_module(__file__)

import argparse
import sys
from functools import partial
from pathlib import Path

import numpy as np

from benchmarks.lib import peers as lib
from benchmarks.lib.command_line import name_of_a_folder, number, parse_with_settings, told
from benchmarks.lib.peer_speed import measure
from benchmarks.lib.peers import PeerRun, Split, split_of, threads_of_runs, versions_of
from benchmarks.lib.running import FIRST_SEED, common_parser, conclude, one_by_one, run_all, seeds_of
from benchmarks.lib.runs import Run
from benchmarks.report.peers import SPEED, tables
from benchmarks.report.rows import PEERS

EPOCHS, PATIENCE = 100, 15  # of the peers; ours have the same patience
N_HEADS = 2


@told
def main(arguments: list[str] | None = None) -> int:
    """Run what is missing, then write the tables; 0, 1 if a run failed, 2 if it was asked for what cannot be."""
    given = _parse(arguments)
    folder = given.output / f"{given.dataset}-peers"
    failed = [] if given.tables_only else _run(given, folder)
    return conclude(folder, lambda: f"# {given.dataset}: peers\n\n{tables(folder)}", failed)


def _run(given: argparse.Namespace, folder: Path) -> list[str]:
    """Train and measure; messages of what failed."""
    from recbole_contrec.training.results import write_json

    versions = versions_of(given.peer_python)
    python = str(Path(given.peer_python).absolute())  # not resolved: an environment's Python is a link to another one
    ours = [
        Run(model, given.dataset, seed, folder, None, equal_settings(model, given))
        for seed in seeds_of(given)
        for model in given.models
    ]
    split = load_split(ours[0], given)
    peers = peer_runs(given, folder, split)
    failed: list[str] = []
    if "accuracy" in given.parts:
        todo = lib.missing(peers, split, given.again)
        with threads_of_runs(given.threads):
            failed += run_all(ours, given.data_path, given.again)
        failed += one_by_one(todo, lambda peer, show: lib.execute(peer, python, split, versions, show))
    if "speed" in given.parts:
        first = [run for run in ours if run.seed == FIRST_SEED]
        try:
            record = measure(given, python, split, [peer for peer in peers if peer.run.seed == FIRST_SEED], first)
        except RuntimeError as error:
            return [*failed, str(error)]
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / SPEED, {**record, "versions": versions})
    return failed


def load_split(run: Run, given: argparse.Namespace) -> Split:
    """The data as one of ours reads them."""
    from recbole_contrec.data.loading import load_data
    from recbole_contrec.settings.config import Config

    config = Config(run.model, run.dataset, arguments=run.arguments(given.data_path))
    return split_of(config, load_data(config))


def equal_settings(model: str, given: argparse.Namespace) -> tuple[str, ...]:
    """Settings of one of ours: history, width, layers and device alike, then those of the command line."""
    from recbole_contrec.settings.config import Config

    plain = Config(model, given.dataset, arguments=[f"--data_path={given.data_path}"] if given.data_path else [])
    wanted = {
        "MAX_ITEM_LIST_LENGTH": given.history,
        "n_layers": given.layers,
        "n_heads": N_HEADS,
        "hidden_size": given.width,
        "vector_size": given.width,
        "denoiser_width": given.width,
        "inner_size": 4 * given.width,
        "epochs": given.epochs,
        "use_gpu": False,
    }
    own = [f"--{key}={value}" for key, value in wanted.items() if key in plain.settings and value is not None]
    return tuple({text.partition("=")[0]: text for text in (*own, *given.settings)}.values())


def peer_runs(given: argparse.Namespace, folder: Path, split: Split) -> list[PeerRun]:
    """The runs of the peers: names, places and what each is told."""
    settings = {
        "session_max_len": given.history,
        "n_factors": given.width,
        "n_blocks": given.layers,
        "n_heads": N_HEADS,
        "batch_size": histories_a_step(split, given.history),
        **dict(given.peer_settings),
    }
    suffix = "".join(f",{key}={value}" for key, value in given.peer_settings)
    return [
        PeerRun(
            Run(peer, given.dataset, seed, folder, peer + suffix),
            {
                "model": peer.partition("-")[2],
                "settings": settings,
                "epochs": given.epochs or EPOCHS,
                "patience": PATIENCE,
                "seed": seed,
                "threads": given.threads,
                "top": max(split.config["topk"]),
            },
        )
        for seed in seeds_of(given)
        for peer in given.peers
    ]


def histories_a_step(split: Split, length: int) -> int:
    """Histories that have together as many targets as a step of ours, on average."""
    targets = np.minimum(np.diff(split.task.offsets) - 1, length)
    return max(1, round(split.config["train_batch_size"] / targets.mean()))


def _peer_setting(text: str) -> tuple[str, int | float | str]:
    """``KEY=VALUE``; numbers are numbers."""
    key, equals, value = text.partition("=")
    if not equals or not key.isidentifier():
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    name_of_a_folder(value)
    for kind in (int, float):
        try:
            return key, kind(value)
        except ValueError:
            continue
    return key, value


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser, positive = common_parser(__doc__, seeds=1), partial(number, int, 1, None)
    add = parser.add_argument
    add("--peer_python", help="Python of the environment that has RecTools")
    add("--parts", nargs="+", choices=("accuracy", "speed"), default=["accuracy", "speed"], help="what to do (both)")
    add("--peers", nargs="+", choices=PEERS, default=list(PEERS), help="the first one is what speed is compared with")
    add("--models", nargs="+", type=name_of_a_folder, default=["ContRec", "SASRecAll"], help="ours")
    add("--peer_settings", nargs="+", type=_peer_setting, default=[], metavar="KEY=VALUE", help="of RecTools' models")
    add("--epochs", type=positive, help=f"at most, of all (ours as in their YAML, the peers {EPOCHS})")
    add("--history", type=positive, default=200, help="items that are read (200)")
    add("--width", type=positive, default=64, help="of the networks (64)")
    add("--layers", type=positive, default=2, help="of the networks (2)")
    add("--rounds", type=positive, default=3, help="of the turns in speed, of which the median counts (3)")
    add("--threads", type=positive, default=1, help="threads of torch (1)")
    return parse_with_settings(parser, arguments)


if __name__ == "__main__":
    sys.exit(main())
