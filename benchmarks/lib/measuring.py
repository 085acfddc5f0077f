"""
benchmarks.lib.measuring
########################
What every measurement needs: the clock around training batches, the memory of a process, a process of its own.
"""

import math
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from time import perf_counter
from typing import Any, NamedTuple

from benchmarks.lib.checkout import take_properties
from recbole_contrec.environment import peak_memory
from recbole_contrec.errors import UserError
from recbole_contrec.interface import TrainsOnWindows

MIB = 2**20


class TrainingTime(NamedTuple):
    """A stretch of training.

    Attributes:
        batches: training steps that were timed.
        targets: items predicted in them; a row of RecBole's own loaders is one target.
        seconds: loading, forward and backward pass and optimizer together.
    """

    batches: int
    targets: int
    seconds: float

    @property
    def targets_a_second(self) -> float:
        return self.targets / self.seconds


class TimedBatches:
    """A training loader cut short: one batch to warm up, then batches under the clock.

    A trainer asks for a batch when it is done with the one before, so the clock sees whole training steps without
    knowing what a step consists of.

    Args:
        loader: a training loader; whatever else the trainer asks of it goes through.
        count_targets: from a batch to its number of targets.
        batches, seconds: the clock runs at least this long, in steps and in time, or to the end of the epoch.
        clock: in seconds; None for the one on the wall.
    """

    def __init__(
        self,
        loader,
        count_targets: Callable[[Any], int],
        batches: int,
        seconds: float,
        clock: Callable[[], float] | None = None,
    ):
        self._loader, self._count_targets = loader, count_targets
        self._batches, self._seconds, self._clock = batches, seconds, clock or perf_counter
        self.time = TrainingTime(0, 0, 0.0)

    def __getattr__(self, name):
        return getattr(self._loader, name)

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[Any]:
        batches = iter(self._loader)
        yield next(batches)
        start = self._clock()
        for batch in batches:
            yield batch
            self.time = TrainingTime(
                self.time.batches + 1, self.time.targets + self._count_targets(batch), self._clock() - start
            )
            if self.time.batches >= self._batches and self.time.seconds >= self._seconds:
                return


def count_targets_of(model) -> Callable[[Any], int]:
    """From a training batch of a model to its number of targets: of RecBole's own models every row is one."""
    return model.windows.count_targets if isinstance(model, TrainsOnWindows) else len


def time_training(
    trainer, loader, batches: int, seconds: float, epoch: int = 0, clock: Callable[[], float] | None = None
) -> TrainingTime:
    """Train for some batches with the training step of a trainer; see :class:`TimedBatches`.

    Raises:
        UserError: an epoch of one batch, which leaves nothing to time.
    """
    timed = TimedBatches(loader, count_targets_of(trainer.model), batches, seconds, clock)
    trainer.train_epoch(timed, epoch)
    if not timed.time.batches:
        raise UserError(
            f"{trainer.config['model']} has one batch an epoch, which leaves nothing to time beside the "
            "warm-up: lower --train_batch_size"
        )
    return timed.time


def seconds_of(function: Callable[[], Any]) -> float:
    """How long a call takes."""
    start = perf_counter()
    function()
    return perf_counter() - start


def median_seconds(function: Callable[[], Any], rounds: int) -> float:
    """Median of some calls, after one to warm up."""
    function()
    return median(seconds_of(function) for _ in range(rounds))


def growth_exponents(sizes: Sequence[float], values: Sequence[float]) -> list[float | None]:
    """Slopes between neighbours on logarithmic axes: 1 is linear growth, 0 none; None where a value is not positive."""
    points = list(zip(sizes, values))
    return [
        math.log(high / low) / math.log(large / small) if low > 0 and high > 0 else None
        for (small, low), (large, high) in zip(points, points[1:])
    ]


@contextmanager
def temporary_workplace() -> Iterator[Path]:
    """An empty working directory, for the logs and stages that training writes there."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        take_properties(Path(folder))
        os.chdir(folder)
        try:
            yield Path(folder)
        finally:
            os.chdir(before)


def isolated(function: Callable[..., dict], *arguments, threads: int) -> dict[str, Any]:
    """Call a function in a new process, so that its peak memory is its own.

    Args:
        function: at the top of a module; gives JSON-like results.

    Returns:
        dict: the results, with ``start_mib`` (resident before the call: interpreter and libraries) and ``peak_mib``.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(in_workplace, function, arguments, threads).result()


def in_workplace(function: Callable[..., dict], arguments: Sequence, threads: int) -> dict[str, Any]:
    """What :func:`isolated` does in the new process."""
    import torch

    torch.set_num_threads(threads)
    start = peak_memory() / MIB
    with temporary_workplace():
        result = function(*arguments)
    return {**result, "start_mib": round(start, 1), "peak_mib": round(peak_memory() / MIB, 1)}
