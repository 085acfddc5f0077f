"""What the head minimises beside the regression: the dispersive loss, the repulsive half of a contrastive loss, which
needs no positive pairs, and the contrast with negatives."""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

DISPERSIVE_KINDS = ("infonce_l2", "infonce_cosine", "hinge", "covariance")

CONTRASTS = ("bpr", "hinge")

HINGE_MARGIN = 1.0  # mean squared difference a coordinate from which two rows count as apart


def dispersive_loss(
    z: Tensor, kind: str, temperature: float = 0.5, limit: int = 512, generator: torch.Generator | None = None
) -> Tensor:
    r"""How close together the rows of `z` lie; minimise it to spread them.

    Wang & He, 2025, "Diffuse and Disperse" (arXiv 2506.09027), table 1. Means run over all pairs, a row with itself
    included, as in the paper's code. The sign is positive: the code released with ContRec negates it, and
    so pulls rows together.

    - ``infonce_l2``: :math:`\log \mathbb{E}_{ij} \exp(-\|z_i - z_j\|^2 / (w\tau))`
    - ``infonce_cosine``: :math:`\log \mathbb{E}_{ij} \exp(\cos(z_i, z_j) / \tau)`
    - ``hinge``: :math:`\mathbb{E}_{ij} \max(0, 1 - \|z_i - z_j\|^2 / w)^2`
    - ``covariance``: :math:`\frac{1}{w} \sum_{a \ne b} C_{ab}^2` of the correlation matrix :math:`C` of the columns
      (divided by w, as VICReg does, so that one weight fits all widths)

    Args:
        z: [n, w], internal representations.
        kind: one of ``DISPERSIVE_KINDS``.
        temperature: of the two InfoNCE kinds.
        limit: of more rows than this a random subset is used, so that the cost of all pairs stays bounded.
        generator: source of that subset.

    Returns:
        A scalar; zero for fewer than two rows, as there is nothing to spread.

    Raises:
        ValueError: unknown kind.
    """
    if kind not in DISPERSIVE_KINDS:
        raise ValueError(f"dispersive must be one of {', '.join(DISPERSIVE_KINDS)}, not {kind!r}")
    if len(z) > limit:
        device = z.device if generator is None else generator.device
        z = z[torch.randperm(len(z), generator=generator, device=device)[:limit].to(z.device)]  # [limit, w]
    if len(z) < 2:
        return z.sum() * 0  # a constant would have no gradient to hand back
    if kind == "infonce_l2":
        return _log_mean_exp(-_squared_distances(z) / temperature)
    if kind == "infonce_cosine":
        z = F.normalize(z, dim=-1)
        return _log_mean_exp(z @ z.T / temperature)
    if kind == "hinge":
        return (HINGE_MARGIN - _squared_distances(z)).clamp(min=0).square().mean()
    return _covariance(z)


def _squared_distances(z):
    """[n, n], divided by the width so that temperatures and margins do not depend on it."""
    z = z - z.mean(0)  # the products below lose digits far from the origin
    length = z.square().sum(-1)  # [n]
    # one matrix product; unlike cdist, smooth where two rows coincide
    squared = length[:, None] + length[None, :] - 2 * z @ z.T  # [n, n]
    return squared.clamp(min=0) / z.shape[1]


def _log_mean_exp(x):
    return torch.logsumexp(x.flatten(), dim=0) - math.log(x.numel())


def _covariance(z):
    z = z - z.mean(0)
    z = z / (z.square().mean(0) + 1e-6).sqrt()  # unit variance, or shrinking `z` would be a solution
    correlation = z.T @ z / len(z)  # [w, w]
    off_diagonal = correlation - torch.diag(correlation.diagonal())
    return off_diagonal.square().sum() / z.shape[1]


@dataclass(frozen=True)
class Contrast:
    r"""How far the errors of negatives :math:`e^-` shall lie above the error of the target :math:`e^+`.

    DeftRec (Qu et al., 2025, arXiv 2504.12007v1) pulls the noise predicted for the target to the true noise and
    pushes that of a negative away from it; PreferDiff (Liu et al., ICLR 2025) does so with the clean vectors.

    - ``bpr``: :math:`\mathbb{E}[-\log \sigma(\gamma (e^- - e^+))]`, both papers
    - ``hinge``: :math:`\mathbb{E}[\max(0, m - (e^- - e^+))]`

    A pair is one draw of noise for one target and one negative. The code released with DeftRec takes the sigmoid
    once, of the mean errors of a batch: there, targets that lose to their negatives hide behind the others.

    Args:
        kind: one of ``CONTRASTS``.
        scale: :math:`\gamma` of ``bpr``.
        margin: m of ``hinge``, in mean squared errors a coordinate.
        same_noise: target and negatives get one draw of noise, as in DeftRec, or each its own, as in PreferDiff.

    Raises:
        ValueError: unknown kind, or a scale or margin that is not positive.
    """

    kind: str = "bpr"
    scale: float = 1.0
    margin: float = 1.0
    same_noise: bool = True

    def __post_init__(self):
        if self.kind not in CONTRASTS:
            raise ValueError(f"contrast must be one of {', '.join(CONTRASTS)}, not {self.kind!r}")
        for name in ("scale", "margin"):
            if getattr(self, name) <= 0:
                raise ValueError(f"the {name} of a contrast must be positive, not {getattr(self, name)!r}")

    def __call__(self, positive, negative):
        """Errors of targets [...] and of R negatives of each [R, ...] -> scalar."""
        lead = negative - positive  # [R, ...]
        if self.kind == "bpr":
            return F.softplus(-self.scale * lead).mean()
        return (self.margin - lead).clamp(min=0).mean()
