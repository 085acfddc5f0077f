"""How much signal is left at each noise level, and the closed forms that follow from it."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

SCHEDULES = ("linear", "cosine", "exp")
PREDICTIONS = ("x0", "noise", "v")

# x0 = (x_t - sqrt(1-abar) eps) / sqrt(abar) divides by the signal: at abar = 0 it is infinite, and in
# float32 useless well before. A signal of 1 % is noise for every purpose and keeps the division finite.
MIN_ALPHA_BAR = 1e-4


class NoiseSchedule(nn.Module):
    r"""Variance-preserving noise: :math:`x_t = \sqrt{\bar\alpha_t}\,x_0 + \sqrt{1-\bar\alpha_t}\,\epsilon`.

    Level 0 is the cleanest, level T-1 is (nearly) pure noise. A level `t` is an integer or a LongTensor of any
    shape; coefficients get one more axis at the end, so that they broadcast over `d`.

    - ``linear``: Ho et al., 2020 (arXiv 2006.11239), rescaled to T levels
    - ``cosine``: Nichol & Dhariwal, 2021 (arXiv 2102.09672), eq. 17
    - ``exp``: DreamRec, Yang et al., NeurIPS 2023 (arXiv 2310.20453), its released code

    Args:
        kind: one of ``SCHEDULES``.
        levels: T, at least 2.

    Raises:
        ValueError: unknown kind, or too few levels.
    """

    alpha_bar: Tensor

    def __init__(self, kind: str = "cosine", levels: int = 200):
        super().__init__()
        if kind not in SCHEDULES:
            raise ValueError(f"schedule must be one of {', '.join(SCHEDULES)}, not {kind!r}")
        if not isinstance(levels, int) or levels < 2:
            raise ValueError(f"levels must be an integer of at least 2, not {levels!r}")
        self.kind, self.levels = kind, levels
        alpha_bar = _alpha_bar(kind, levels).clamp(min=MIN_ALPHA_BAR).float()  # [T]
        # a function of the two arguments: not worth a place in checkpoints
        self.register_buffer("alpha_bar", alpha_bar, persistent=False)

    def extra_repr(self) -> str:
        return f"{self.kind!r}, levels={self.levels}"

    def signal(self, t: Tensor | int) -> Tensor:
        """`sqrt(abar_t)`: [n] -> [n, 1]."""
        return self.alpha_bar[t].sqrt().unsqueeze(-1)

    def noise(self, t: Tensor | int) -> Tensor:
        """`sqrt(1 - abar_t)`: [n] -> [n, 1]."""
        return (1 - self.alpha_bar[t]).sqrt().unsqueeze(-1)

    def add_noise(self, x0: Tensor, eps: Tensor, t: Tensor | int) -> Tensor:
        """`x_t` from the clean vector and a draw of noise, both [n, d]."""
        return self.signal(t) * x0 + self.noise(t) * eps

    def target(self, x0: Tensor, eps: Tensor, t: Tensor | int, prediction: str) -> Tensor:
        """What the network shall put out, [n, d]; `v` is Salimans & Ho, 2022 (arXiv 2202.00512)."""
        check_prediction(prediction)
        if prediction == "x0":
            return x0
        if prediction == "noise":
            return eps
        return self.signal(t) * eps - self.noise(t) * x0

    def to_x0(self, x_t: Tensor, output: Tensor, t: Tensor | int, prediction: str) -> Tensor:
        """The clean vector that a network output [n, d] stands for; inverse of `target`."""
        check_prediction(prediction)
        if prediction == "x0":
            return output
        if prediction == "noise":
            return (x_t - self.noise(t) * output) / self.signal(t)
        return self.signal(t) * x_t - self.noise(t) * output

    def to_noise(self, x_t: Tensor, x0: Tensor, t: Tensor | int) -> Tensor:
        """The noise that lies between `x_t` and `x0`; inverse of `add_noise`."""
        return (x_t - self.signal(t) * x0) / self.noise(t)

    def steps(self, count: int) -> list[int]:
        """`count` levels, evenly spaced and descending from T-1; after the last one comes the clean vector.

        The first is always T-1, as pure noise is what sampling starts from ("trailing" in Lin et al., 2024,
        arXiv 2305.08891).
        """
        if not isinstance(count, int) or not 1 <= count <= self.levels:
            raise ValueError(f"steps must be an integer from 1 to {self.levels} (the noise levels), not {count!r}")
        return [self.levels * (count - i) // count - 1 for i in range(count)]

    def step(
        self,
        x_t: Tensor,
        x0: Tensor,
        t: Tensor | int,
        t_next: int,
        eta: float = 0.0,
        generator: torch.Generator | None = None,
        noise: Tensor | None = None,
    ) -> Tensor:
        """From level `t` to the cleaner level `t_next`: Song et al., 2021 (arXiv 2010.02502), eq. 12 and 16.

        Args:
            x_t: [n, d], the noisy vector at level `t`.
            x0: [n, d], the present estimate of the clean vector.
            t_next: the next level; None or -1 for the clean vector, which is `x0`.
            eta: 0 is DDIM (no fresh noise), 1 is DDPM's ancestral sampling.
            generator: source of the fresh noise.
            noise: the fresh noise itself, broadcast over the rows, in place of a generator.

        Returns:
            [n, d], the vector at level `t_next`.
        """
        if not 0 <= eta <= 1:
            raise ValueError(f"eta must lie between 0 (DDIM) and 1 (DDPM), not {eta!r}")
        if t_next is None or (isinstance(t_next, int) and t_next < 0):
            return x0
        now, then = self.alpha_bar[t].unsqueeze(-1), self.alpha_bar[t_next].unsqueeze(-1)
        variance = eta**2 * (1 - then) / (1 - now) * (1 - now / then).clamp(min=0)
        x_next = then.sqrt() * x0 + (1 - then - variance).clamp(min=0).sqrt() * self.to_noise(x_t, x0, t)
        if eta == 0:
            return x_next
        return x_next + variance.sqrt() * (gaussian(x_t.shape, x_t, generator) if noise is None else noise)

    def spread(self, std: float, steps: int, eta: float = 0.0) -> float:
        """Standard deviation of the draws of a perfect denoiser where that of the truth is `std`.

        For a Gaussian the perfect estimate is linear, and so is every step. The last one answers with a mean: what is
        finer than the noise of its level is lost, so few steps draw too narrowly whatever the network.

        Returns:
            float.
        """
        levels, signal = self.steps(steps), self.alpha_bar.tolist()
        variance = 1.0  # of pure noise
        for t, t_next in zip(levels, [*levels[1:], None]):
            now = signal[t]
            gain = math.sqrt(now) * std**2 / (now * std**2 + 1 - now)  # from x_t to the mean of x0
            if t_next is None:
                return gain * math.sqrt(variance)
            then = signal[t_next]
            fresh = eta**2 * (1 - then) / (1 - now) * max(1 - now / then, 0)  # as in `step`
            direction = math.sqrt(max(1 - then - fresh, 0) / (1 - now))
            variance *= (math.sqrt(then) * gain + direction * (1 - math.sqrt(now) * gain)) ** 2
            variance += fresh
        raise AssertionError("the last step returns")


def gaussian(shape: Sequence[int], like: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Standard normal numbers of `like`'s type and device, drawn where the generator lives."""
    device = like.device if generator is None else generator.device
    return torch.randn(shape, generator=generator, device=device, dtype=like.dtype).to(like.device)


def _alpha_bar(kind, levels):
    """[T] in float64: the product runs over many factors near one."""
    if kind == "cosine":
        u = torch.arange(levels + 1, dtype=torch.float64) / levels  # [T + 1]
        signal = torch.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2
        return signal[1:] / signal[0]  # [T]
    if kind == "linear":
        # 1e-4 and 0.02 belong to 1000 levels; fewer levels need larger steps, but none beyond certainty
        ends = torch.tensor([1e-4, 0.02], dtype=torch.float64) * 1000 / levels
        beta = torch.linspace(*ends.tolist(), levels, dtype=torch.float64).clamp(max=0.999)
    else:
        x = torch.linspace(1, 2 * levels + 1, levels, dtype=torch.float64)  # [T]
        beta = 1 - torch.exp(-0.1 / levels - x * 0.5 * 9.9 / levels**2)
    return (1 - beta).cumprod(0)  # [T]


def check_prediction(prediction: str) -> None:
    if prediction not in PREDICTIONS:
        raise ValueError(f"prediction must be one of {', '.join(PREDICTIONS)}, not {prediction!r}")
