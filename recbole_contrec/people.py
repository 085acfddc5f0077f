"""
recbole_contrec.people
######################
Who is asked about: users of the data set with their whole history, or somebody new who brings one, and what a model
reads of them.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from recbole.data.interaction import Interaction
from recbole.model.abstract_recommender import SequentialRecommender

from recbole_contrec.errors import UserError, did_you_mean
from recbole_contrec.loaded_run import LoadedRun

PADDING = "[PAD]"  # RecBole's name of row 0


class Person(NamedTuple):
    """Somebody to recommend items to."""

    name: str
    number: int  # of the user in the data set; 0 for somebody who is not in it
    history: np.ndarray  # item numbers in order of time


def whole_histories(loaded: LoadedRun) -> dict[int, np.ndarray]:
    """Internal item numbers of every user in order of time, validation and test items included, whatever the split."""
    return loaded.data.dataset.all_interactions.by_user()


def known_people(loaded: LoadedRun, users: Sequence[str] | None) -> Iterator[Person]:
    """Users of the data set with their whole history, one after the other; all of them for None.

    Raises:
        UserError: one is unknown; at once, not when it is his turn.
    """
    dataset = loaded.data.dataset
    numbers = dataset.field2token_id[dataset.uid_field]
    for user in map(str, () if users is None else users):
        if user not in numbers or user == PADDING:
            raise UserError(f"there is no user {user!r} in {loaded.config['dataset']!r}{did_you_mean(user, numbers)}")
    histories = whole_histories(loaded)
    chosen: Iterable[int] = histories if users is None else (numbers[str(user)] for user in users)
    nothing = np.empty(0, dtype=np.int64)
    return (
        Person(str(dataset.id2token(dataset.uid_field, number)), number, histories.get(number, nothing))
        for number in chosen
    )


def item_numbers(loaded: LoadedRun, history: Iterable[str], skip_unknown: bool = False) -> np.ndarray:
    """Internal numbers of the items of a history of somebody new.

    Args:
        history: item ids in order of time.
        skip_unknown: leave out ids that the data set does not have; nothing may be left.

    Raises:
        UserError: an unknown item (names the nearest), an empty history, or a model that reads user ids alone.
    """
    dataset = loaded.data.dataset
    numbers = dataset.field2token_id[dataset.iid_field]
    history = [str(item) for item in history]
    if not history:
        raise UserError("the history is empty: name at least one item")
    for item in history:
        if (item not in numbers or item == PADDING) and not skip_unknown:
            raise UserError(f"there is no item {item!r} in {loaded.config['dataset']!r}{did_you_mean(item, numbers)}")
    if not isinstance(loaded.model, SequentialRecommender):
        raise UserError(
            f"{loaded.config['model']} reads user ids, not histories: it has nothing to say about new users"
        )
    known = [numbers[item] for item in history if item in numbers and item != PADDING]
    return np.asarray(known, dtype=np.int64)


def as_interaction(config: Any, people: Sequence[Person]) -> Interaction:
    """RecBole's evaluation rows for some people: the last L items, padded at the end."""
    limit = config["MAX_ITEM_LIST_LENGTH"]
    sequences = torch.zeros(len(people), limit, dtype=torch.long)
    lengths = torch.ones(len(people), dtype=torch.long)
    for row, person in enumerate(people):
        recent = torch.from_numpy(np.asarray(person.history[-limit:]))
        sequences[row, : len(recent)] = recent
        lengths[row] = max(len(recent), 1)
    return Interaction(
        {
            config["USER_ID_FIELD"]: torch.tensor([person.number for person in people]),
            config["ITEM_ID_FIELD"] + config["LIST_SUFFIX"]: sequences,
            config["ITEM_LIST_LENGTH_FIELD"]: lengths,
        }
    )


def seen_items(people: Sequence[Person]) -> torch.Tensor:
    """All that some people have had, [B, longest history], 0 = none."""
    longest = max([1, *(len(person.history) for person in people)])
    seen = torch.zeros(len(people), longest, dtype=torch.long)
    for row, person in enumerate(people):
        seen[row, : len(person.history)] = torch.from_numpy(np.asarray(person.history))
    return seen
