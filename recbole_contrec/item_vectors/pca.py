"""
recbole_contrec.item_vectors.pca
################################
The directions in which vectors of texts differ most, whitened or not.
"""

from collections.abc import Iterator

import torch

from recbole_contrec.tokenizer import seen_rows

ROWS_A_BLOCK = 65_536  # computed in double precision at once


def principal_components(vectors: torch.Tensor, size: int, whitening: float = 0.0) -> torch.Tensor:
    """Truncated SVD of rows around their mean (PCA), exact and without a seed.

    Language models give all texts much in common, which the mean takes away: it would fill the first column with what
    tells no item apart. The next columns still hold most of the variance (anisotropy), which whitening evens out (Su
    et al. 2021, https://arxiv.org/abs/2103.15316; for recommendation Zhang et al., ICDE 2024,
    https://arxiv.org/abs/2402.10602).

    Args:
        vectors: [N, D], rows of unit length; rows of zeros stay zero and enter no statistic.
        size: d; columns beyond the rank are zero.
        whitening: 0 to 1; every column is divided by its standard deviation to this power.

    Returns:
        [N, d] float32.
    """
    rows = seen_rows(vectors)  # [N]
    known = vectors[rows]  # [n, D]
    mean = known.mean(0, dtype=torch.float64)
    gram = sum(centred.T @ centred for centred in _centred(known, mean))  # [D, D]
    values, axes = torch.linalg.eigh(gram)  # rising
    # Below this, relative to rows of unit length, is rounding: one text in two batches differs by as much.
    rank = min(size, int((values > 1e-10 * len(known)).sum()))
    axes = axes.flip(1)[:, :rank]  # [D, rank]
    axes = axes * axes.gather(0, axes.abs().argmax(0, keepdim=True)).sign()
    if whitening:
        axes = axes * (values.flip(0)[:rank] / len(known)) ** (-whitening / 2)
    result = torch.zeros(len(vectors), size)
    result[rows, :rank] = torch.cat([(centred @ axes).float() for centred in _centred(known, mean)])
    return result


def _centred(vectors: torch.Tensor, mean: torch.Tensor) -> Iterator[torch.Tensor]:
    """Rows [n, D] around their mean, some at a time: double precision of all of them would take twice their memory."""
    return (block.double() - mean for block in vectors.split(ROWS_A_BLOCK))
