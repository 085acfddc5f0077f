r"""Masked vector quantisation: an item or user vector becomes K discrete codes, and their codewords the vector again.

Paper:
    TokenRec, "TokenRec: Learning to Tokenize ID for LLM-based Generative Recommendations", IEEE TKDE 37(10), 2025,
    https://arxiv.org/abs/2406.10450
    straight-through estimator and losses: VQ-VAE, https://arxiv.org/abs/1711.00937
    restart of dead codes: Jukebox, https://arxiv.org/abs/2005.00341, section 3
    rotation trick: https://arxiv.org/abs/2410.06424, section 4

    x' = x * mask                              mask ~ Bernoulli(1 - rho), one draw an element (training only)
    a^k = Enc^k(x')                            k = 1..K, K encoders without shared weights
    w^k = argmin_l || a^k - c^k_l ||           K codebooks of C codewords
    x_hat = Dec(mean_k z^k)                    z^k = a^k + sg[c^k_{w^k} - a^k], which is the codeword

    L = || x - x_hat ||^2 + || sg[a] - c ||^2 + beta || a - sg[c] ||^2

The codebooks start at the centroids of k-means over the encoded table, and codes that hardly any row takes start anew
at a row of the batch.

Where this departs from the released code (``model.MQ``), on purpose:

* the decoder reads z and not c, so the reconstruction trains the encoders; there, z was computed and thrown
  away, and with the commitment loss commented out no encoder ever got a gradient;
* the mask is drawn anew for every element; there, one served a batch and was written into the batch's first row,
  which is also the target;
* mean pooling as in the paper, k-means once over the whole table, and LayerNorm for BatchNorm: a code must not
  depend on which other rows share its batch;
* codes that are hardly used start anew at rows of the batch (``restart_below``; 0 for never).

A library for this exists, vector-quantize-pytorch (1.32). Not used: what would remain of it here is the nearest
codeword and two losses, a few lines; its k-means sees one batch only, its defaults (EMA codebooks, rotation) change
what the paper states, its state holds flags beside tensors, and it brings four further packages.

Axes: ``n`` rows, ``d`` width of a vector, ``K`` tokens, ``C`` codes of a codebook, ``D`` width of a codeword.
"""

from typing import Any, NamedTuple, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .collaborative import seen_rows
from .sigma_vae import masked, parallel_encoders, token_decoder

GRADIENTS = ("straight_through", "rotation")
KMEANS_ROUNDS = 20
KMEANS_ROWS = 64  # rows a code that k-means looks at, at most
USE_MEMORY = 0.9  # of the running use of a code: about ten batches
CHUNK = 4096


class Quantized(NamedTuple):
    """``codes`` [n, K] int64; ``encoded``, its ``codewords`` and ``tokens`` (what the decoder reads) [n, K, D];
    ``reconstruction`` [n, d]."""

    codes: Tensor
    encoded: Tensor
    codewords: Tensor
    tokens: Tensor
    reconstruction: Tensor


class QuantizerLoss(NamedTuple):
    """Weighted scalars: the loss to minimise is ``sum(loss)``."""

    reconstruction: Tensor
    codebook: Tensor
    commitment: Tensor


