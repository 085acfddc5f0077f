"""
recbole_contrec.training.averaging
##################################
A moving average of the weights: what is validated, tested and kept. Single epochs of a small data set jump up and
down; their average does not, and ranks no worse.
"""

import math
from collections.abc import Iterable, Iterator
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
        tables: of these parameters a step changes some rows alone, which :meth:`before` names. Their average is the
            same, but a row is brought up to date when it changes or is asked for: a step costs what it touches.
    """

    def __init__(self, model: nn.Module, decay: float, tables: Iterable[Tensor] = ()):
        self.decay, self.steps = decay, 0
        self.parameters: dict[str, Tensor] = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._average = {name: p.detach().clone() for name, p in self.parameters.items()}
        lazy = {id(table) for table in tables}
        self._lazy = {
            id(p): _LazyAverage(p, self._average[name]) for name, p in self.parameters.items() if id(p) in lazy
        }
        self._dense = [name for name, p in self.parameters.items() if id(p) not in lazy]

    @property
    def average(self) -> dict[str, Tensor]:
        """The averaged parameters by name."""
        for lazy in self._lazy.values():
            lazy.catch_up()
        return self._average

    def before(self, table: Tensor, rows: Tensor) -> None:
        """Some rows [m] of one of the tables are about to change."""
        self._lazy[id(table)].before(rows)

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
        averages = [self._average[name] for name in self._dense]
        get_ema_multi_avg_fn(decay)(averages, [self.parameters[name].data for name in self._dense], None)
        for lazy in self._lazy.values():
            lazy.update(decay)

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


class _LazyAverage:
    """The moving average of a table of which a step changes some rows alone.

    A row w that stays as it is for steps of decay d1, d2, ... draws its average a towards itself: behind them, a is
    w + d1 d2 ... (a - w). So a row needs the decay since it was last brought up to date, and no work before.

    Args:
        table: [N, d].
        average: the same.
    """

    def __init__(self, table: Tensor, average: Tensor):
        self.table, self.average = table, average
        self.decayed = 0.0  # log of the decay up to now
        self.up_to = torch.zeros(len(table), dtype=torch.float64, device=table.device)  # [N], what of it a row has seen
        self.changing: Tensor | None = None

    @torch.no_grad()
    def before(self, rows: Tensor) -> None:
        table, average = self.table[rows], self.average[rows]  # [m, d]
        decay = (self.decayed - self.up_to[rows]).exp()[:, None].to(table.dtype)
        self.average[rows] = table + decay * (average - table)
        self.changing = rows

    @torch.no_grad()
    def update(self, decay: float) -> None:
        self.decayed += math.log(decay)
        if self.changing is not None:
            self.average[self.changing] = self.average[self.changing].lerp_(self.table[self.changing], 1 - decay)
            self.up_to[self.changing] = self.decayed
            self.changing = None

    @torch.no_grad()
    def catch_up(self) -> None:
        if not self.decayed:
            return
        decay = (self.decayed - self.up_to).exp_()[:, None].to(self.table.dtype)  # [N, 1]
        self.average.sub_(self.table).mul_(decay).add_(self.table)
        self.up_to.zero_()
        self.decayed = 0.0
