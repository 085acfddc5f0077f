"""
recbole_contrec.training.averaging
##################################
A moving average of the weights: what is validated, tested and kept. Single epochs of a small data set jump up and
down; their average does not, and ranks no worse.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class WeightAverage:
    """Exponential moving average over the trainable parameters of a model.

    Args:
        model: its parameters are averaged where they require a gradient.
        decay: share of the old average that stays at a step; the first steps keep less, so that the
            random start is forgotten.
    """

    def __init__(self, model: nn.Module, decay: float):
        self.decay, self.steps = decay, 0
        self.parameters: dict[str, Tensor] = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self.average = {name: p.detach().clone() for name, p in self.parameters.items()}

    @torch.no_grad()
    def restart(self) -> None:
        """Begin at the parameters as they are now, e.g. after stages have set some of them."""
        self.steps = 0
        self.copy(self.parameters, self.average)

    @torch.no_grad()
    def update(self) -> None:
        """Take one step of training into the average."""
        self.steps += 1
        decay = min(self.decay, self.steps / (10 + self.steps))
        get_ema_multi_avg_fn(decay)(list(self.average.values()), [p.data for p in self.parameters.values()], None)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The model computes with the average inside this block, with its own weights again behind it."""
        own = {name: p.detach().clone() for name, p in self.parameters.items()}
        self.copy(self.average, self.parameters)
        try:
            yield
        finally:
            self.copy(own, self.parameters)

    def keep(self) -> None:
        """Leave the average in the model: training is over."""
        self.copy(self.average, self.parameters)

    def check(self, source: dict[str, Tensor]) -> None:
        """Whether :meth:`copy` could take these for the average.

        Raises:
            ValueError: names, sizes or kinds differ, or there are numbers that are not finite.
        """
        for name, tensor in self.average.items():
            theirs = source.get(name)
            if (
                theirs is None
                or theirs.shape != tensor.shape
                or theirs.dtype != tensor.dtype
                or not theirs.isfinite().all()
            ):
                raise ValueError(f"the average of {name} is missing, of another size, or not finite")

    @torch.no_grad()
    def copy(self, source: dict[str, Tensor], target: dict[str, Tensor]) -> None:
        """Write tensors into tensors of the same names."""
        for name, tensor in target.items():
            tensor.copy_(source[name])
