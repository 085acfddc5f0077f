"""
benchmarks.lib.peers
####################
Recommenders of other packages, run in an environment of their own on our split and judged by our evaluator.

A run of theirs leaves the same two files as one of ours (:mod:`benchmarks.lib.runs`), so that the same tables show
both. What is there of other settings or data is an error, a killed run goes on after its last epoch, as with ours.
"""

import json
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from recbole.evaluator import Evaluator
from recbole.evaluator.collector import DataStruct

from benchmarks.lib import checkout
from benchmarks.lib.asked import file_hashes
from benchmarks.lib.held_out import require_one_target
from benchmarks.lib.runs import Run, follow, read
from benchmarks.peer.exchange import MASKED, OUTCOME, STATE, TEST, VALID, Ranked, Task, read_outcome, write_task
from recbole_contrec.data.loading import RunData
from recbole_contrec.environment import git_commit
from recbole_contrec.errors import UserError
from recbole_contrec.settings.config import Config
from recbole_contrec.showing import show
from recbole_contrec.training.card import protocol_facts
from recbole_contrec.training.results import write_json

SCRIPT = "benchmarks.peer.rectools_run"
PACKAGE = "RecTools"
INSTALL = "python -m venv peers && peers/bin/pip install 'rectools[torch]', then --peer_python=peers/bin/python"
NO_MATTER = ("threads",)
BEGUN = "begun.json"  # in a working folder: what its run was started with


@dataclass(frozen=True)
class Split:
    """The data of all contenders.

    Attributes:
        config, data: of one of ours, which say how they were read and split.
        task: the same for a peer.
        hashes: of the files.
        names: of the users [U], in the order of the task.
    """

    config: Config
    data: RunData
    task: Task = field(repr=False)
    hashes: dict[str, str]
    names: np.ndarray = field(repr=False)


@dataclass(frozen=True)
class PeerRun:
    """One run of a peer.

    Attributes:
        run: where its result lies.
        asked: what the peer is told: ``model``, ``settings`` of its constructor, ``epochs`` at most, ``patience`` in
            epochs, ``seed``, ``threads``, and ``top``, the length of the lists that it leaves.
    """

    run: Run
    asked: dict[str, Any]

    def __str__(self):
        return str(self.run)


def split_of(config: Config, data: RunData) -> Split:
    """Histories and targets of a data set in the order of its users.

    Args:
        config: of a model that trains on whole histories.

    Raises:
        UserError: another split than leave-one-out.
    """
    require_one_target(config)
    dataset, histories = data.dataset, data.train_dataset.histories
    targets = []
    for part in (data.valid, data.test):
        rows = part.dataset.inter_feat
        of_user = np.zeros(dataset.user_num, dtype=np.int64)  # RecBole's order is another one
        of_user[rows[dataset.uid_field].numpy()] = rows[dataset.iid_field].numpy()
        targets.append(of_user[histories.users])
    return Split(
        config,
        data,
        Task(dataset.item_num - 1, histories.items, histories.offsets, *targets),
        file_hashes(config, Path()),
        np.asarray(dataset.id2token(dataset.uid_field, histories.users), dtype=str),
    )


# the other environment


