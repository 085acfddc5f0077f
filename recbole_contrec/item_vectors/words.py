"""
recbole_contrec.item_vectors.words
##################################
Texts as vectors of the words that they hold, without a language model.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from sklearn.decomposition import TruncatedSVD
from sklearn.preprocessing import normalize
from sklearn.random_projection import SparseRandomProjection

from recbole_contrec.data.text import tfidf
from recbole_contrec.errors import UserError


def text_vectors(texts: Sequence[str], size: int, seed: int, key: str = "item_vectors") -> torch.Tensor:
    """Latent semantic analysis: truncated SVD of the TF-IDF of texts, rows of unit length.

    Args:
        texts: N of them; an empty one gets a row of zeros.
        size: d; columns beyond the rank are zero.
        key: the setting that asks for them.

    Returns:
        [N, d] float32.

    Raises:
        UserError: no text holds a word.
    """
    matrix = _tfidf_of(texts, key)  # [N, words]
    rank = min(size, *(side - 1 for side in matrix.shape))
    vectors = torch.zeros(len(texts), size)
    if rank > 0:
        reduced = TruncatedSVD(rank, random_state=seed).fit_transform(matrix)
        vectors[:, :rank] = torch.from_numpy(normalize(reduced))
    return vectors


def words_of(texts: Sequence[str], size: int, seed: int, key: str = "text_similarity") -> torch.Tensor:
    """The TF-IDF of texts in fewer columns, by a sparse random projection: it keeps the cosine of any two texts nearly
    as it is (Johnson and Lindenstrauss), rare words included, which a truncated SVD forgets first.

    Args:
        texts: N of them; an empty one gets a row of zeros.
        size: columns at most.
        key: the setting that asks for them.

    Returns:
        [N, size] float32, rows of unit length; where there are fewer words, their TF-IDF itself, [N, words].

    Raises:
        UserError: no text holds a word.
    """
    matrix = _tfidf_of(texts, key)  # [N, words]
    if matrix.shape[1] <= size:
        return torch.from_numpy(normalize(matrix).toarray().astype(np.float32))  # [N, words]
    # A word gets a tenth of the columns. scikit-learn's default gives it one or two, too few for texts of few words.
    projection = SparseRandomProjection(size, density=0.1, dense_output=True, random_state=seed)
    projected = projection.fit_transform(matrix)
    return torch.from_numpy(normalize(projected).astype(np.float32))


def _tfidf_of(texts: Sequence[str], key: str) -> Any:
    """A sparse matrix [N, words].

    Raises:
        UserError: no text holds a word.
    """
    try:
        return tfidf().fit_transform(texts)
    except ValueError as error:
        raise UserError(f"{key} asks for texts, and the item texts hold no words") from error
