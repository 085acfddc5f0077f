"""The diffusion head: from a condition to the distribution of the next item vector."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .denoiser import Denoiser, Prepared
from .losses import DISPERSIVE_KINDS, Contrast, dispersive_loss
from .schedule import NoiseSchedule, check_prediction, gaussian

OBJECTIVES = ("denoising", "regression")

PATHS = 64  # different draws of noise where conditions do not share all of it
MAX_ROWS = 65_536  # samples x conditions denoised at once: bounds the memory of `sample`


class HeadLoss(NamedTuple):
    regression: Tensor  # scalar, mean squared error in the space of the prediction
    dispersive: Tensor  # scalar, not yet weighted; zero when switched off


class ContrastiveLoss(NamedTuple):
    regression: Tensor  # scalar, mean squared error of the targets
    contrast: Tensor  # scalar, not yet weighted
    dispersive: Tensor  # scalar, not yet weighted; zero when switched off


class Answer(NamedTuple):
    output: Tensor  # [..., n, d]      of the denoiser
    expected: Tensor  # broadcasts with it
    hidden: Tensor  # [..., n, width]


class DiffusionHead(nn.Module):
    """Owns everything about noise, as MAR's `DiffLoss` does (Li et al., 2024, arXiv 2406.11838, section 3.2).

    Three uses: `loss` fits the distribution of the target (`contrastive_loss` also tells it from negatives), `estimate`
    is what a ranking loss is applied to, and `sample` draws. The target is expected at about unit size a coordinate.

    Args:
        d: width of an item vector.
        condition_size: D, width of a condition.
        width: of the denoiser.
        depth: of the denoiser.
        dropout: of the denoiser.
        schedule: ``linear``, ``cosine`` or ``exp``.
        levels: T, number of noise levels.
        prediction: the space of the regression, ``x0``, ``noise`` or ``v``. With ``noise`` an error of x0 weighs
            abar_t / (1 - abar_t), next to nothing at pure noise: there only a ranking loss trains the head.
        noisy_skip: whether ``x0`` is the noisy vector plus a correction as large as its noise, with the error of x0
            weighted by 1 + SNR (Salimans & Ho, 2022, arXiv 2202.00512, section 4; EDM's skip and weight): the network
            then answers in the space of ``v``. Draws of several steps need it. Without, the network puts out x0 itself:
            all detail of a draw must pass through it, the unweighted error gives it no reason to learn that, and draws
            shrink to their mean. The other two predictions have such a path of their own. Part of the state: a head
            computes as it was trained.
        guidance: w of classifier-free guidance (Ho & Salimans, 2022, arXiv 2207.12598), written as in DreamRec:
            x0 = (1 + w) f(condition) - w f(none); 0 switches it off.
        condition_dropout: share of conditions replaced by the learned `none` during training; guidance needs it.
        noise_draws: levels and draws of noise a target is trained on in each step (MAR's `diffusion_batch_mul`).
        dispersive: a kind of dispersive loss (arXiv 2506.09027), or None.
        dispersive_temperature: of its InfoNCE kinds.
        objective: ``denoising``, or ``regression`` of the target on the condition alone: no noise, nothing to sample.
        contrast: what `contrastive_loss` does with negatives.

    Raises:
        ValueError: an argument out of its range, in one line that names the range.
    """

    def __init__(
        self,
        *,
        d: int,
        condition_size: int,
        width: int = 64,
        depth: int = 2,
        dropout: float = 0.0,
        schedule: str = "cosine",
        levels: int = 200,
        prediction: str = "x0",
        noisy_skip: bool = True,
        guidance: float = 0.0,
        condition_dropout: float = 0.1,
        noise_draws: int = 1,
        dispersive: str | None = None,
        dispersive_temperature: float = 0.5,
        objective: str = "denoising",
        contrast: Contrast = Contrast(),
    ):
        super().__init__()
        for name, size in dict(
            d=d, condition_size=condition_size, width=width, depth=depth, noise_draws=noise_draws
        ).items():
            _check(isinstance(size, int) and size >= 1, f"{name} must be an integer of at least 1, not {size!r}")
        for name, share in dict(dropout=dropout, condition_dropout=condition_dropout).items():
            _check(0 <= share < 1, f"{name} must lie in [0, 1), not {share!r}")
        check_prediction(prediction)
        _check(
            noisy_skip or prediction == "x0", f"noisy_skip can be left out of prediction x0 alone, not of {prediction}"
        )
        _check(
            dispersive is None or dispersive in DISPERSIVE_KINDS,
            f"dispersive must be None or one of {', '.join(DISPERSIVE_KINDS)}, not {dispersive!r}",
        )
        _check(dispersive_temperature > 0, f"dispersive_temperature must be positive, not {dispersive_temperature!r}")
        _check(objective in OBJECTIVES, f"objective must be one of {', '.join(OBJECTIVES)}, not {objective!r}")

        self.d, self.condition_size = d, condition_size
        self.objective, self.contrast = objective, contrast
        self.prediction, self.guidance = prediction, guidance
        # a regression has no noisy vector to hand on
        self.noisy_skip = bool(noisy_skip) and objective == "denoising"
        self.condition_dropout, self.noise_draws = condition_dropout, noise_draws
        self.dispersive, self.dispersive_temperature = dispersive, dispersive_temperature
        self.schedule = NoiseSchedule(schedule, levels)
        self.denoiser = Denoiser(d, condition_size, width, depth, dropout, levels)
        if objective == "regression":
            self.denoiser.input.requires_grad_(False)  # it reads zeros alone
        # absent when unused: a parameter that never gets a gradient stops distributed training
        none = nn.Parameter(torch.zeros(condition_size)) if condition_dropout else None
        self.register_parameter("none", none)
        self._check_guidance(guidance)

    @property
    def space(self) -> str:
        """The prediction that the network answers in."""
        return "v" if self.prediction == "x0" and self.noisy_skip else self.prediction

    def get_extra_state(self) -> Tensor:
        """PyTorch's hook: whether the weights were trained with the skip."""
        return torch.tensor(self.noisy_skip)

    def set_extra_state(self, state: Tensor) -> None:
        """PyTorch's hook."""
        self.noisy_skip = bool(state)

    def loss(self, condition: Tensor, target: Tensor) -> HeadLoss:
        """Regression at random noise levels, `noise_draws` of them for each target.

        The target is detached: trained through this term, item vectors would collapse to be easy to predict.

        Args:
            condition: [n, D].
            target: [n, d], clean vectors.

        Returns:
            HeadLoss: two scalars.
        """
        self._check_rows(condition, target)
        x0 = target.detach().expand(self.noise_draws, *target.shape)  # [draws, n, d]
        output, expected, hidden = self._answer(condition, x0)
        regression = F.mse_loss(output, expected)
        return HeadLoss(regression, self._spread(hidden, regression))

    def contrastive_loss(self, condition: Tensor, target: Tensor, negatives: Tensor) -> ContrastiveLoss:
        r"""The regression of `loss`, and the contrast of its errors with those of negatives, which pass through the
        head under the same condition and at the same noise level.

        With s what the head predicts (x0, noise or v) and its target, the errors of target and negatives are

        .. math:: e^\pm = \|s(x_0^\pm, \epsilon^\pm, t) - s_\theta(x_t^\pm, t, c)\|^2 / d

        and `Contrast` has their loss and its sources. Targets and negatives are detached, as in `loss`.

        Args:
            condition: [n, D].
            target: [n, d], clean vectors.
            negatives: [n, R, d], clean vectors, R of each target.

        Returns:
            ContrastiveLoss: three scalars.

        Raises:
            ValueError: shapes that do not fit.
        """
        self._check_rows(condition, target)
        right = negatives.dim() == 3 and negatives.shape[1] > 0 and negatives[:, 0].shape == target.shape
        _check(right, f"negatives must be [{len(target)}, R, {self.d}], not {list(negatives.shape)}")
        x0 = torch.cat([target[None], negatives.transpose(0, 1)]).detach()  # [1 + R, n, d]
        x0 = x0[:, None].expand(-1, self.noise_draws, -1, -1)  # [1 + R, draws, n, d]
        output, expected, hidden = self._answer(condition, x0, self.contrast.same_noise)
        error = (output - expected).square().mean(-1)  # [1 + R, draws, n]
        regression = error[0].mean()
        return ContrastiveLoss(regression, self.contrast(error[0], error[1:]), self._spread(hidden[0], regression))

    def estimate(self, condition: Tensor) -> Tensor:
        """The clean vector seen from pure noise, [n, D] -> [n, d], with gradient: the place for a ranking loss.

        At lower levels the target shines through its noisy copy, and a ranking loss teaches nothing. Noise is fresh
        in train mode; in eval mode, and always in plain regression, it is zero, and the result that of `sample` with
        one step, one sample and no guidance.
        """
        self._check_condition(condition)
        x_t = self._clean_like(condition)  # [n, d]
        if self.training and self.objective == "denoising":
            x_t = torch.randn_like(x_t)
        return self._predict_x0(x_t, self._level(self.schedule.levels - 1), condition)

    def _answer(self, condition, x0, same_noise=False):
        """What the denoiser answers to noisy copies of clean vectors [..., draws, n, d], and what it should.

        Levels and conditions are shared along the axes in front of the draws; so is the noise, where asked for.
        """
        if self.objective == "regression":
            x_t, t = self._clean_like(condition), self._level(self.schedule.levels - 1)
            output, hidden = self._denoise(x_t, t, self._drop_condition(condition))  # [n, d], [n, width]
            output = self.schedule.to_x0(x_t, output, t, self.space)
            return Answer(output.expand_as(x0), x0, hidden.expand(*x0.shape[:-1], -1))
        t = torch.randint(self.schedule.levels, x0.shape[-3:-1], device=x0.device)  # [draws, n]
        eps = torch.randn_like(x0[0] if same_noise else x0)
        x_t = self.schedule.add_noise(x0, eps, t)  # [..., draws, n, d]
        output, hidden = self._denoise(x_t, t, self._drop_condition(condition))
        return Answer(output, self.schedule.target(x0, eps, t, self.space), hidden)

    def _spread(self, hidden, like):
        """The dispersive loss of hidden layers [draws, n, width]."""
        if self.dispersive is None:
            return like.new_zeros(())
        # one draw only: copies of one condition have no reason to lie apart
        return dispersive_loss(hidden[0], self.dispersive, self.dispersive_temperature)

    @torch.no_grad()
    def sample(
        self,
        condition: Tensor,
        steps: int,
        samples: int,
        guidance: float | None = None,
        eta: float = 0.0,
        generator: torch.Generator | None = None,
        common_noise: bool = False,
        paths: Tensor | None = None,
    ) -> Tensor:
        """Vectors drawn from the distribution that a condition stands for.

        One step sees nothing but noise, so it can answer only with the mean of that distribution, and its draws
        differ hardly. For one step and one sample the noise is therefore set to zero, its own mean: the answer is
        deterministic. One draw of *several* steps is a guess, good for diversity and poor for ranking: rank
        by several samples or the one-step mean.

        Args:
            condition: [n, D].
            steps: denoising steps, 1 to T.
            samples: M, draws for each condition.
            guidance: w in place of the head's own.
            eta: 0 for DDIM, 1 for DDPM.
            generator: source of all noise.
            common_noise: the same M draws for every condition, so that the answer to one does not depend on which
                others are asked beside it.
            paths: numbers [n] with ``common_noise``: conditions of the same number, modulo ``PATHS``, share their
                draws, and others have draws of their own.

        Returns:
            [M, n, d].
        """
        self._check_condition(condition)
        right = isinstance(samples, int) and samples >= 1
        _check(right, f"samples must be an integer of at least 1, not {samples!r}")
        guidance = self.guidance if guidance is None else guidance
        self._check_guidance(guidance)
        levels = self.schedule.steps(steps)
        like = self.schedule.alpha_bar
        number = 1 if paths is None else PATHS
        common = [gaussian((samples, number, self.d), like, generator) for _ in levels] if common_noise else None
        size = max(1, MAX_ROWS // samples)
        of_chunks = [None] * max(1, len(condition)) if paths is None else (paths % PATHS).split(size)
        drawn = [
            self._sample_chunk(chunk, levels, samples, guidance, eta, generator, common, rows)
            for chunk, rows in zip(condition.split(size), of_chunks)
        ]
        return torch.cat(drawn, dim=1)  # [M, n, d]

    def _sample_chunk(self, condition, levels, samples, guidance, eta, generator, common, rows):
        def shared(number):  # [M, 1, d], or [M, n, d]
            return common[number] if rows is None else common[number][:, rows]

        x = self._clean_like(condition).expand(samples, -1, -1)  # [M, n, d]
        given = self.denoiser.prepare(condition)
        none = self.denoiser.prepare(self._none_like(condition[:1])) if guidance else None  # one row for all
        if len(levels) > 1 or samples > 1:
            x = gaussian(x.shape, x, generator) if common is None else shared(0).expand_as(x)
        for number, (t, t_next) in enumerate(zip(levels, [*levels[1:], None]), 1):
            x0 = self._guided_x0(x, self._level(t), given, none, guidance)  # [M, n, d]
            noise = None if common is None or t_next is None else shared(number)  # [M, 1 or n, d]
            x = self.schedule.step(x, x0, t, t_next, eta, generator, noise)  # [M, n, d]
        return x

    def _guided_x0(self, x_t, t, given, none, guidance):
        x0 = self._predict_x0(x_t, t, given)  # [M, n, d]
        return x0 if none is None else (1 + guidance) * x0 - guidance * self._predict_x0(x_t, t, none)

    def _predict_x0(self, x_t, t, condition):
        output = self._denoise(x_t, t, condition).output
        return self.schedule.to_x0(x_t, output, t, self.space)

    def _denoise(self, x_t, t, condition):
        """The denoiser's answer in the space of the prediction, for a condition or one that is prepared."""
        signal = self.schedule.signal(t)
        prepared = condition if isinstance(condition, Prepared) else self.denoiser.prepare(condition)
        denoised = self.denoiser.denoise(x_t, t, signal, prepared)
        output = denoised.output.to(x_t.dtype)  # under autocast the noise algebra stays in full precision
        if self.prediction == "noise":
            # Near pure noise the noise is nearly all of x_t, which the denoiser sees scaled to nothing. So it is
            # given past it, as EDM's skip: eps = sqrt(1-abar) x_t + sqrt(abar) v leaves v to the
            # network, and x0 = sqrt(abar) x_t - sqrt(1-abar) v no longer magnifies its errors.
            output = self.schedule.noise(t) * x_t + signal * output
        return denoised._replace(output=output)

    def _drop_condition(self, condition):
        if not self.training or not self.condition_dropout:
            return condition
        dropped = torch.rand(len(condition), 1, device=condition.device) < self.condition_dropout  # [n, 1]
        return torch.where(dropped, self._none_like(condition), condition)

    def _none_like(self, condition):
        return self.none.to(condition.dtype).expand_as(condition)

    def _clean_like(self, condition):
        return self.schedule.alpha_bar.new_zeros(condition.shape[0], self.d)  # [n, d]

    def _level(self, t):
        """One level for all rows, [1]."""
        return torch.full((1,), t, device=self.schedule.alpha_bar.device)

    def _check_guidance(self, guidance):
        _check(guidance >= 0, f"guidance must be 0 (off) or positive, not {guidance!r}")
        _check(guidance == 0 or self.none is not None, "guidance needs a head trained with condition_dropout > 0")

    def _check_rows(self, condition, target):
        self._check_condition(condition)
        n = len(condition)
        _check(n > 0, "the loss needs at least one row")
        _check(target.shape == (n, self.d), f"target must be [{n}, {self.d}], not {list(target.shape)}")

    def _check_condition(self, condition):
        right = condition.dim() == 2 and condition.shape[1] == self.condition_size
        _check(right, f"condition must be [n, {self.condition_size}], not {list(condition.shape)}")


def _check(right, message):
    if not right:
        raise ValueError(message)
