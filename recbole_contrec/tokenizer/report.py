"""What a fitted tokenizer keeps of its vectors, and whether its tokens have collapsed.

Everything is accumulated over chunks of rows with a running top-k, so a million items fit.

Axes: ``n`` rows with a vector, ``q`` query rows, ``c`` rows of a chunk, ``k`` neighbours, ``d`` width of a vector,
``K`` tokens, ``D`` width of a token.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from .collaborative import seen_rows
from .masked_vq import MaskedVQ, collision_rate, encode_rows
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


class CodeHealth(NamedTuple):
    """Health of a tokenizer with codebooks on a table of vectors.

    Attributes:
        rows: rows that carry a vector.
        unexplained_train, unexplained_held_out: as in :class:`TokenizerHealth`, of what the nearest codes decode to.
        codebook_size: codes of a codebook (C).
        codes_in_use: share of the codes that some row has, a codebook.
        perplexity: exp of the entropy of the codes over rows, as a share of C, a codebook; 1 if all are used alike.
        collisions: share of rows whose whole tuple of nearest codes another row has, too.
        identical_rows: share of rows whose vector another row has, too: no encoder can tell these apart. Items that one
            and the same user was the only one to meet are such rows.
        neighbour_overlap: share of a row's nearest neighbours (cosine of vectors) that are also among its nearest
            by the cosine of its concatenated codewords.
        neighbours, queries: how many neighbours, of how many rows, ``neighbour_overlap`` counts.
    """

    rows: int
    unexplained_train: float
    unexplained_held_out: float | None
    codebook_size: int
    codes_in_use: list[float]
    perplexity: list[float]
    collisions: float
    identical_rows: float
    neighbour_overlap: float
    neighbours: int
    queries: int


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
    table = _Table.of(vectors, held_out_rows, next(model.parameters()).device, sample, seed)
    n, device, queries, picked = len(table.rows), table.device, table.queries, table.picked
    was_training = model.training
    model.eval()
    errors = _Errors(device)
    moments = _Moments(model.n_tokens * model.token_size, device)
    k = min(neighbours, n - 1)
    by_vector = _Neighbours(queries, picked, k)
    by_token = _Neighbours(model.encode(queries).flatten(1), picked, k)

    for start, x, is_held_out in table.chunks():  # [c, d], [c]
        means = model.encode(x)  # [c, K, D]
        errors.add(x, model.decode(means), table.center, is_held_out)
        moments.add(means.flatten(1))
        by_vector.add(x, start)
        by_token.add(means.flatten(1), start)
    model.train(was_training)

    variance, correlation = moments.finish()  # [K * D], [K * D, K * D]
    agreement, overall = _between_tokens(variance, correlation, model.n_tokens)
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
        neighbour_overlap=by_vector.overlap(by_token),
        neighbours=k,
        queries=len(picked),
    )


@torch.no_grad()
def code_report(
    model: MaskedVQ,
    vectors: Tensor,
    held_out_rows: Tensor | None = None,
    neighbours: int = 10,
    sample: int = 2000,
    seed: int = 0,
) -> CodeHealth:
    """Measure a tokenizer with codebooks; arguments and errors are those of ``health_report``."""
    table = _Table.of(vectors, held_out_rows, next(model.parameters()).device, sample, seed)
    was_training = model.training
    model.eval()
    errors = _Errors(table.device)
    k = min(neighbours, len(table.rows) - 1)
    by_vector = _Neighbours(table.queries, table.picked, k)
    by_token = _Neighbours(model.tokens(model.encode(table.queries)).flatten(1), table.picked, k)
    for start, x, is_held_out in table.chunks():  # [c, d], [c]
        tokens = model.tokens(model.encode(x))  # [c, K, D]
        errors.add(x, model.decode(tokens), table.center, is_held_out)
        by_vector.add(x, start)
        by_token.add(tokens.flatten(1), start)
    codes = encode_rows(model, vectors)[table.rows.cpu()]  # [n, K]
    model.train(was_training)

    unexplained = errors.finish()
    used, perplexity = _use_of_codes(codes, model.codebook_size)
    return CodeHealth(
        rows=len(table.rows),
        unexplained_train=unexplained[0],
        unexplained_held_out=unexplained[1] if held_out_rows is not None else None,
        codebook_size=model.codebook_size,
        codes_in_use=used,
        perplexity=perplexity,
        collisions=collision_rate(codes),
        identical_rows=collision_rate(vectors[table.rows]),
        neighbour_overlap=by_vector.overlap(by_token),
        neighbours=k,
        queries=len(table.picked),
    )


def identifier_report(codes: Tensor, n_codes: int) -> dict[str, Any]:
    """How identifiers use their codes.

    Args:
        codes: [N, K]; rows with the number C, which is no code, do not count.
        n_codes: C.

    Returns:
        dict: ``items`` with codes, ``codes_in_use`` and ``perplexity`` as shares of C, one a level; ``beginnings``, how
            many
        different first codes the items have, first two and so on, as shares of the items; and ``collisions``, the share
        of items whose tuple is not theirs alone.
    """
    codes = codes[codes[:, 0] < n_codes]  # [n, K]
    used, perplexity = _use_of_codes(codes, n_codes)
    beginnings = [
        round(len(codes[:, :level].unique(dim=0)) / max(1, len(codes)), 4) for level in range(1, codes.shape[1] + 1)
    ]
    return {
        "items": len(codes),
        "codes_in_use": used,
        "perplexity": perplexity,
        "beginnings": beginnings,
        "collisions": collision_rate(codes),
    }


def _use_of_codes(codes: Tensor, n_codes: int) -> tuple[list[float], list[float]]:
    """Share of the codes in use and perplexity over C, for each of the K columns of ``codes`` [n, K]."""
    used, perplexity = [], []
    for column in codes.T:
        counts = torch.bincount(column, minlength=n_codes).double()  # [C]
        share = counts[counts > 0] / len(column)
        used.append(round(len(share) / n_codes, 4))
        perplexity.append(round(float((-(share * share.log()).sum()).exp()) / n_codes, 4))
    return used, perplexity


class _Table(NamedTuple):
    """The rows of a table that carry a vector, and some of them as queries.

    Attributes:
        vectors: [N, d], where the caller keeps it.
        rows: numbers of the rows with a vector [n].
        held_out: [N] bool.
        center: mean vector [d], on ``device`` like the two that follow.
        queries: [q, d].
        picked: places of the queries in ``rows`` [q].
        device: of the tokenizer.
    """

    vectors: Tensor
    rows: Tensor
    held_out: Tensor
    center: Tensor
    queries: Tensor
    picked: Tensor
    device: torch.device

    @classmethod
    def of(
        cls, vectors: Tensor, held_out_rows: Tensor | None, device: torch.device, sample: int, seed: int
    ) -> "_Table":
        rows = seen_rows(vectors).nonzero().squeeze(1)  # [n]
        n = len(rows)
        if n < 2:
            raise ValueError(f"a health report needs at least two rows with a vector, and the table has {n}")
        held_out = torch.zeros(len(vectors), dtype=torch.bool, device=vectors.device)
        if held_out_rows is not None:
            held_out[held_out_rows.to(vectors.device)] = True
        picked = torch.randperm(n, generator=torch.Generator().manual_seed(seed))[:sample]  # [q]
        queries = vectors[rows[picked.to(rows.device)]].to(device)  # [q, d]
        return cls(vectors, rows, held_out, vectors[rows].mean(dim=0).to(device), queries, picked.to(device), device)

    def chunks(self) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Place of the first row in ``rows``, vectors [c, d] and which of them are held out [c], chunk by chunk."""
        for start in range(0, len(self.rows), CHUNK):
            part = self.rows[start : start + CHUNK]
            yield start, self.vectors[part].to(self.device), self.held_out[part].to(self.device)


class _Errors:
    """Squared error and squared distance from the mean, for rows trained on and rows held out."""

    def __init__(self, device: torch.device | str):
        self.error, self.spread = torch.zeros(2, 2, dtype=torch.float64, device=device)  # [2] each

    def add(self, x: Tensor, reconstruction: Tensor, center: Tensor, is_held_out: Tensor) -> None:
        group = is_held_out.long()  # [c]
        self.error.index_add_(0, group, (x - reconstruction).square().sum(dim=1).double())
        self.spread.index_add_(0, group, (x - center).square().sum(dim=1).double())

    def finish(self) -> list[float]:
        return (self.error / self.spread.clamp_min(1e-12)).tolist()


class _Moments:
    """Variance and correlation of columns, [c, m] chunk by chunk; float64, for the mean is subtracted at the end."""

    def __init__(self, columns: int, device: torch.device | str):
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

    def overlap(self, other: "_Neighbours") -> float:
        """Share of these neighbours that are also the other's."""
        return float((self.rows[:, :, None] == other.rows[:, None, :]).any(dim=2).double().mean())


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
