"""The network inside the diffusion head: a small MLP steered by the condition and the noise level."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

FREQUENCIES = 32  # sine and cosine of each: a level is 64 numbers


class Denoised(NamedTuple):
    output: Tensor  # [n, d]       in the space that the head predicts in
    hidden: Tensor  # [n, width]   the representation that `output` is read from


class Prepared(NamedTuple):
    """What the denoiser makes of a condition, whatever the noise level."""

    direct: Tensor  # [n, width]     into the residual stream
    steering: Tensor  # [n, width]   into the modulation, the level not yet added


class Denoiser(nn.Module):
    """Residual MLP with adaptive layer norm, after MAR's `SimpleMLPAdaLN` (Li et al., 2024, arXiv 2406.11838)
    and DiT (Peebles & Xie, 2023, arXiv 2212.09748), with two changes that a ranking needs:

    - The noisy input enters scaled by the signal it carries, sqrt(abar_t), in the spirit of EDM's preconditioning
      (Karras et al., 2022, arXiv 2206.00364). Unscaled, noise of unit size drowns the condition.
    - The condition enters the residual stream by a linear path, not only through the modulation. As the gates of the
      blocks start at zero, at pure noise the head starts as a plain projection of the condition.

    Args:
        d: width of an item vector; vectors are expected at about unit size a coordinate.
        condition_size: D, width of a condition.
        width: of the residual stream.
        depth: number of blocks.
        dropout: inside the blocks, before their last layer.
        levels: T, number of noise levels.
    """

    def __init__(
        self, d: int, condition_size: int, width: int, depth: int = 2, dropout: float = 0.0, levels: int = 200
    ):
        super().__init__()
        self.input = nn.Linear(d, width, bias=False)
        # one product for the two uses of the condition: the residual stream, and the modulation
        self.condition = nn.Linear(condition_size, 2 * width)
        self.level = nn.Sequential(nn.Linear(2 * FREQUENCIES, width), nn.SiLU(), nn.Linear(width, width))
        # shift, scale and gate of all blocks in one product
        self.modulation = nn.Linear(width, 3 * depth * width)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 2 * width), nn.SiLU(), nn.Dropout(dropout), nn.Linear(2 * width, width))
            for _ in range(depth)
        )
        self.output = nn.Linear(width, d)
        self.register_buffer("level_table", _sinusoids(levels), persistent=False)
        self._initialize()

    def _initialize(self):
        # Zero gates: every block starts as the identity.
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)
        # The output layer keeps torch's small random weights. MAR and DiT zero it; then the estimate is zero
        # for every condition at first, and a ranking loss sends nothing back through it.

    def forward(self, x_t: Tensor, t: Tensor, signal: Tensor, condition: Tensor) -> Denoised:
        """Everything broadcasts over leading axes: x_t may be [M, n, d] beside a condition [n, D], whose part of
        the work is then done once for all M; `t` [1] and `signal` [1, 1] stand for one level of all rows.

        Args:
            x_t: [n, d], noisy vectors.
            t: [n], their levels.
            signal: [n, 1], sqrt(abar_t).
            condition: [n, D].

        Returns:
            Denoised: output [n, d] and hidden [n, width].
        """
        return self.denoise(x_t, t, signal, self.prepare(condition))

    def prepare(self, condition: Tensor) -> Prepared:
        """The part of the work that all levels share, for a condition [n, D]."""
        return Prepared(*self.condition(condition).chunk(2, dim=-1))

    def denoise(self, x_t: Tensor, t: Tensor, signal: Tensor, condition: Prepared) -> Denoised:
        """:meth:`forward` for a condition that is prepared."""
        direct, steering = condition
        steering = F.silu(steering + self._embed_level(t))  # [n, width]
        modulation = self.modulation(steering).chunk(3 * len(self.blocks), dim=-1)  # [n, width] each
        hidden = self.input(signal * x_t) + direct  # [n, width]
        for i, block in enumerate(self.blocks):
            shift, scale, gate = modulation[3 * i : 3 * i + 3]
            normed = F.layer_norm(hidden, hidden.shape[-1:])
            hidden = hidden + gate * block(normed * (1 + scale) + shift)  # [n, width]
        return Denoised(self.output(hidden), hidden)

    def _embed_level(self, t):
        # T is small: with many rows it is cheaper to embed every level once and look the rows up
        if t.numel() < len(self.level_table):
            return self.level(self.level_table[t])  # [n, width]
        return F.embedding(t, self.level(self.level_table))  # [n, width]


def _sinusoids(levels):
    """Sinusoidal table [T, 2 * FREQUENCIES], as of Vaswani et al., 2017, section 3.5."""
    frequency = torch.exp(-math.log(10_000) * torch.arange(FREQUENCIES) / FREQUENCIES)
    angle = torch.arange(levels).unsqueeze(1) * frequency  # [T, FREQUENCIES]
    return torch.cat([angle.sin(), angle.cos()], dim=-1)  # [T, 2 * FREQUENCIES]