class MaskedVQ(nn.Module):
    """Vectors to K codes and back.

    Args:
        d: width of the vectors, which should have about unit variance (``standardise``).
        n_tokens: K.
        codebook_size: C.
        token_size: D.
        hidden_size: width of the one hidden layer of every encoder and of the decoder.
        mask_ratio: rho, share of input elements set to zero in training.
        dropout: on hidden layers, in training.
        restart_below: a code starts anew when its running use falls below this share of the average code's; 0 for
            never.
        gradient: how it passes the nearest codeword: ``straight_through``, or ``rotation``, which turns it by the angle
            between encoding and codeword.

    Raises:
        ValueError: a setting out of range, or input of another width than d.
    """

    use: Tensor

    def __init__(
        self,
        d: int,
        n_tokens: int = 3,
        codebook_size: int = 256,
        token_size: int = 64,
        hidden_size: int = 128,
        mask_ratio: float = 0.2,
        dropout: float = 0.0,
        restart_below: float = 0.3,
        gradient: str = "straight_through",
    ):
        super().__init__()
        if gradient not in GRADIENTS:
            raise ValueError(f"unknown gradient {gradient!r}: choose one of {', '.join(GRADIENTS)}")
        if min(d, n_tokens, codebook_size, token_size, hidden_size) < 1:
            raise ValueError("d, n_tokens, codebook_size, token_size and hidden_size must be at least 1")
        if not 0 <= mask_ratio < 1 or not 0 <= dropout < 1 or not 0 <= restart_below < 1:
            raise ValueError("mask_ratio, dropout and restart_below must lie in [0, 1)")
        self.d, self.n_tokens, self.codebook_size, self.token_size = d, n_tokens, codebook_size, token_size
        self.mask_ratio, self.restart_below, self.gradient = mask_ratio, restart_below, gradient

        self.encoders = parallel_encoders(n_tokens, d, hidden_size, token_size, dropout)
        self.codebooks = nn.Parameter(torch.randn(n_tokens, codebook_size, token_size))
        self.decoder = token_decoder(token_size, hidden_size, d, dropout)
        self.register_buffer("use", torch.ones(n_tokens, codebook_size))  # running, 1 = as often as the average code

    def forward(self, x: Tensor) -> Quantized:
        """Quantise and reconstruct rows [n, d]; masked in training mode."""
        encoded = self._encode(x)  # [n, K, D]
        codes = self._nearest(encoded)  # [n, K]
        codewords = self.tokens(codes)  # [n, K, D]
        tokens = self._pass(encoded, codewords)
        return Quantized(codes, encoded, codewords, tokens, self.decode(tokens))

    def encode(self, x: Tensor) -> Tensor:
        """Codes of rows, [n, d] -> [n, K] int64; deterministic in eval mode, of the masked rows in training mode."""
        return self._nearest(self._encode(x))

    def tokens(self, codes: Tensor) -> Tensor:
        """Codewords of codes, [n, K] -> [n, K, D]."""
        return self.codebooks[torch.arange(self.n_tokens, device=codes.device), codes]

    def decode(self, tokens: Tensor) -> Tensor:
        """[n, K, D] -> [n, d]; reads the mean of the K codewords only."""
        return self.decoder(tokens.mean(dim=1))

    def loss(self, x: Tensor, codebook_weight: float = 1.0, commitment_weight: float = 0.5) -> QuantizerLoss:
        """Weighted terms of the objective for rows ``x`` [n, d], each a mean over elements. In training mode dead codes
        are restarted afterwards."""
        return quantizer_loss(self, x, codebook_weight, commitment_weight)

    @torch.no_grad()
    def start_codebooks(self, x: Tensor) -> None:
        """Put the codebooks at the k-means centroids of the encoded rows ``x`` [n, d], without mask."""
        limit = KMEANS_ROWS * self.codebook_size
        x = x[torch.randperm(len(x))[:limit].to(x.device)]
        was_training = self.training
        self.eval()
        encoded = torch.cat([self._encode(part) for part in x.split(CHUNK)])  # [n, K, D]
        self.train(was_training)
        for codebook, points in zip(self.codebooks, encoded.unbind(1)):
            codebook.copy_(kmeans(points, self.codebook_size))
        self.use.fill_(1.0)

    def _encode(self, x: Tensor) -> Tensor:
        if x.dim() != 2 or x.shape[1] != self.d:
            raise ValueError(f"the tokenizer reads vectors [n, {self.d}], not {list(x.shape)}")
        if self.training and self.mask_ratio > 0:
            x = masked(x, self.mask_ratio)
        return self.encoders(x.expand(self.n_tokens, -1, -1)).transpose(0, 1)  # [n, K, D]

    def _nearest(self, encoded: Tensor) -> Tensor:
        return self.distances(encoded.detach()).argmin(dim=2).T  # [n, K]

    @torch.no_grad()
    def distances(self, encoded: Tensor) -> Tensor:
        """Squared distances to all codewords but for what is equal for all of them, [n, K, D] -> [K, n, C]."""
        squares = self.codebooks.square().sum(dim=2)[:, None]  # [K, 1, C]
        return torch.baddbmm(squares, encoded.transpose(0, 1), self.codebooks.transpose(1, 2), alpha=-2)

    def _pass(self, encoded: Tensor, codewords: Tensor) -> Tensor:
        """The codewords [n, K, D], with a gradient to the encodings and none to the codebooks."""
        if self.gradient == "straight_through":
            return encoded + (codewords - encoded).detach()
        return rotated(encoded, codewords)


