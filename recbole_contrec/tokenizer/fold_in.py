"""Vectors for users and items that were not in training, from those that they interacted with."""

import numpy as np
import scipy.sparse
import torch
from sklearn.linear_model import Ridge
from torch import Tensor, nn

from .collaborative import CollaborativeVectors, interaction_matrix, seen_rows


class FoldIn(nn.Module):
    """The linear map from the partners of a user (their items) or of an item (its users) to its collaborative vector.

    The partners' vectors, each divided by the root of its number of interactions, are added up, divided by the root
    of their number, and mapped by least squares fitted on those who were in training. Where the vectors come from
    :func:`~recbole_contrec.tokenizer.svd_vectors` the fit is exact: this is the folding-in of latent semantic analysis
    (Deerwester et al., 1990), ``p = r Q S^-1``, and a training user's own items give the user's own vector.

    Axes: R rows of the partners' table, row 0 for the padding; L partners of one entity; d width of a vector.

    Args:
        partners: R.
        size: d.
    """

    features: Tensor
    map: Tensor

    def __init__(self, partners: int, size: int):
        super().__init__()
        self.register_buffer("features", torch.zeros(partners, size + 1))  # scaled vector and scale
        self.register_buffer("map", torch.zeros(size + 2, size))

    @torch.no_grad()
    def fit(self, vectors: Tensor, partner_vectors: Tensor, entities: np.ndarray, partners: np.ndarray) -> None:
        """Fit the map on training interactions.

        Args:
            vectors: of the entities; a row of zeros means that there is none.
            partner_vectors: [R, d].
            entities, partners: [n] int, the pairs that interacted.
        """
        matrix = interaction_matrix(entities, partners, len(vectors), len(partner_vectors))
        degree = np.asarray(matrix.sum(axis=0)).ravel()  # [R]
        vectors, partner_vectors = vectors.cpu(), partner_vectors.cpu()
        known = seen_rows(partner_vectors).numpy() & (degree > 0)
        scale = np.where(known, 1 / np.sqrt(np.maximum(degree, 1)), 0.0)
        features = np.column_stack([partner_vectors.numpy() * scale[:, None], scale])  # [R, d + 1]
        count = np.asarray(matrix @ known[:, None].astype(np.float64)).ravel()
        summed = scipy.sparse.diags(1 / np.sqrt(np.maximum(count, 1))) @ matrix @ features
        rows = seen_rows(vectors).numpy() & (count > 0)
        inputs = np.column_stack([summed[rows], np.ones(rows.sum())])
        solution = np.linalg.lstsq(inputs, vectors.numpy()[rows].astype(np.float64), rcond=None)[0]
        self.features.copy_(torch.from_numpy(features))
        self.map.copy_(torch.from_numpy(solution))

    def add_items(self, count: int) -> None:
        """More partners at the end of the table, which no map knows: they add nothing to a vector."""
        self.features = torch.cat([self.features, self.features.new_zeros(count, self.features.shape[1])])

    def forward(self, partners: Tensor) -> Tensor:
        """Vectors [B, d] of entities from their partners [B, L], 0 = none; one that comes twice counts once. Zero where
        no partner was in training."""
        features = self._features(partners)
        count = _count(features)[:, None]  # [B, 1]
        summed = features.sum(1) / count.clamp(min=1).sqrt()
        inputs = torch.cat([summed, torch.ones_like(summed[:, :1])], dim=1)  # [B, d + 2]
        return (inputs @ self.map) * (count > 0)

    def count(self, partners: Tensor) -> Tensor:
        """How many partners [B] of [B, L] count."""
        return _count(self._features(partners))

    def _features(self, partners: Tensor) -> Tensor:
        """Of every partner once: [B, L] -> [B, L, d + 1]."""
        partners = partners.sort(dim=1).values
        repeated = torch.zeros_like(partners, dtype=torch.bool)
        repeated[:, 1:] = partners[:, 1:] == partners[:, :-1]
        return self.features[partners.masked_fill(repeated, 0)]


def _count(features: Tensor) -> Tensor:
    return (features[..., -1] > 0).sum(1)


class ItemFoldIn:
    """Vectors of items from their users.

    A vector of training holds how many interactions its item has: folded in from the first ten of its users, a popular
    item lies among the rare ones. Where more are to come, what the fold-in gives is therefore corrected: items of
    training are folded in from as many of their users, drawn at random, and a ridge regression leads from there to
    where they are. (It is a little too sure of itself: the vectors of those users were computed with the item, those of
    a new item's were not.)

    Args:
        vectors: of training, users [U, d] and items [N, d].
        users, items: pairs that interacted in training, [n] int.
        seed: of the draws.
    """

    DRAWS = 4  # of the users of an item
    MOST = 2000  # items that a correction is learned from
    LEAST = 3  # times d, items that it takes

    def __init__(self, vectors: CollaborativeVectors, users: np.ndarray, items: np.ndarray, seed: int):
        self.vectors, self.seed = vectors, seed
        self.fold_in = FoldIn(len(vectors.users), vectors.items.shape[1])
        self.fold_in.fit(vectors.items, vectors.users, items, users)
        known = seen_rows(vectors.users)[users].numpy() & seen_rows(vectors.items)[items].numpy()
        self.matrix = interaction_matrix(items[known], users[known], len(vectors.items), len(vectors.users))  # CSR

    def __call__(self, users_of: list[Tensor], early: bool) -> Tensor:
        """Vectors [m, d] of items.

        Args:
            users_of: of every item its users; one that comes twice counts once. Those without a vector add nothing, and
                where no other is, the vector is zero.
            early: whether more users are to come.
        """
        vectors = torch.cat([self.vectors.items[:0], *(self.fold_in(users[None]) for users in users_of)])
        if early:
            counts = torch.tensor([int(self.fold_in.count(users[None])) for users in users_of])
            for count in counts[counts > 0].unique().tolist():
                vectors[counts == count] = self._corrected(vectors[counts == count], count)
        return vectors

    def _corrected(self, vectors: Tensor, count: int) -> Tensor:
        """From items folded in from ``count`` users [m, d] to those of training; as they are where too few of these
        have so many users."""
        rows = np.flatnonzero(np.diff(self.matrix.indptr) >= count)
        if len(rows) < self.LEAST * vectors.shape[1]:
            return vectors
        rng = np.random.default_rng((self.seed, count))
        rows = np.repeat(rng.permutation(rows)[: self.MOST], self.DRAWS)
        users = [self.matrix.indices[slice(*self.matrix.indptr[row : row + 2])] for row in rows]
        drawn = [torch.from_numpy(rng.choice(some, (1, count), replace=False)) for some in users]
        early = torch.cat([self.fold_in(some) for some in drawn])
        regression = Ridge(alpha=1.0).fit(early.numpy(), self.vectors.items[rows].numpy())
        return torch.from_numpy(regression.predict(vectors.numpy()).astype(np.float32))
