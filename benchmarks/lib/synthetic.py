"""
benchmarks.lib.synthetic
########################
Made-up histories of any size: as a RecBole data set on disk, or as the little that a model asks of one.
"""

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from recbole.data.interaction import Interaction

from recbole_contrec.data.windows import Histories

AT_ONCE = 1 << 20  # items that are drawn at once


def random_histories(n_users: int, n_items: int, shortest: int, longest: int, seed: int) -> Histories:
    """Histories of uniform length over items whose popularity falls with their number.

    Args:
        n_users, n_items: without the padding; users and items count from 1.
        shortest, longest: items a history, both included.
    """
    rng = np.random.default_rng(seed)
    lengths = rng.integers(shortest, longest + 1, n_users)
    items = 1 + (n_items * rng.random(lengths.sum()) ** 2).astype(np.int64)
    return Histories(items, np.concatenate([[0], np.cumsum(lengths)]), np.arange(1, n_users + 1))


def zipf_histories(
    n_users: int, n_items: int, seed: int, median: float = 10.0, spread: float = 1.0, exponent: float = 1.0
) -> Histories:
    """Histories as logs have them: log-normal lengths, and items by Zipf's law (that of rank r by ``r^-exponent``).

    Args:
        n_users, n_items: without the padding; users and items count from 1.
        median, spread: of the lengths, which are exp(normal(log(median), spread)), 5 at least and 1,000 at most.
    """
    rng = np.random.default_rng(seed)
    lengths = np.exp(rng.normal(math.log(median), spread, n_users)).astype(np.int64).clip(5, 1000)
    shares = np.cumsum(np.arange(1, n_items + 1) ** -float(exponent))
    names = rng.permutation(n_items).astype(np.int32) + 1  # popularity says nothing about the number of an item
    items = np.empty(lengths.sum(), dtype=np.int32)
    for first in range(0, len(items), AT_ONCE):
        part = items[first : first + AT_ONCE]
        part[:] = names[np.searchsorted(shares, rng.random(len(part)) * shares[-1])]
    return Histories(items, np.concatenate([[0], np.cumsum(lengths)]), np.arange(1, n_users + 1, dtype=np.int32))


def write_atomic_files(folder: Path, name: str, histories: Histories, n_items: int | None = None) -> None:
    """``folder/name/name.inter`` as RecBole reads it, in order of time; for ``n_items`` a ``.item`` with all of
    them."""
    users, items = histories.pairs()
    times = np.arange(len(items)) - np.repeat(histories.offsets[:-1], np.diff(histories.offsets))
    (folder / name).mkdir(parents=True)
    table = pd.DataFrame({"user_id:token": users, "item_id:token": items, "timestamp:float": times})
    table.to_csv(folder / name / f"{name}.inter", sep="\t", index=False)
    if n_items is not None:
        every = pd.DataFrame({"item_id:token": np.arange(1, n_items + 1)})
        every.to_csv(folder / name / f"{name}.item", sep="\t", index=False)


class SyntheticDataset:
    """What a model of windows and its loader ask of a training data set, without the files and tables of a real one:
    a catalogue of a million items is built in a moment.

    Args:
        config: names the fields.
        histories: of all users, see :func:`random_histories`.
        n_items: without the padding.
    """

    def __init__(self, config, histories: Histories, n_items: int):
        self.uid_field, self.iid_field = config["USER_ID_FIELD"], config["ITEM_ID_FIELD"]
        self.item_list_length_field = config["ITEM_LIST_LENGTH_FIELD"]
        self.list_field = self.iid_field + config["LIST_SUFFIX"]
        self.histories = histories
        self.item_texts: dict[str, list[str]] = {}
        self._num = {self.uid_field: len(histories.users) + 1, self.iid_field: n_items + 1}

    def num(self, field: str) -> int:
        """Users or items, with the padding."""
        return self._num[field]

    def ranking_batches(self, max_length: int, batch_size: int) -> Iterator[Interaction]:
        """Everybody's history up to now, [B, L] padded at the end, as a full ranking reads it."""
        offsets, lengths = self.histories.offsets, np.minimum(np.diff(self.histories.offsets), max_length)
        place = np.arange(max_length)
        for first in range(0, len(lengths), batch_size):
            length = lengths[first : first + batch_size]
            begin = offsets[1:][first : first + batch_size] - length  # the latest items
            inside = place < length[:, None]  # [B, L]
            items = np.where(inside, self.histories.items[np.where(inside, begin[:, None] + place, 0)], 0)
            yield Interaction(
                {
                    self.uid_field: torch.from_numpy(self.histories.users[first : first + batch_size]),
                    self.list_field: torch.from_numpy(items),
                    self.item_list_length_field: torch.from_numpy(length),
                }
            )
