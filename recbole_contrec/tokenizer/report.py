"""What a fitted tokenizer keeps of its vectors, and whether its tokens have collapsed.

Everything is accumulated over chunks of rows with a running top-k, so a million items fit.

Axes: ``n`` rows with a vector, ``q`` query rows, ``c`` rows of a chunk, ``k`` neighbours, ``d`` width of a vector,
``K`` tokens, ``D`` width of a token.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .collaborative import seen_rows
from .sigma_vae import SigmaVAE

CHUNK = 4096
ACTIVE_VARIANCE = 0.01  # Burda et al., ICLR 2016, section 2: a dimension is active above this variance of its mean


class TokenizerHealth(NamedTuple):
    """Health of a tokenizer on a table of vectors.

    Attributes:
        rows: rows that carry a vector.
        unexplained_train: squared reconstruction error over squared distance from the mean vector; 0 is a perfect
            reconstruction, 1 is no better than the mean vector. Rows that are not held out.
        unexplained_held_out: the same on the held-out rows; None if none were named.
        dimensions: K * D.
        active_dimensions: of these, how many vary over items.
        token_scale: standard deviation of the tokens' means over items, root mean square over dimensions.
        token_agreement: mean |correlation| of the same dimension in two tokens; 1 if the K tokens are copies.
        token_correlation: mean |correlation| of any dimension of one token with any of another.
        neighbour_overlap: share of a row's nearest neighbours (cosine of vectors) that are also among its nearest
            by the cosine of its concatenated tokens.
        neighbours, queries: how many neighbours, of how many rows, ``neighbour_overlap`` counts.
    """

    rows: int
    unexplained_train: float
    unexplained_held_out: float | None
    dimensions: int
    active_dimensions: int
    token_scale: float
    token_agreement: float
    token_correlation: float
    neighbour_overlap: float
    neighbours: int
    queries: int

    def as_dict(self) -> dict[str, float | int | None]:
        """Plain numbers, for JSON."""
        return self._asdict()


@torch.no_grad()
def health_report(
    model: SigmaVAE,
    vectors: Tensor,
    held_out_rows: Tensor | None = None,
    neighbours: int = 10,
    sample: int = 2000,
    seed: int = 0,
) -> TokenizerHealth:
    """Measure ``model`` in eval mode on ``vectors``; its mode is left as it was.

    Args:
        vectors: [N, d]; row 0 and rows of zeros are left out.
        held_out_rows: row numbers of ``vectors`` not trained on, ``split_rows(vectors, held_out, seed).held_out``.
        neighbours: k, lowered to n - 1 on a smaller table.
        sample: at most this many query rows, drawn with ``seed``.

    Raises:
        ValueError: fewer than two rows with a vector.
    """
    rows = seen_rows(vectors).nonzero().squeeze(1)  # [n]
    n = len(rows)
    if n < 2:
        raise ValueError(f"a health report needs at least two rows with a vector, and the table has {n}")
    is_held_out = torch.zeros(len(vectors), dtype=torch.bool, device=vectors.device)
    if held_out_rows is not None:
        is_held_out[held_out_rows.to(vectors.device)] = True
    was_training, device = model.training, next(model.parameters()).device
    model.eval()

    center = vectors[rows].mean(dim=0).to(device)  # [d]
    picked = torch.randperm(n, generator=torch.Generator().manual_seed(seed))[:sample]  # [q]
    queries = vectors[rows[picked.to(rows.device)]].to(device)  # [q, d]
    errors = _Errors(device)
    moments = _Moments(model.n_tokens * model.token_size, device)
    k = min(neighbours, n - 1)
    by_vector = _Neighbours(queries, picked.to(device), k)
    by_token = _Neighbours(model.encode(queries).flatten(1), picked.to(device), k)

    for start in range(0, n, CHUNK):
        part = rows[start : start + CHUNK]
        x = vectors[part].to(device)  # [c, d]
        means = model.encode(x)  # [c, K, D]
        errors.add(x, model.decode(means), center, is_held_out[part].to(device))
        moments.add(means.flatten(1))
        by_vector.add(x, start)
        by_token.add(means.flatten(1), start)
    model.train(was_training)

    variance, correlation = moments.finish()  # [K * D], [K * D, K * D]
    agreement, overall = _between_tokens(variance, correlation, model.n_tokens)
    kept = (by_vector.rows[:, :, None] == by_token.rows[:, None, :]).any(dim=2)  # [q, k]
    unexplained = errors.finish()
    return TokenizerHealth(
        rows=n,
        unexplained_train=unexplained[0],
        unexplained_held_out=unexplained[1] if held_out_rows is not None else None,
        dimensions=len(variance),
        active_dimensions=int((variance > ACTIVE_VARIANCE).sum()),
        token_scale=float(variance.mean().sqrt()),
        token_agreement=agreement,
        token_correlation=overall,
        neighbour_overlap=float(kept.double().mean()),
        neighbours=k,
        queries=len(picked),
    )


class _Errors:
    """Squared error and squared distance from the mean, for rows trained on and rows held out."""

    def __init__(self, device):
        self.error, self.spread = torch.zeros(2, 2, dtype=torch.float64, device=device)  # [2] each

    def add(self, x: Tensor, reconstruction: Tensor, center: Tensor, is_held_out: Tensor) -> None:
        group = is_held_out.long()  # [c]
        self.error.index_add_(0, group, (x - reconstruction).square().sum(dim=1).double())
        self.spread.index_add_(0, group, (x - center).square().sum(dim=1).double())

    def finish(self) -> list[float]:
        return (self.error / self.spread.clamp_min(1e-12)).tolist()


class _Moments:
    """Variance and correlation of columns, [c, m] chunk by chunk; float64, for the mean is subtracted at the end."""

    def __init__(self, columns: int, device):
        self.count = 0
        self.total = torch.zeros(columns, dtype=torch.float64, device=device)
        self.products = torch.zeros(columns, columns, dtype=torch.float64, device=device)

    def add(self, x: Tensor) -> None:
        x = x.double()
        self.count += len(x)
        self.total += x.sum(dim=0)
        self.products += x.T @ x

    def finish(self) -> tuple[Tensor, Tensor]:
        mean = self.total / self.count
        covariance = self.products / self.count - mean.outer(mean)  # [m, m]
        variance = covariance.diagonal().clamp_min(0)  # [m]
        deviation = variance.sqrt().clamp_min(1e-12)
        return variance, covariance / deviation.outer(deviation)


class _Neighbours:
    """Running top-k of cosine for query rows; a row is not its own neighbour."""

    def __init__(self, queries: Tensor, own_rows: Tensor, k: int):
        self.queries, self.own_rows, self.k = F.normalize(queries, dim=1), own_rows, k
        self.scores = queries.new_full((len(queries), k), -torch.inf)  # [q, k]
        self.rows = torch.full((len(queries), k), -1, device=queries.device)  # [q, k]

    def add(self, x: Tensor, start: int) -> None:
        scores = self.queries @ F.normalize(x, dim=1).T  # [q, c]
        rows = torch.arange(start, start + len(x), device=x.device).expand_as(scores)  # [q, c]
        scores = scores.masked_fill(rows == self.own_rows[:, None], -torch.inf)
        scores = torch.cat([self.scores, scores], dim=1)  # [q, k + c]
        self.scores, best = scores.topk(self.k, dim=1)  # [q, k]
        self.rows = torch.cat([self.rows, rows], dim=1).gather(1, best)  # [q, k]


def _between_tokens(variance: Tensor, correlation: Tensor, n_tokens: int) -> tuple[float, float]:
    """Mean |correlation| between tokens: of corresponding dimensions, and of all. Dead dimensions do not count."""
    alive = (variance > 1e-10).view(n_tokens, -1)  # [K, D]
    blocks = correlation.abs().view(*alive.shape, *alive.shape).transpose(1, 2)  # [K, K, D, D]
    counts = alive[:, None, :, None] & alive[None, :, None, :]  # [K, K, D, D]
    first, second = torch.triu_indices(n_tokens, n_tokens, offset=1, device=correlation.device)
    blocks, counts = blocks[first, second], counts[first, second]  # [pairs, D, D]
    same, same_counts = blocks.diagonal(dim1=1, dim2=2), counts.diagonal(dim1=1, dim2=2)  # [pairs, D]
    return _mean(same[same_counts]), _mean(blocks[counts])


def _mean(values: Tensor) -> float:
    return float(values.mean()) if values.numel() else 0.0  # one token, or none alive: nothing to correlate
