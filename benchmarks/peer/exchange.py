"""
benchmarks.peer.exchange
########################
What the two environments tell each other, as files of one folder: ``task.npz`` and ``asked.json`` for the peer,
``ranked.npz`` and ``outcome.json`` from it. Users and items are numbers; items count from 1.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

TASK, ASKED, RANKED, OUTCOME = "task.npz", "asked.json", "ranked.npz", "outcome.json"
STATE = "state.pt"  # of a peer in training, from which it goes on
VALID, TEST, MASKED = "valid", "test", "test_masked"  # the rankings that a peer leaves


class Task(NamedTuple):
    """A catalogue, training histories in order of time, and what comes after them.

    Attributes:
        n_items: items of the catalogue, all of which are ranked.
        items: of the training histories [n], one user after the other.
        offsets: [U + 1]; the training history of user u is ``items[offsets[u]:offsets[u + 1]]``.
        valid: validation target of every user [U]; 0 where a history is too short for one.
        test: test target of every user [U].
    """

    n_items: int
    items: np.ndarray
    offsets: np.ndarray
    valid: np.ndarray
    test: np.ndarray

    @property
    def n_users(self) -> int:
        """Users, each with a test target (U)."""
        return len(self.test)

    def histories(self, phase: str) -> list[np.ndarray]:
        """What is known of every user before a target: the training history, and before the test the validation target
        as well."""
        training = np.split(self.items, self.offsets[1:-1])
        if phase == VALID:
            return training
        return [np.append(items, valid) if valid else items for items, valid in zip(training, self.valid)]


class Ranked(NamedTuple):
    """Where the targets of all users stand in a ranking of the catalogue.

    Attributes:
        rank: 1 + items with a higher score [U].
        ties: other items with the same score [U].
        top: the best items [U, K], best first, equal scores as ``torch.topk`` orders them.
    """

    rank: np.ndarray
    ties: np.ndarray
    top: np.ndarray


def write_task(folder: Path, task: Task, asked: dict[str, Any]) -> None:
    """For the peer: the data, and what to do with them."""
    np.savez(folder / TASK, **task._asdict())
    (folder / ASKED).write_text(json.dumps(asked, indent=1), encoding="utf-8")


def read_task(folder: Path) -> tuple[Task, dict[str, Any]]:
    """What :func:`write_task` has written."""
    with np.load(folder / TASK, allow_pickle=False) as stored:
        task = Task(int(stored["n_items"]), *(stored[name] for name in Task._fields[1:]))
    return task, json.loads((folder / ASKED).read_text(encoding="utf-8"))


def write_outcome(folder: Path, rankings: dict[str, Ranked], outcome: dict[str, Any]) -> None:
    """From the peer: the rankings by name, and how it went. The JSON file comes last."""
    np.savez(folder / RANKED, **dict(_columns(rankings)))
    part = folder / f"{OUTCOME}.part"
    part.write_text(json.dumps(outcome, indent=1), encoding="utf-8")
    os.replace(part, folder / OUTCOME)


def read_outcome(folder: Path) -> tuple[dict[str, Ranked], dict[str, Any]]:
    """What :func:`write_outcome` has written."""
    with np.load(folder / RANKED, allow_pickle=False) as stored:
        rankings = {
            name: Ranked(*(stored[f"{name}_{field}"] for field in Ranked._fields)) for name in (VALID, TEST, MASKED)
        }
    return rankings, json.loads((folder / OUTCOME).read_text(encoding="utf-8"))


def _columns(rankings: dict[str, Ranked]) -> Iterator[tuple[str, np.ndarray]]:
    for name, ranked in rankings.items():
        for field, column in ranked._asdict().items():
            yield f"{name}_{field}", column
