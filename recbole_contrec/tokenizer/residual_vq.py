r"""Residual vector quantisation: K codes that say an item ever more precisely, and the vector again.

Paper:
    RQ-VAE: "Autoregressive Image Generation using Residual Quantization", CVPR 2022, https://arxiv.org/abs/2203.01941
    for items: TIGER, "Recommender Systems with Generative Retrieval", NeurIPS 2023, https://arxiv.org/abs/2305.05065

    r^1 = Enc(x)
    w^k = argmin_l || r^k - c^k_l ||,   r^{k+1} = r^k - c^k_{w^k}          k = 1..K, K codebooks of C codewords
    x_hat = Dec(z)                      z = r^1 + sg[sum_k c^k_{w^k} - r^1]

    L = || x - x_hat ||^2 + sum_k ( || sg[r^k] - c^k ||^2 + beta || r^k - sg[c^k] ||^2 )

The codebooks start at the centroids of k-means over the residuals of the encoded table, level by level, and codes that
hardly any row takes start anew at a residual of the batch: without either, most of a codebook stays unused.

Axes: ``n`` rows, ``d`` width of a vector, ``K`` tokens, ``C`` codes of a codebook, ``D`` width of a codeword.
"""

import torch
from torch import Tensor, nn

from .masked_vq import CHUNK, KMEANS_ROWS, Quantized, QuantizerLoss, kmeans, quantizer_loss


class ResidualVQ(nn.Module):
    """Vectors to K codes from coarse to fine, and back.

    Args:
        d: width of the vectors, which should have about unit variance (``standardise``).
        n_tokens: K.
        codebook_size: C.
        token_size: D.
        hidden_size: width of the one hidden layer of encoder and decoder.
        dropout: on hidden layers, in training.
        restart_below: a code starts anew when its running use falls below this share of the average code's; 0 for
            never.

    Raises:
        ValueError: a setting out of range, or input of another width than d.
    """

    use: Tensor

    def __init__(
        self,
        d: int,
        n_tokens: int = 3,
        codebook_size: int = 256,
        token_size: int = 32,
        hidden_size: int = 128,
        dropout: float = 0.0,
        restart_below: float = 0.2,
    ):
        super().__init__()
        if min(d, n_tokens, codebook_size, token_size, hidden_size) < 1:
            raise ValueError("d, n_tokens, codebook_size, token_size and hidden_size must be at least 1")
        if not 0 <= dropout < 1 or not 0 <= restart_below < 1:
            raise ValueError("dropout and restart_below must lie in [0, 1)")
        self.d, self.n_tokens, self.codebook_size, self.token_size = d, n_tokens, codebook_size, token_size
        self.restart_below = restart_below
        self.encoder = _mlp(d, hidden_size, token_size, dropout)
        self.codebooks = nn.Parameter(torch.randn(n_tokens, codebook_size, token_size))
        self.decoder = _mlp(token_size, hidden_size, d, dropout)
        self.register_buffer("use", torch.ones(n_tokens, codebook_size))  # running, 1 = as often as the average code

    def forward(self, x: Tensor) -> Quantized:
        """Quantise and reconstruct rows [n, d]. ``encoded`` holds the residuals before every level."""
        if x.dim() != 2 or x.shape[1] != self.d:
            raise ValueError(f"the tokenizer reads vectors [n, {self.d}], not {list(x.shape)}")
        encoded = self.encoder(x)  # [n, D]
        codes, residuals = self._levels(encoded)  # [n, K], [n, K, D]
        codewords = self.tokens(codes)  # [n, K, D]
        passed = encoded + (codewords.sum(1) - encoded).detach()  # straight through, to the encoder alone
        return Quantized(codes, residuals, codewords, passed, self.decoder(passed))

    def encode(self, x: Tensor) -> Tensor:
        """Codes of rows, [n, d] -> [n, K] int64."""
        return self(x).codes

    def tokens(self, codes: Tensor) -> Tensor:
        """Codewords of codes, [n, K] -> [n, K, D]."""
        return self.codebooks[torch.arange(self.n_tokens, device=codes.device), codes]

    def decode(self, tokens: Tensor) -> Tensor:
        """[n, K, D] -> [n, d]; reads the sum of the K codewords."""
        return self.decoder(tokens.sum(dim=1))

    def loss(self, x: Tensor, codebook_weight: float = 1.0, commitment_weight: float = 0.25) -> QuantizerLoss:
        """Weighted terms of the objective for rows ``x`` [n, d], each a mean over elements. In training mode dead codes
        are restarted afterwards."""
        return quantizer_loss(self, x, codebook_weight, commitment_weight)

    @torch.no_grad()
    def start_codebooks(self, x: Tensor) -> None:
        """Put the codebooks at the k-means centroids of the residuals of rows ``x`` [n, d]."""
        x = x[torch.randperm(len(x))[: KMEANS_ROWS * self.codebook_size].to(x.device)]
        was_training = self.training
        self.eval()
        residual = torch.cat([self.encoder(part) for part in x.split(CHUNK)])  # [n, D]
        self.train(was_training)
        for codebook in self.codebooks:
            codebook.copy_(kmeans(residual, self.codebook_size))
            residual = residual - codebook[torch.cdist(residual, codebook).argmin(1)]
        self.use.fill_(1.0)

    def _levels(self, encoded: Tensor) -> tuple[Tensor, Tensor]:
        """Codes [n, K] of encodings [n, D], and the residuals [n, K, D] that they stand for."""
        codes, residuals, residual = [], [], encoded
        for codebook in self.codebooks.detach():
            codes.append(torch.cdist(residual.detach(), codebook).argmin(1))
            residuals.append(residual)
            residual = residual - codebook[codes[-1]]
        return torch.stack(codes, dim=1), torch.stack(residuals, dim=1)


def _mlp(inputs: int, hidden: int, outputs: int, dropout: float) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, hidden), nn.LayerNorm(hidden), nn.ReLU(), nn.Dropout(dropout), nn.Linear(hidden, outputs)
    )
