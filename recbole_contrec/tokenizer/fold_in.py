"""Vectors for users and items that were not in training, from those that they interacted with."""

import numpy as np
import scipy.sparse
import torch
from torch import Tensor, nn

from .collaborative import interaction_matrix, seen_rows


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
        partners = partners.sort(dim=1).values
        repeated = torch.zeros_like(partners, dtype=torch.bool)
        repeated[:, 1:] = partners[:, 1:] == partners[:, :-1]
        features = self.features[partners.masked_fill(repeated, 0)]               # [B, L, d + 1]
        count = (features[..., -1] > 0).sum(1, keepdim=True)                      # [B, 1]
        summed = features.sum(1) / count.clamp(min=1).sqrt()
        inputs = torch.cat([summed, torch.ones_like(summed[:, :1])], dim=1)       # [B, d + 2]
        return (inputs @ self.map) * (count > 0)
