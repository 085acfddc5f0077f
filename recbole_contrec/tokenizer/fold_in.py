"""Vectors for users and items that were not in training, from those that they interacted with."""

from typing import Callable

import numpy as np
import scipy.sparse
import torch
from sklearn.linear_model import Ridge
from torch import Tensor, nn

from .collaborative import CollaborativeVectors, interaction_matrix, seen_rows


class FoldIn(nn.Module):
    """The linear map from the partners of a user (his items) or of an item (its users) to its collaborative vector.

    The partners' vectors, each divided by the root of its number of interactions, are added up, divided by the root
    of their number, and mapped by least squares fitted on those who were in training. Where the vectors come from
    :func:`~recbole_contrec.tokenizer.svd_vectors` the fit is exact: this is the folding-in of latent semantic analysis
    (Deerwester et al., 1990), ``p = r Q S^-1``, and a training user's own items give his own vector.

    Axes: R rows of the partners' table, row 0 for the padding; L partners of one entity; d width of a vector.

    Args:
        partners: R.
        size: d.
    """

    def __init__(self, partners: int, size: int):
        super().__init__()
        self.register_buffer("features", torch.zeros(partners, size + 1))  # scaled vector and scale
        self.register_buffer("map", torch.zeros(size + 2, size))

    @torch.no_grad()
    def fit(self, vectors: Tensor, partner_vectors: Tensor, entities, partners) -> None:
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
        count = np.asarray((matrix @ known[:, None].astype(np.float64))).ravel()
        summed = scipy.sparse.diags(1 / np.sqrt(np.maximum(count, 1))) @ matrix @ features
        rows = seen_rows(vectors).numpy() & (count > 0)
        inputs = np.column_stack([summed[rows], np.ones(rows.sum())])
        solution = np.linalg.lstsq(inputs, vectors.numpy()[rows].astype(np.float64), rcond=None)[0]
        self.features.copy_(torch.from_numpy(features))
        self.map.copy_(torch.from_numpy(solution))

    def forward(self, partners: Tensor) -> Tensor:
        """Vectors [B, d] of entities from their partners [B, L], 0 = none; one that comes twice counts once. Zero where
        no partner was in training."""
        features = self._features(partners)
        count = _count(features)[:, None]                                         # [B, 1]
        summed = features.sum(1) / count.clamp(min=1).sqrt()
        inputs = torch.cat([summed, torch.ones_like(summed[:, :1])], dim=1)       # [B, d + 2]
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


class EarlyItems:
    """Vectors of items from their first users.

    A vector of training holds how many interactions its item has: folded in from ten of its users, a popular item lies
    among the rare ones. What the fold-in gives is therefore corrected: items of training are folded in from as many of
    their users, drawn at random, and a ridge regression leads from there to where they are.

    Args:
        vectors: of training, users [U, d] and items [N, d].
        users, items: pairs that interacted in training, [n] int.
        seed: of the draws.

    Attributes:
        fold_in: without the correction, from users to the vector of an item.
    """

    DRAWS = 4        # of the users of every item
    CHUNK = 100_000  # users looked up at once

    def __init__(self, vectors: CollaborativeVectors, users, items, seed: int):
        self.vectors, self.seed = vectors, seed
        self.fold_in = FoldIn(len(vectors.users), vectors.items.shape[1])
        self.fold_in.fit(vectors.items, vectors.users, items, users)
        pairs = np.unique(np.stack([items, users]), axis=1)
        self.items, starts = np.unique(pairs[0], return_index=True)
        self.users = np.split(pairs[1], starts[1:])  # of each of ``items``

    def __call__(self, partners: Tensor) -> Tensor:
        """Vectors [m, d] of items from their users [m, L], 0 = none; one that comes twice counts once. Zero where no user
        was in training."""
        vectors, counts = self.fold_in(partners), self.fold_in.count(partners)
        for count in counts[counts > 0].unique().tolist():
            correct = self._correction(count)
            if correct is not None:
                vectors[counts == count] = correct(vectors[counts == count])
        return vectors

    def _correction(self, count: int) -> Callable[[Tensor], Tensor] | None:
        """What leads from items folded in from ``count`` users, [m, d], to those of training [m, d]; None where too few
        have so many, and nearly all of theirs would be drawn."""
        rows = [row for row, users in enumerate(self.users) if len(users) >= count]
        if len(rows) <= self.vectors.items.shape[1]:
            return None
        rows, rng = rows * self.DRAWS, np.random.default_rng((self.seed, count))
        drawn = torch.from_numpy(np.stack([rng.choice(self.users[row], count, replace=False) for row in rows]))
        early = torch.cat([self.fold_in(part) for part in drawn.split(max(1, self.CHUNK // count))])
        regression = Ridge(alpha=1.0).fit(early.numpy(), self.vectors.items[self.items[rows]].numpy())
        return lambda vectors: torch.from_numpy(regression.predict(vectors.numpy()).astype(np.float32))