def quantizer_loss(model: Any, x: Tensor, codebook_weight: float, commitment_weight: float) -> QuantizerLoss:
    """The ``loss`` of a tokenizer with ``codebooks``, ``use`` and ``restart_below`` for rows ``x`` [n, d]; in training
    mode its dead codes are restarted afterwards."""
    out = model(x)
    loss = QuantizerLoss(
        reconstruction=F.mse_loss(out.reconstruction, x),
        codebook=codebook_weight * F.mse_loss(out.codewords, out.encoded.detach()),
        commitment=commitment_weight * F.mse_loss(out.encoded, out.codewords.detach()),
    )
    if model.training and model.restart_below:
        restart_dead_codes(model.codebooks, model.use, out.encoded.detach(), out.codes, model.restart_below)
    return loss


@torch.no_grad()
def restart_dead_codes(codebooks: Tensor, use: Tensor, encoded: Tensor, codes: Tensor, below: float) -> None:
    """Codes that hardly any row takes start anew at a row of the batch.

    Args:
        codebooks: [K, C, D], changed in place.
        use: running use of every code, 1 = as often as the average one [K, C]; changed in place.
        encoded: what was quantised [n, K, D].
        codes: that it got [n, K].
        below: the use below which a code starts anew.
    """
    counts = torch.zeros_like(use).scatter_add_(1, codes.T, torch.ones_like(codes.T, dtype=use.dtype))
    use.lerp_(counts * (codebooks.shape[1] / len(codes)), 1 - USE_MEMORY)
    book, code = (use < below).nonzero(as_tuple=True)
    if len(book):
        row = torch.randint(len(encoded), (len(book),), device=encoded.device)
        codebooks[book, code] = encoded[row, book]
        use[book, code] = 1.0


def rotated(encoded: Tensor, codewords: Tensor) -> Tensor:
    """The codewords [..., D] as a rotation and stretch of the encodings, both taken for constants in the gradient."""
    source, target = F.normalize(encoded.detach(), dim=-1), F.normalize(codewords.detach(), dim=-1)
    middle = F.normalize(source + target, dim=-1)
    norm, wanted = (vectors.detach().norm(dim=-1, keepdim=True) for vectors in (encoded, codewords))
    turned = (
        encoded
        - 2 * (encoded * middle).sum(-1, keepdim=True) * middle
        + 2 * (encoded * source).sum(-1, keepdim=True) * target
    )
    return wanted / norm.clamp_min(1e-12) * turned


def kmeans(points: Tensor, count: int) -> Tensor:
    """Centroids [count, D] of points [n, D]: Lloyd's algorithm from points drawn by k-means++ (Arthur and
    Vassilvitskii, SODA 2007), each the likelier, the farther it is from those before.

    A cluster without points starts anew at the point farthest from its centroid. With fewer points than clusters, the
    rest are points with a little noise.
    """
    n = len(points)
    if n < count:
        again = torch.randint(n, (count - n,), device=points.device)
        noise = 0.01 * points.std() * torch.randn(count - n, points.shape[1], device=points.device)
        return torch.cat([points, points[again] + noise])
    centroids = points[_spread(points, count)]
    for _ in range(KMEANS_ROUNDS):
        distance, nearest = torch.cdist(points, centroids).min(dim=1)  # [n]
        sums = torch.zeros_like(centroids).index_add_(0, nearest, points)
        counts = torch.bincount(nearest, minlength=count)[:, None]  # [count, 1]
        empty = (counts == 0).squeeze(1)
        centroids = sums / counts.clamp_min(1)
        centroids[empty] = points[distance.topk(int(empty.sum())).indices]
    return centroids


