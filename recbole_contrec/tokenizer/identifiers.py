r"""Identifiers of items: tuples of codes, one tuple an item, that similar items share from the front on.

Every method here turns a table into codes [N, K] without a network;
:class:`~recbole_contrec.tokenizer.residual_vq.ResidualVQ` does the same with one. Rows that carry no vector get the
number C, which is no code. :func:`with_counter` makes the tuples distinct.

Paper:
    residual k-means: as in "OneRec", https://arxiv.org/abs/2502.18965; product quantisation: Jegou et al., TPAMI 2011;
    hierarchical clusters of co-occurrence: the CID of Hua et al., "How to Index Item IDs for Recommendation Foundation
    Models", SIGIR-AP 2023, https://arxiv.org/abs/2305.06569

Axes: ``N`` rows with row 0 for the padding, ``n`` rows that carry a vector, ``d`` width, ``K`` tokens, ``C`` codes.
"""

import warnings

import numpy as np
import scipy.sparse as sp
import torch
from scipy.sparse.linalg import ArpackNoConvergence, LinearOperator, eigsh
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from torch import Tensor

from .collaborative import interaction_matrix, seen_rows

SPECTRAL_AXES = 16  # eigenvectors that a clustering looks at, at most
DENSE_SIDE = 64  # below this the eigenvectors are computed densely


def residual_kmeans(vectors: Tensor, n_tokens: int, codebook_size: int, seed: int = 0) -> Tensor:
    """Codes [N, K] from k-means over vectors [N, d], then over what its centroids leave of them, K times."""
    rows, found = _rows_and_room(vectors, n_tokens, codebook_size)
    residual = vectors[rows].cpu().numpy().astype(np.float64)  # [n, d]
    for level in range(n_tokens):
        labels, centroids = _kmeans(residual, codebook_size, seed + level)
        found[rows, level] = torch.from_numpy(labels)
        residual = residual - centroids[labels]
    return found


def product_codes(vectors: Tensor, n_tokens: int, codebook_size: int, seed: int = 0) -> Tensor:
    """Codes [N, K] from k-means over each of K parts of the columns of vectors [N, d].

    The columns are rotated at random first, so that the parts say about equally much: of an SVD, the first columns say
    most.

    Raises:
        ValueError: fewer columns than parts.
    """
    if vectors.shape[1] < n_tokens:
        raise ValueError(f"vectors of width {vectors.shape[1]} cannot be split into {n_tokens} parts")
    rows, found = _rows_and_room(vectors, n_tokens, codebook_size)
    x = vectors[rows].cpu().numpy().astype(np.float64)  # [n, d]
    rotation, _ = np.linalg.qr(np.random.default_rng(seed).standard_normal((x.shape[1], x.shape[1])))
    for level, part in enumerate(np.array_split(x @ rotation, n_tokens, axis=1)):
        found[rows, level] = torch.from_numpy(_kmeans(part, codebook_size, seed + level)[0])
    return found


def cluster_codes(
    users: np.ndarray, items: np.ndarray, n_users: int, n_items: int, n_tokens: int, codebook_size: int, seed: int = 0
) -> Tensor:
    """Codes [N, K] from clusters within clusters of items that the same users have.

    Each level splits every cluster of the one before by spectral clustering of its co-occurrence matrix, into as many
    parts as leave the levels below an equal share of the work, C at most.

    Args:
        users, items: [n] int, training interactions.
        n_users, n_items: table sizes U and N.
    """
    matrix = interaction_matrix(users, items, n_users, n_items)  # [U, N]
    known = np.flatnonzero(np.asarray(matrix.sum(0)).ravel())  # items with interactions
    scale = sp.diags(1 / np.sqrt(np.maximum(np.asarray(matrix.sum(1)).ravel(), 1)))  # a user of many items says less
    matrix = (scale @ matrix).tocsc()
    found = torch.full((n_items, n_tokens), codebook_size)
    clusters = [known]
    for level in range(n_tokens):
        parts = []
        for members in clusters:
            count = min(codebook_size, len(members), int(np.ceil(round(len(members) ** (1 / (n_tokens - level)), 6))))
            labels = np.arange(len(members)) if count == len(members) else _spectral(matrix[:, members], count, seed)
            found[members, level] = torch.from_numpy(labels)
            parts += [members[labels == label] for label in np.unique(labels)]
        clusters = parts
    return found


