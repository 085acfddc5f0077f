r"""sigma-VAE: an item or user vector becomes K continuous tokens, and the mean of the tokens becomes the vector again.

Paper:
    ContRec, "Diffusion Generative Recommendation with Continuous Tokens", WWW 2026, https://arxiv.org/abs/2504.12007
    sigma-VAE: LatentLM, https://arxiv.org/abs/2412.08635
    Barlow Twins, https://arxiv.org/abs/2103.03230

    x' = x * mask                              mask ~ Bernoulli(1 - rho), one draw an element (training only)
    mu^k = Enc^k(x')                           k = 1..K, K encoders without shared weights
    z^k = mu^k + sigma_i eps                   sigma_i ~ N(0, C_sigma) an example, eps ~ N(0, I) fresh each call
    x_hat = Dec(mean_k z^k)

Three devices keep the tokens from collapsing: the mask (no copying), K encoders with one decoder
behind their mean, and a noise level that is *drawn*, not learned, so that the encoder cannot shrink it.

Where this departs from the released code (``rec_tokenizer/vae.py``), on purpose:

* mask, sigma and eps are drawn anew for every example and call; there, one mask served a whole batch and was
  written into the batch itself, which is also the target, and sigma and eps were drawn once at construction;
* LayerNorm for BatchNorm: a token must not depend on which other items share its batch, and running
  statistics would go stale when the tokenizer is fine-tuned on histories, where popular items repeat;
* the learned offset added to x is left out: the first layer's bias is that offset;
* one hidden layer in encoders and decoder, there two with dropout .5 and .2.

Axes: ``n`` rows, ``d`` width of an item vector, ``K`` tokens, ``D`` width of a token, ``H`` hidden width.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

VARIANTS = ("sigma", "plain", "deterministic")
TWINS_OFF_DIAGONAL = 0.005  # lambda of Barlow Twins, eq. 1


class Tokenized(NamedTuple):
    """``tokens`` and ``means`` [n, K, D], ``reconstruction`` [n, d], ``log_variance`` [n, K, D] (variant ``plain``)."""

    tokens: Tensor
    means: Tensor
    reconstruction: Tensor
    log_variance: Tensor | None


class TokenizerLoss(NamedTuple):
    """Weighted scalars: the loss to minimise is ``sum(loss)``."""

    reconstruction: Tensor
    mean_penalty: Tensor
    twins: Tensor


class SigmaVAE(nn.Module):
    """Vectors to K continuous tokens and back.

    Args:
        d: width of the vectors, which should have about unit variance (``standardise``).
        n_tokens: K.
        token_size: D.
        hidden_size: H, width of the one hidden layer of every encoder and of the decoder.
        mask_ratio: rho, share of input elements set to zero in training.
        sigma: C_sigma, standard deviation of the noise level (variant ``sigma``).
        dropout: on hidden layers, in training.
        variant: ``sigma``; ``plain``, a VAE that learns its variance; ``deterministic``, no noise (z = mu).

    Raises:
        ValueError: a setting out of range, or input of another width than d.
    """

    def __init__(
        self,
        d: int,
        n_tokens: int = 2,
        token_size: int = 64,
        hidden_size: int = 128,
        mask_ratio: float = 0.1,
        sigma: float = 0.1,
        dropout: float = 0.1,
        variant: str = "sigma",
    ):
        super().__init__()
        if variant not in VARIANTS:
            raise ValueError(f"unknown tokenizer variant {variant!r}: choose one of {', '.join(VARIANTS)}")
        if min(d, n_tokens, token_size, hidden_size) < 1:
            raise ValueError("d, n_tokens, token_size and hidden_size must be at least 1")
        if not 0 <= mask_ratio < 1 or not 0 <= dropout < 1 or sigma < 0:
            raise ValueError("mask_ratio and dropout must lie in [0, 1), and sigma must not be negative")
        self.d, self.n_tokens, self.token_size = d, n_tokens, token_size
        self.mask_ratio, self.sigma, self.variant = mask_ratio, sigma, variant

        outputs = 2 * token_size if variant == "plain" else token_size  # mean, and log variance
        self.encoders = parallel_encoders(n_tokens, d, hidden_size, outputs, dropout)
        self.decoder = token_decoder(token_size, hidden_size, d, dropout)

    def forward(self, x: Tensor) -> Tokenized:
        """[n, d] -> tokens, means, reconstruction. Tokens carry noise in training; in eval mode they are the means."""
        means, log_variance = self._encode(x)  # [n, K, D]
        tokens = self.sample(means, log_variance) if self.training else means
        return Tokenized(tokens, means, self.decode(tokens), log_variance)

    def encode(self, x: Tensor) -> Tensor:
        """Means of the tokens, [n, d] -> [n, K, D]; deterministic in eval mode, masked in training mode."""
        return self._encode(x)[0]

    def sample(self, means: Tensor, log_variance: Tensor | None = None) -> Tensor:
        """Add the tokens' noise, [n, K, D] -> [n, K, D], drawn anew on every call and in either mode.

        ``log_variance`` is what ``forward`` returned; only the variant ``plain`` reads it, and needs it.
        """
        if self.variant == "deterministic":
            return means
        # The means are a transposed view, for which randn_like would leave its vectorised path (four times slower).
        noise = torch.randn(means.shape, dtype=means.dtype, device=means.device)  # [n, K, D]
        if self.variant == "plain":
            if log_variance is None:
                raise ValueError("the variant 'plain' samples from a learned variance: pass forward(x).log_variance")
            return means + (0.5 * log_variance).exp() * noise
        # One level for all tokens of an example (LatentLM, section 3.1), so the decoder meets clean
        # and noisy examples; its sign is immaterial, eps being symmetric.
        level = self.sigma * torch.randn_like(means[:, :1, :1])  # [n, 1, 1]
        return means + level * noise

    def decode(self, tokens: Tensor) -> Tensor:
        """[n, K, D] -> [n, d]; reads the mean of the K tokens only."""
        return self.decoder(tokens.mean(dim=1))

    def loss(self, x: Tensor, mean_weight: float = 0.0, twins_weight: float = 0.0) -> TokenizerLoss:
        r"""Weighted terms of the objective for rows ``x`` [n, d].

        * reconstruction: mean squared error against the unmasked ``x``;
        * mean penalty: ``mean_weight`` times KL(q(z|x) || N(0, I)) an element. With the variance fixed that is
          mu^2 / 2 up to a constant; ``plain`` has (mu^2 + s^2 - 1 - log s^2) / 2;
        * twins: ``twins_weight`` times the redundancy of the K tokens, see ``twins_redundancy``.
        """
        out = self(x)
        divergence = out.means.square()  # [n, K, D]
        if out.log_variance is not None:
            divergence = divergence + out.log_variance.exp() - 1 - out.log_variance
        return TokenizerLoss(
            reconstruction=F.mse_loss(out.reconstruction, x),
            mean_penalty=mean_weight * 0.5 * divergence.mean(),
            twins=twins_weight * twins_redundancy(out.tokens) if twins_weight else x.new_zeros(()),
        )

    def _encode(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        if x.dim() != 2 or x.shape[1] != self.d:
            raise ValueError(f"the tokenizer reads vectors [n, {self.d}], not {list(x.shape)}")
        if self.training and self.mask_ratio > 0:
            x = masked(x, self.mask_ratio)
        out = self.encoders(x.expand(self.n_tokens, -1, -1)).transpose(0, 1)  # [n, K, D] or [n, K, 2D]
        if self.variant != "plain":
            return out, None
        means, log_variance = out.chunk(2, dim=-1)
        return means, log_variance


def parallel_encoders(n_tokens: int, d: int, hidden_size: int, outputs: int, dropout: float) -> nn.Sequential:
    """K two-layer encoders without shared weights, [K, n, d] -> [K, n, outputs]."""
    return nn.Sequential(
        ParallelLinear(n_tokens, d, hidden_size),
        # No gain and offset here: nn.LayerNorm would share them among the K encoders.
        nn.LayerNorm(hidden_size, elementwise_affine=False),
        nn.ReLU(),
        nn.Dropout(dropout),
        ParallelLinear(n_tokens, hidden_size, outputs),
    )


def token_decoder(token_size: int, hidden_size: int, d: int, dropout: float) -> nn.Sequential:
    """The one decoder behind the mean of the K tokens, [n, D] -> [n, d]."""
    return nn.Sequential(
        nn.Linear(token_size, hidden_size),
        nn.LayerNorm(hidden_size),
        nn.ReLU(),
        nn.Dropout(dropout),
        nn.Linear(hidden_size, d),
    )


def masked(x: Tensor, ratio: float) -> Tensor:
    """A copy of ``x`` with about this share of its elements set to zero, one draw an element.

    Not rescaled by 1 / (1 - rho) as dropout would: for standardised input a zero is the mean, and the identity stays
    the best map for columns that do not predict each other.
    """
    return x * (torch.rand_like(x) >= ratio)


class ParallelLinear(nn.Module):
    """K linear layers in one batched product, [K, n, inputs] -> [K, n, outputs]; initialised like ``nn.Linear``."""

    def __init__(self, count: int, inputs: int, outputs: int):
        super().__init__()
        bound = inputs**-0.5
        self.weight = nn.Parameter(torch.empty(count, inputs, outputs).uniform_(-bound, bound))
        self.bias = nn.Parameter(torch.empty(count, 1, outputs).uniform_(-bound, bound))

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias, x, self.weight)


def twins_redundancy(tokens: Tensor) -> Tensor:
    r"""Barlow Twins between the K tokens of an item: [n, K, D] -> scalar, the average over pairs of tokens.

    For a pair with cross-correlation matrix C [D, D] over the batch (each dimension standardised there):
    ``(sum_i (1 - C_ii)^2 + lambda sum_{i != j} C_ij^2) / D``. The first sum draws the two tokens of an item *together*,
    dimension by dimension; the second makes different dimensions say different things, which keeps
    all D of them in use. With a large weight the K tokens become copies of one another.
    Zero for K = 1, and for a single row, which has no correlations.
    """
    n, n_tokens, token_size = tokens.shape
    if n_tokens == 1 or n == 1:
        return tokens.new_zeros(())
    centred = tokens - tokens.mean(dim=0)
    scaled = centred / (centred.square().mean(dim=0) + 1e-8).sqrt()  # [n, K, D]
    first, second = torch.triu_indices(n_tokens, n_tokens, offset=1)  # every pair once
    scaled = scaled.transpose(0, 1)  # [K, n, D]
    correlation = scaled[first].transpose(1, 2) @ scaled[second] / n  # [pairs, D, D]
    diagonal = correlation.diagonal(dim1=1, dim2=2)  # [pairs, D]
    on_diagonal = (1 - diagonal).square().sum(dim=1)
    off_diagonal = correlation.square().sum(dim=(1, 2)) - diagonal.square().sum(dim=1)
    return ((on_diagonal + TWINS_OFF_DIAGONAL * off_diagonal) / token_size).mean()