def _spread(points: Tensor, count: int) -> Tensor:
    """Numbers of the points [count] that k-means++ starts from."""
    drawn = [torch.randint(len(points), (1,), device=points.device)]
    distance = points.new_full((len(points),), torch.inf)
    while len(drawn) < count:
        distance = torch.minimum(distance, (points - points[drawn[-1]]).square().sum(dim=1))  # to the nearest drawn one
        drawn.append(torch.multinomial(distance + 1e-12, 1))  # all the same where only copies are left
    return torch.cat(drawn)


def default_codes(rows: int) -> int:
    """Codes of a codebook that suit a table: 256, above 10,000 rows 512 (what TokenRec uses for its small and its large
    data sets), on a small table the largest power of two that leaves four rows a code, and on the smallest ones 4, so
    that tuples of them tell all rows apart."""
    largest = 512 if rows > 10_000 else 256
    return min(largest, rows, max(2 ** max(rows // 4, 1).bit_length() // 2, 4))


class CodeEncoder(Protocol):
    """What gives vectors their codes; :class:`MaskedVQ` and ``ResidualVQ`` do."""

    codebook_size: int

    @property
    def codebooks(self) -> Tensor:
        """The codewords [K, C, token_size]."""

    def encode(self, x: Tensor) -> Tensor:
        """Codes [n, K] of vectors [n, d]."""


@torch.no_grad()
def encode_rows(model: CodeEncoder, vectors: Tensor) -> Tensor:
    """Codes [N, K] of a table [N, d] on the CPU, chunk by chunk; rows without a vector get the number C, which is no
    code, for each of their tokens."""
    device = model.codebooks.device
    codes = torch.cat([model.encode(part.to(device)).cpu() for part in vectors.split(CHUNK)])
    codes[~seen_rows(vectors).cpu()] = model.codebook_size
    return codes


@torch.no_grad()
def distinct_codes(model: MaskedVQ, vectors: Tensor) -> Tensor:
    """As :func:`encode_rows`, but no tuple stands for two rows with a vector.

    Of the rows with one tuple the first keeps it. Every other one takes its second best code in the codebook where
    that costs least, or the third best ..., until the tuple is free. Only a row for which none of these K (C - 1)
    tuples is free stays as it was.
    """
    codes = encode_rows(model, vectors)
    rows = seen_rows(vectors).nonzero().squeeze(1).cpu()
    taken, waiting = set(), []
    for row, chosen in zip(rows.tolist(), map(tuple, codes[rows].tolist())):
        waiting.append(row) if chosen in taken else taken.add(chosen)
    for part in torch.tensor(waiting, dtype=torch.long).split(CHUNK):
        distances = model.distances(model._encode(vectors[part].to(model.codebooks.device))).cpu()  # [K, c, C]
        own = distances.gather(2, codes[part].T[:, :, None])  # [K, c, 1]
        for row, cost in zip(part.tolist(), (distances - own).unbind(1)):
            chosen = _nearest_free(tuple(codes[row].tolist()), cost, taken)
            taken.add(chosen)
            codes[row] = torch.tensor(chosen)
    return codes


def _nearest_free(chosen: tuple, cost: Tensor, taken: set) -> tuple:
    """The free tuple that differs from ``chosen`` in one code and adds least to its ``cost`` [K, C]."""
    for place in cost.flatten().argsort().tolist():
        book, code = divmod(place, cost.shape[1])
        other = (*chosen[:book], code, *chosen[book + 1 :])
        if other not in taken:
            return other
    return chosen


def collision_rate(rows: Tensor) -> float:
    """Share of rows [n, K] that are not the only ones of their kind."""
    counts = rows.unique(dim=0, return_inverse=True, return_counts=True)
    return float((counts[2][counts[1]] > 1).double().mean())