def versions_of(python: str | None) -> dict[str, str]:
    """What is installed there.

    Raises:
        UserError: there is no such Python, or it has no RecTools: says what to install.
    """
    if python is None:
        raise UserError(f"{PACKAGE} runs in an environment of its own: {INSTALL}")
    command = [python, "-m", SCRIPT, "--versions"]
    try:
        found = subprocess.run(command, env=environment(1), capture_output=True, text=True)
    except OSError as error:
        raise UserError(
            f"--peer_python={python}: {error.strerror}. {PACKAGE} needs an environment: {INSTALL}"
        ) from error
    if found.returncode:
        said = (found.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(f"--peer_python={python} cannot run {PACKAGE} ({said}): {INSTALL}")
    return json.loads(found.stdout.splitlines()[-1])


def environment(threads: int) -> dict[str, str]:
    """Variables of a process over there, which finds this checkout and nothing else of ours."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONHOME", "VIRTUAL_ENV")}
    return {**kept, "PYTHONPATH": str(checkout.ROOT), "OMP_NUM_THREADS": str(threads), "PYTHONSAFEPATH": "1"}


@contextmanager
def threads_of_runs(threads: int) -> Iterator[None]:
    """The threads that runs of ours start with meanwhile."""
    before = os.environ.get("OMP_NUM_THREADS")
    os.environ["OMP_NUM_THREADS"] = str(threads)
    try:
        yield
    finally:
        if before is None:
            del os.environ["OMP_NUM_THREADS"]
        else:
            os.environ["OMP_NUM_THREADS"] = before


def run_peer(
    python: str,
    folder: Path,
    split: Split,
    asked: dict[str, Any],
    on_epoch: Callable[[int, float], None] = lambda *_: None,
) -> tuple[dict[str, Ranked], dict[str, Any]]:
    """Have a peer train and rank in a folder, where it goes on with what it finds.

    Returns:
        tuple: the rankings by name, and how it went.

    Raises:
        RuntimeError: it failed; quotes the end of its output.
    """
    folder.mkdir(parents=True, exist_ok=True)
    write_task(folder, split.task, asked)
    command = [python, "-m", SCRIPT, str(folder.resolve())]
    code, tail = follow(command, folder, environment(asked["threads"]), on_epoch)
    if code or not (folder / OUTCOME).is_file():
        raise RuntimeError(f"{PACKAGE}'s {asked['model']} failed with exit code {code}:\n{tail}")
    return read_outcome(folder)


# runs and their results


def missing(runs: Sequence[PeerRun], split: Split, again: bool) -> list[PeerRun]:
    """Those of some runs that are not finished.

    Args:
        again: what is there of other settings or data is done anew; else it is an error.

    Raises:
        UserError: a run that is there, finished or begun, with other settings or data: says which.
    """
    todo = []
    for peer in runs:
        place = peer.run.result if peer.run.finished else peer.run.work
        different = differences(_stored(peer.run), peer.asked, split.hashes)
        if different and not again:
            raise UserError(
                f"{place} was run with {'; '.join(different[:4])}: choose another --output, or replace it with --again"
            )
        if different and peer.run.work.is_dir():
            shutil.rmtree(peer.run.work)
        if different or not peer.run.finished:
            todo.append(peer)
    return todo


def differences(stored: dict[str, Any] | None, asked: dict[str, Any], hashes: dict[str, str]) -> list[str]:
    """What something that is there was run with otherwise, a text for each; None is nothing."""
    if stored is None:
        return []
    before, now = stored["settings"], flat(asked)
    return [
        f"{key}={show(before.get(key))}, not {show(now.get(key))}"
        for key in dict.fromkeys([*before, *now])
        if before.get(key) != now.get(key) and key not in NO_MATTER
    ] + [f"another {name}" for name in {**stored["data"], **hashes} if stored["data"].get(name) != hashes.get(name)]


def flat(asked: dict[str, Any]) -> dict[str, Any]:
    """What a peer is told, in one level."""
    return {**{key: value for key, value in asked.items() if key != "settings"}, **asked["settings"]}


def execute(
    peer: PeerRun, python: str, split: Split, versions: dict[str, str], on_epoch: Callable[[int, float], None]
) -> None:
    """Run a peer, or go on with a killed run, and write its result and the ranks of all users.

    Raises:
        RuntimeError: the run failed; quotes the end of its output.
    """
    work = peer.run.work
    work.mkdir(parents=True, exist_ok=True)
    record = {"settings": flat(peer.asked), "data": split.hashes}
    write_json(work / BEGUN, record)
    try:
        rankings, outcome = run_peer(python, work, split, peer.asked, on_epoch)
    except RuntimeError:
        if not (work / STATE).is_file():  # there is nothing to go on with
            shutil.rmtree(work)
        raise
    ranked = rankings[TEST]
    np.savez_compressed(
        peer.run.result.with_suffix(".npz"),
        user=split.names,
        rank=ranked.rank.astype(np.int32),
        ties=ranked.ties.astype(np.int32),
    )
    write_json(peer.run.result, {**result(peer, split, rankings, outcome, versions), **record})
    shutil.rmtree(work)


def result(
    peer: PeerRun,
    split: Split,
    rankings: dict[str, Ranked],
    outcome: dict[str, Any],
    versions: dict[str, str],
) -> dict[str, Any]:
    """What a run of ours says of itself, of a peer's run."""
    config, task, curve = split.config, split.task, outcome["curve"]
    valid = metrics(config, rankings[VALID], task.valid)
    threads = peer.asked["threads"]
    return {
        "best_valid_score": valid[config["valid_metric"].lower()],
        "best_valid_result": valid,
        "test_result": metrics(config, rankings[TEST], task.test),
        "test_result_seen_masked": metrics(config, rankings[MASKED], task.test),
        "best_epoch": outcome["best_epoch"],
        "epochs": len(curve),
        "curve": curve,
        "seconds": {
            "training": curve[-1]["seconds"],
            "epoch": round(float(np.mean(outcome["epoch_seconds"])), 3),
            "test": round(outcome["recommend_seconds"], 2),
        },
        "stages": {},
        "card": {
            "model": peer.run.model,
            **protocol_facts(config, split.data),
            "max_history": peer.asked["settings"]["session_max_len"],
            "unknown_items": outcome["unknown_items"],
            "interactions_an_epoch": outcome["interactions_an_epoch"],
            "seed": peer.asked["seed"],
            "versions": versions,
            "commit": git_commit(),
            "device": f"cpu, {threads} threads",
            "parameters": outcome["parameters"],
            "peak_memory_mib": outcome["peak_memory_mib"],
            "test_users_per_second": round(task.n_users / outcome["recommend_seconds"], 1),
        },
    }


def metrics(config: Config, ranked: Ranked, targets: np.ndarray) -> dict[str, float]:
    """RecBole's metrics of a ranking, as its evaluation collects them from scores.

    Args:
        targets: [U]; users with 0 have none and do not count.
    """
    found = torch.from_numpy(ranked.top == targets[:, None])[torch.from_numpy(targets > 0)].int()  # [n, K]
    collected = DataStruct()
    collected.set("rec.topk", torch.cat([found, torch.ones(len(found), 1, dtype=torch.int)], dim=1))
    return {name: float(value) for name, value in Evaluator(config).evaluate(collected).items()}


def _stored(run: Run) -> dict[str, Any] | None:
    """What is there of a run: the result, or the record of one that was begun."""
    if run.finished:
        return read(run.result, "settings", "data")
    try:
        return json.loads((run.work / BEGUN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
