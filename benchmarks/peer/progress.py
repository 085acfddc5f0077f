"""
benchmarks.peer.progress
########################
The epochs of a peer: which one validated best, when it is time to stop, and a state to go on from.
"""

from pathlib import Path
from time import perf_counter, process_time
from typing import Any

import torch
from torch import Tensor

from benchmarks.peer.exchange import STATE

Weights = dict[str, Tensor]


class Progress:
    """What is known after some epochs.

    Args:
        folder: where the state is written, and found again.
        epochs: at most.
        patience: epochs without a better score after which it is over, as RecBole counts them.

    Attributes:
        curve: an epoch each: ``epoch``, ``seconds`` and ``core_seconds`` since the start, validation included, and
            ``score``.
        epoch_seconds: of every epoch, without its validation.
        best_epoch: -1 before the first.
        best: its weights.
        resumed: the state of an earlier process: ``weights`` and ``optimizer`` of its last epoch; None without one.
    """

    def __init__(self, folder: Path, epochs: int, patience: int):
        self.folder, self.epochs, self.patience = folder, epochs, patience
        self.curve: list[dict[str, float]] = []
        self.epoch_seconds: list[float] = []
        self.best_epoch = -1
        self.best: Weights = {}
        self.resumed: dict[str, Any] | None = None
        self._before = (0.0, 0.0)  # seconds and core-seconds of earlier processes
        if (folder / STATE).is_file():
            self._read()
        self._begun = (perf_counter(), process_time())

    @property
    def epochs_left(self) -> int:
        """Epochs that may follow."""
        return 0 if self.patience_is_over else self.epochs - len(self.curve)

    @property
    def patience_is_over(self) -> bool:
        """Whether the last better score is too long ago."""
        return len(self.curve) - 1 - self.best_epoch > self.patience

    def add(self, score: float, epoch_seconds: float, weights: Weights, optimizer: dict[str, Any]) -> None:
        """An epoch is over and validated: keep it where it is the best one, write the state, and say so.

        Args:
            weights, optimizer: state dictionaries after the epoch.
        """
        epoch = len(self.curve)
        if self.best_epoch < 0 or score > self.curve[self.best_epoch]["score"]:
            self.best_epoch, self.best = epoch, {name: value.clone() for name, value in weights.items()}
        seconds, core_seconds = (
            round(before + now() - begun, 2)
            for before, now, begun in zip(self._before, (perf_counter, process_time), self._begun)
        )
        self.epoch_seconds.append(epoch_seconds)
        self.curve.append({"epoch": epoch, "seconds": seconds, "core_seconds": core_seconds, "score": score})
        self._write(weights, optimizer)
        print(f"epoch {epoch} evaluating [valid_score: {score:f}]", flush=True)

    def _write(self, weights: Weights, optimizer: dict[str, Any]) -> None:
        state = {
            "weights": weights,
            "optimizer": optimizer,
            "best": self.best,
            "best_epoch": self.best_epoch,
            "curve": self.curve,
            "epoch_seconds": self.epoch_seconds,
        }
        part = self.folder / f"{STATE}.part"
        torch.save(state, part)
        part.replace(self.folder / STATE)

    def _read(self) -> None:
        self.resumed = state = torch.load(self.folder / STATE, weights_only=True)
        self.curve, self.epoch_seconds = state["curve"], state["epoch_seconds"]
        self.best, self.best_epoch = state["best"], state["best_epoch"]
        self._before = self.curve[-1]["seconds"], self.curve[-1]["core_seconds"]
