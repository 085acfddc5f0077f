"""
benchmarks.lib.peer_speed
#########################
Epochs and rankings of peers and of our models in turns, each in a process of its own, with random weights at the start.
"""

import argparse
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tqdm import tqdm

from benchmarks.lib.machine import machine, rounded
from benchmarks.lib.measuring import isolated, seconds_of
from benchmarks.lib.peers import PeerRun, Split, run_peer
from benchmarks.lib.runs import Run

ROUND = ("epoch_seconds", "users_a_second", "peak_mib")


def measure(
    options: argparse.Namespace, python: str, split: Split, peers: Sequence[PeerRun], ours: Sequence[Run]
) -> dict[str, Any]:
    """One epoch and one ranking of every contender, in each of some rounds.

    Args:
        options: ``threads``, ``rounds``, and ``data_path``.

    Returns:
        dict: ``machine``, ``dataset``, ``users``, ``rounds``, and ``rows``: a contender each, with what it did in every
        round, peers first.
    """
    facts = machine(options)
    with TemporaryDirectory() as place:
        contenders: dict[str, Callable[[], dict[str, Any]]] = {
            **{_name(peer.run): partial(time_peer, python, split, peer.asked) for peer in peers},
            **{_name(run): partial(_time_apart, run, options, Path(place) / "saved") for run in ours},
        }
        found: dict[str, list[dict[str, Any]]] = {name: [] for name in contenders}
        turns = [name for _ in range(options.rounds) for name in contenders]
        with tqdm(turns, unit="turn", dynamic_ncols=True) as bar:
            for name in bar:
                bar.set_description(f"an epoch and a ranking of {name}")
                found[name].append(contenders[name]())
    return rounded(
        {
            "machine": facts,
            "dataset": split.config["dataset"],
            "users": split.task.n_users,
            "interactions": len(split.task.items),
            "rounds": options.rounds,
            "rows": [
                {
                    "name": name,
                    "peer": name in {_name(peer.run) for peer in peers},
                    "interactions_an_epoch": rounds[0]["interactions_an_epoch"],
                    **{what: [one[what] for one in rounds] for what in ROUND},
                }
                for name, rounds in found.items()
            ],
        }
    )


def time_peer(python: str, split: Split, asked: dict[str, Any]) -> dict[str, Any]:
    """An epoch of a peer, and its own function for the best items of all users.

    Raises:
        RuntimeError: it failed.
    """
    with TemporaryDirectory() as folder:
        _, outcome = run_peer(python, Path(folder), split, {**asked, "epochs": 1})
    return {
        "epoch_seconds": outcome["epoch_seconds"][0],
        "users_a_second": split.task.n_users / outcome["recommend_seconds"],
        "peak_mib": outcome["peak_memory_mib"],
        "interactions_an_epoch": outcome["interactions_an_epoch"],
    }


def _name(run: Run) -> str:
    return run.name or run.model


def _time_apart(run: Run, options: argparse.Namespace, saved: Path) -> dict[str, Any]:
    arguments = [*run.arguments(options.data_path), f"--checkpoint_dir={saved}"]
    return isolated(time_ours, run.model, run.dataset, arguments, threads=options.threads)


def time_ours(model: str, dataset: str, arguments: list[str]) -> dict[str, Any]:
    """An epoch of one of ours, and its evaluation of all test users: reading histories, scores, best items, metrics.
    What it fits before training is not in it, and found again in the folder of ``--checkpoint_dir``."""
    from recbole_contrec.data.loading import load_data
    from recbole_contrec.quick_start import assemble
    from recbole_contrec.settings.config import Config

    config = Config(model, dataset, arguments=arguments)
    loaded = assemble(config, load_data(config))
    trainer, data = loaded.trainer, loaded.data
    trainer.begin(data.train)
    seconds = seconds_of(lambda: trainer.train_epoch(data.train, 0))
    trainer.evaluate(data.test, load_best_model=False)
    return {
        "epoch_seconds": seconds,
        "users_a_second": trainer.evaluation_speed,
        "interactions_an_epoch": len(data.train_dataset.histories.items),
    }
