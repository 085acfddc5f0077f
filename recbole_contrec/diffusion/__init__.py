"""Continuous next-token diffusion: a head that turns a state into vectors of the item space.

`DiffusionHead` owns everything about noise; nothing outside this package knows a noise level.
It needs torch alone, so it can be used from any PyTorch project.
Axes: `n` flat positions, `d` width of an item vector, `D` width of a condition, `T` noise levels,
`M` samples.
"""

from .denoiser import Denoised, Denoiser
from .head import OBJECTIVES, ContrastiveLoss, DiffusionHead, HeadLoss
from .losses import CONTRASTS, DISPERSIVE_KINDS, Contrast, dispersive_loss
from .schedule import PREDICTIONS, SCHEDULES, NoiseSchedule

__all__ = [
    "CONTRASTS",
    "DISPERSIVE_KINDS",
    "OBJECTIVES",
    "PREDICTIONS",
    "SCHEDULES",
    "Contrast",
    "ContrastiveLoss",
    "Denoised",
    "Denoiser",
    "DiffusionHead",
    "HeadLoss",
    "NoiseSchedule",
    "dispersive_loss",
]
