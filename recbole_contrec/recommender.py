"""
recbole_contrec.recommender
###########################
A trained model as one object for other programs: item ids in, item ids out.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from recbole_contrec.errors import UserError
from recbole_contrec.loaded_run import LoadedRun
from recbole_contrec.people import Person, item_numbers, known_people
from recbole_contrec.recommendation import check_lists, rank_batches
from recbole_contrec.reloading import load_data_and_model

UNKNOWN = ("error", "skip")


class Recommendation(NamedTuple):
    """The best items for one history or user, best first."""

    items: list[str]  # item ids; fewer than k where too few are left
    scores: list[float]  # of these items, higher is better


class Recommender:
    """A trained model that answers histories of item ids with item ids::

        recommender = Recommender.load("saved/RUN")
        items, scores = recommender.recommend([["50", "181", "174"]], k=10)[0]

    It works for every model that reads histories, those of this package and RecBole's sequential ones, whether the
    person is in the data set or not. Models that know users by their id alone, such as LightGCN, answer ``users``.

    Args:
        loaded: what ``load_data_and_model`` gave. Items that are folded into it later are recommended as well.
    """

    def __init__(self, loaded: LoadedRun):
        self.loaded = loaded

    @classmethod
    def load(
        cls,
        path: str | Path,
        settings: Mapping[str, Any] | None = None,
        properties: str | None = None,
    ) -> "Recommender":
        """From a checkpoint or the folder of a run; the data set of the run must be there as well.

        Args:
            path: of the folder of a run, or of a checkpoint.
            settings: those to change, for instance ``{"data_path": "elsewhere"}``.
            properties: a folder with ``model/*.yaml`` and ``dataset/*.yaml`` of your own.

        Raises:
            UserError: no such checkpoint, or the data are not those it was trained on.
        """
        return cls(load_data_and_model(path, settings, properties))

    @property
    def items(self) -> list[str]:
        """The ids of all items that may be recommended and stand in histories."""
        dataset = self.loaded.data.dataset
        return [str(item) for item in dataset.field2id_token[dataset.iid_field][1:]]

    @property
    def users(self) -> list[str]:
        """The ids of all users of the data set."""
        dataset = self.loaded.data.dataset
        return [str(user) for user in dataset.field2id_token[dataset.uid_field][1:]]

    def recommend(
        self,
        histories: Iterable[Iterable[str]] | None = None,
        k: int = 10,
        *,
        users: Sequence[str] | None = None,
        exclude_seen: bool = True,
        unknown: str = "error",
        batch_size: int = 256,
        index: str = "exact",
        ef_search: int = 200,
    ) -> list[Recommendation]:
        """The K best items for each history, or for each user.

        Args:
            histories: item ids of somebody each, the oldest first.
            k: items each.
            users: ids of users of the data set, in place of histories. Their whole history is read.
            exclude_seen: leave out what the history holds.
            unknown: what is done with item ids that the data set does not have: ``error``, or ``skip`` to read the
                histories without them. A history of which nothing is left then gets no items.
            batch_size: histories scored at once.
            index, ef_search: see :func:`~recbole_contrec.recommendation.recommend`.

        Returns:
            list: a :class:`Recommendation` for each history or user, in their order.

        Raises:
            UserError: an unknown item or user (names it and the nearest), an empty history, both or none of
                ``histories`` and ``users``, or a model that reads user ids alone asked for histories.
        """
        if unknown not in UNKNOWN:
            raise UserError(f"unknown={unknown!r}: choose one of {', '.join(UNKNOWN)}")
        if (histories is None) == (users is None):
            raise UserError("give either histories, as lists of item ids, or users")
        if isinstance(histories, Iterable) and not isinstance(histories, str):
            histories = list(histories)
        check_lists(histories=histories, users=users)
        if histories is None:
            people = list(known_people(self.loaded, users))
        else:
            numbers = [item_numbers(self.loaded, history, skip_unknown=unknown == "skip") for history in histories]
            people = [Person("", 0, history) for history in numbers]
        asked = [person for person in people if person.number or len(person.history)]
        batches = rank_batches(self.loaded, asked, k, exclude_seen, batch_size, index, ef_search)
        found = (self._recommendation(*row) for ranked in batches for row in zip(ranked.items, ranked.scores))
        return [next(found) if person.number or len(person.history) else Recommendation([], []) for person in people]

    def _recommendation(self, items: np.ndarray, scores: np.ndarray) -> Recommendation:
        """Of a list of item numbers, 0 where too few are left."""
        dataset, listed = self.loaded.data.dataset, items > 0
        names = dataset.field2id_token[dataset.iid_field][items[listed]]
        return Recommendation([str(name) for name in names], scores[listed].tolist())
