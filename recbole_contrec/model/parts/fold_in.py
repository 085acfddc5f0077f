r"""
recbole_contrec.model.parts.fold_in
###################################
New users and new items without training, for models that read them as tokens: what :mod:`recbole_contrec.fold_in` asks
of a model.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from recbole_contrec.interface import Stage
from recbole_contrec.item_vectors.sources import vector_stages
from recbole_contrec.model.parts.learned_vectors import ItemVectors
from recbole_contrec.retrieval import Retrieval
from recbole_contrec.tokenizer import FoldIn


class NewUsers:
    """For a model with tokens of users, see :class:`~recbole_contrec.interface.FoldsUsersIn`."""

    config: Any
    users: Any  # tokens of users; None where none are read

    @property
    def user_fold_in(self) -> FoldIn | None:
        """What makes vectors of users out of the histories that they bring."""
        return None if self.users is None else self.users.fold_in

    def vector_stages(self, dataset: Any, vectors: dict[str, Tensor]) -> Iterator[Stage]:
        """The stages that fill ``vectors`` with ``users`` [U, d] and ``items`` [N, d] of U users and N items, and with
        that the fold-in."""
        yield from vector_stages(self.config, dataset, vectors)
        if self.user_fold_in is not None:
            self.user_fold_in.fit(vectors["users"], vectors["items"], *dataset.histories.pairs())


class NewItems(NewUsers):
    """For a model with tokens of items that ranks by item vectors, see
    :class:`~recbole_contrec.interface.FoldsItemsIn`.

    Axes: N items, m new items, d width of an item vector, w of a text vector.
    """

    device: torch.device
    n_items: int
    items: Any  # tokens of items
    item_vectors: ItemVectors
    retrieval: Retrieval

    def reads_items_as(self, vectors: Tensor) -> bool:
        """Whether the tokens of the items are those that collaborative vectors [N, d] give."""
        return self.items.are_of(vectors.to(self.device))

    def retrieval_vectors(self, vectors: Tensor, known_vectors: Tensor, known: Tensor) -> Tensor:
        """Where items that were not in training lie among the item vectors [m, d], see
        :meth:`ItemVectors.predicted`."""
        return self.item_vectors.predicted(vectors, known_vectors, known)

    def item_tables(self) -> tuple[Any, ...]:
        """The parts with a row an item; None for those that the model lacks."""
        return self.item_vectors, self.items, self.user_fold_in, self.retrieval.text_similarity

    def add_items(self, count: int) -> None:
        """Room for more items at the end of every table."""
        self.n_items += count
        for part in filter(None, self.item_tables()):
            part.add_items(count)

    @torch.no_grad()
    def set_items(self, items: Tensor, vectors: Tensor, retrieval: Tensor) -> None:
        """Write items [m] that were not in training: tokens from their collaborative vectors [m, d], and their vectors
        in the retrieval space [m, d]."""
        items = items.to(self.device)
        self.item_vectors.weight[items] = retrieval.to(self.device)
        self.items.set(items, vectors.to(self.device))

    @property
    def text_vectors(self) -> Tensor | None:
        """By which the texts of items are compared [N, w], for writing as well; None where they are not."""
        texts = self.retrieval.text_similarity
        return None if texts is None else texts.vectors

    def hold_back(self, penalty: Tensor | None) -> None:
        """Take a penalty [N] off the scores of the items; None for no penalty."""
        self.retrieval.score_penalty = penalty
