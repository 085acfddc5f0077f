"""
recbole_contrec.data.interactions
#################################
All interactions of a data set, before RecBole turns them into rows and splits them: what somebody has had, whatever the
split.
"""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from recbole.data.dataset import Dataset


class Interactions(NamedTuple):
    """User by user in order of time, all internal numbers; equal times keep the order of the file.

    Attributes:
        users: internal user number of every interaction [n].
        items: internal item number of every interaction [n].
    """

    users: np.ndarray
    items: np.ndarray

    @classmethod
    def of(cls, dataset: "Dataset") -> "Interactions":
        """Those of one of RecBole's data sets that is not built yet.

        Where the data come as rows with the history in a column, a user's last row stands for the end of the history,
        and whatever else stands in the user's rows comes before.
        """
        rows = dataset.inter_feat
        users, items = (rows[field].to_numpy() for field in (dataset.uid_field, dataset.iid_field))
        history = dataset.iid_field + dataset.config["LIST_SUFFIX"]
        if history in rows:
            return cls._from_rows(users, items, rows[history].to_numpy())
        order = np.arange(len(users))
        if dataset.time_field in rows:
            # float32, as RecBole orders the histories that the model is trained on
            order = np.argsort(rows[dataset.time_field].to_numpy().astype(np.float32), kind="stable")
        order = order[np.argsort(users[order], kind="stable")]
        if dataset.config["first_n"]:
            sorted_users = users[order]
            order = order[
                np.arange(len(order)) - np.searchsorted(sorted_users, sorted_users) < dataset.config["first_n"]
            ]
        return cls(users[order], items[order])

    @classmethod
    def _from_rows(cls, users: np.ndarray, items: np.ndarray, histories: Any) -> "Interactions":
        known: dict[int, list[int]] = {}
        for user, item, history in zip(users.tolist(), items.tolist(), histories):
            row = [*map(int, history), item]
            earlier = {*row}
            known[user] = [had for had in dict.fromkeys(known.get(user, ())) if had not in earlier] + row
        return cls(np.repeat(list(known), [len(had) for had in known.values()]), np.concatenate(list(known.values())))

    def by_user(self) -> "ByUser":
        """Items of every user in order of time."""
        ordered = bool((self.users[1:] >= self.users[:-1]).all())
        order = slice(None) if ordered else np.argsort(self.users, kind="stable")
        numbers, first = np.unique(self.users[order], return_index=True)
        return ByUser(self.items[order], np.append(first, len(self.items)), numbers)


class ByUser(Mapping[int, np.ndarray]):
    """User number -> that user's items, cut out of one array when they are asked for: a million users are no million
    arrays.

    Args:
        items: user by user [n].
        offsets: where each user's items begin, and the end [U' + 1].
        users: rising numbers of the users [U'].
    """

    def __init__(self, items: np.ndarray, offsets: np.ndarray, users: np.ndarray):
        self._items, self._offsets, self._users = items, offsets, users

    def __getitem__(self, user: int) -> np.ndarray:
        place = int(np.searchsorted(self._users, user))
        if place == len(self._users) or self._users[place] != user:
            raise KeyError(user)
        return self._items[self._offsets[place] : self._offsets[place + 1]]

    def __iter__(self) -> Iterator[int]:
        return map(int, self._users)

    def __len__(self) -> int:
        return len(self._users)