def random_codes(rows: Tensor, n_tokens: int, codebook_size: int, seed: int = 0) -> Tensor:
    """Codes [N, K] drawn at random for those rows [N] that are true: the control for what similarity is worth."""
    drawn = torch.randint(codebook_size, (len(rows), n_tokens), generator=torch.Generator().manual_seed(seed))
    return drawn.masked_fill(~rows.cpu()[:, None], codebook_size)


def with_counter(codes: Tensor, n_codes: int) -> Tensor:
    """Codes [N, K] with one more behind them that numbers, from 0 on, the items of equal codes: [N, K + 1], all
    distinct.

    Raises:
        ValueError: more than C items share their codes.
    """
    known = codes[:, 0] < n_codes
    _, group = codes.unique(dim=0, return_inverse=True)  # [N]
    group = group.masked_fill(~known, -1)
    order = group.argsort(stable=True)
    ordered = group[order]
    place = torch.arange(len(ordered), device=codes.device)
    first = torch.searchsorted(ordered, ordered)  # of its group
    counter = torch.empty_like(group).scatter_(0, order, place - first)
    most = int(counter[known].max()) + 1 if known.any() else 0
    if most > n_codes:
        raise ValueError(f"{most} items have the same codes, and a last code tells only {n_codes} apart")
    return torch.cat([codes, counter.masked_fill(~known, n_codes)[:, None]], dim=1)


def _rows_and_room(vectors, n_tokens, codebook_size):
    """Numbers of the rows with a vector [n], and codes [N, K] that are none yet."""
    return seen_rows(vectors).nonzero().squeeze(1).cpu(), torch.full((len(vectors), n_tokens), codebook_size)


def _kmeans(x: np.ndarray, codebook_size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Labels [n] and centroids of rows [n, d]."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer different rows than codes: some stay unused
        fitted = KMeans(min(codebook_size, len(x)), n_init=1, random_state=seed).fit(x)
    return fitted.labels_.astype(np.int64), fitted.cluster_centers_


def _spectral(matrix: sp.csc_matrix, count: int, seed: int) -> np.ndarray:
    """Labels [m] of ``count`` < m clusters of the columns of a matrix [U, m], by how often they stand in a row
    together: k-means over the leading eigenvectors of the normalised co-occurrence, rows at unit length (Ng, Jordan and
    Weiss, NIPS 2001).

    The co-occurrence [m, m], nearly full where users have hundreds of items, is never formed. Columns that stand
    together with none are dealt out evenly.
    """
    own = np.asarray(matrix.multiply(matrix).sum(0)).ravel()  # the diagonal [m]
    degree = matrix.T @ (matrix @ np.ones(matrix.shape[1])) - own
    alone = degree <= 1e-9 * own
    labels = np.empty(len(own), dtype=np.int64)
    labels[alone] = np.arange(alone.sum()) % count
    joined = np.flatnonzero(~alone)
    if count == 1 or len(joined) <= count:
        labels[joined] = np.arange(len(joined)) % count
        return labels
    matrix, own = matrix[:, joined] @ sp.diags(degree[joined] ** -0.5), own[joined] / degree[joined]
    axes = min(count, SPECTRAL_AXES)
    if len(joined) <= DENSE_SIDE:
        vectors = np.linalg.eigh((matrix.T @ matrix).toarray() - np.diag(own))[1][:, -axes:]
    else:
        vectors = _leading_vectors(matrix, own, axes, seed)  # [m, axes]
    length = np.linalg.norm(vectors, axis=1, keepdims=True)
    labels[joined] = _kmeans(vectors / np.maximum(length, 1e-12), count, seed)[0]
    return labels


def _leading_vectors(matrix: sp.spmatrix, diagonal: np.ndarray, axes: int, seed: int) -> np.ndarray:
    """Eigenvectors [m, axes] of the largest eigenvalues of ``A^T A - D``, for A [U, m] and the diagonal of D [m]."""
    m = len(diagonal)
    operator = LinearOperator((m, m), lambda x: matrix.T @ (matrix @ x) - diagonal * x.ravel(), dtype=np.float64)
    start = np.random.default_rng(seed).standard_normal(m)
    try:
        return eigsh(operator, axes, which="LA", v0=start, tol=1e-4)[1]
    except ArpackNoConvergence as error:  # what has been found tells clusters apart well enough
        return np.concatenate([error.eigenvectors, start[:, None] / np.sqrt(m)], axis=1)
