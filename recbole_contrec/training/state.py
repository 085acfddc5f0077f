"""
recbole_contrec.training.state
##############################
What a killed run goes on from, as one object: read off a trainer, written to ``last.safetensors``, and back.
"""

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor

from recbole_contrec.storage.checkpoint import Checkpoint
from recbole_contrec.storage.progress import Progress


class Packed(NamedTuple):
    """The state of an optimizer or of random generators, as :mod:`recbole_contrec.storage.checkpoint` packs it."""

    tensors: dict[str, Tensor]
    record: dict[str, Any]


@dataclass(frozen=True)
class RunState:
    """Everything but the model that training goes on from after an epoch.

    Attributes:
        epoch: the last one that is done.
        progress: what the trainer counts.
        optimizers: by attribute of the trainer.
        random: generators of torch, numpy and Python.
        generators: states of the loaders' own generators, by loader.
        average: the averaged weights by name; empty where none are kept.
        average_steps: steps that the average has seen.
        loss_scale: state of the scaling of the loss; empty where it is not scaled.
    """

    epoch: int
    progress: Progress
    optimizers: dict[str, Packed]
    random: Packed
    generators: dict[str, Tensor]
    average: dict[str, Tensor]
    average_steps: int
    loss_scale: dict[str, Any]

    def to_storage(self) -> Checkpoint:
        """The tensors and the record that a checkpoint holds beside those of the model."""
        tensors = {
            **_prefixed("random", self.random.tensors),
            **_prefixed("generator", self.generators),
            **_prefixed("average", self.average),
        }
        for name, packed in self.optimizers.items():
            tensors.update(_prefixed(f"optimizer.{name}", packed.tensors))
        record = {
            **self.progress.to_record(),
            "optimizers": {name: packed.record for name, packed in self.optimizers.items()},
            "random": self.random.record,
            "average_steps": self.average_steps,
            "loss_scale": self.loss_scale,
        }
        return Checkpoint(tensors, record)

    @classmethod
    def from_storage(cls, stored: Checkpoint) -> "RunState":
        """Back from a checkpoint, whose record has been checked while it was read."""
        record = stored.record
        return cls(
            epoch=record["epoch"],
            progress=Progress.from_record(record),
            optimizers={
                name: Packed(stored.part(f"optimizer.{name}"), of_one) for name, of_one in record["optimizers"].items()
            },
            random=Packed(stored.part("random"), record["random"]),
            generators=stored.part("generator"),
            average=stored.part("average"),
            average_steps=record["average_steps"],
            loss_scale=record.get("loss_scale", {}),
        )


class HasProgress:
    """Mixin over a RecBole trainer: the counters that RecBole's loops read and write are those of one
    :class:`~recbole_contrec.storage.progress.Progress`."""

    valid_metric_bigger: bool

    def __init__(self, config: Any, model: Any):
        self.progress = Progress()
        super().__init__(config, model)  # type: ignore[call-arg]  # of the trainer below

    @property
    def cur_step(self) -> int:
        """Validations in a row without an improvement."""
        return self.progress.cur_step

    @cur_step.setter
    def cur_step(self, steps: int) -> None:
        self.progress.cur_step = steps

    @property
    def best_valid_score(self) -> float:
        """Infinitely bad before the first validation."""
        if self.progress.best_valid_score is None:
            return -math.inf if self.valid_metric_bigger else math.inf
        return self.progress.best_valid_score

    @best_valid_score.setter
    def best_valid_score(self, score: float) -> None:
        self.progress.best_valid_score = float(score) if math.isfinite(score) else None

    @property
    def best_valid_result(self) -> dict[str, float] | None:
        """The metrics of the best epoch."""
        return self.progress.best_valid_result

    @best_valid_result.setter
    def best_valid_result(self, result: dict[str, float] | None) -> None:
        self.progress.best_valid_result = result

    @property
    def train_loss_dict(self) -> dict[int, float | list[float]]:
        """The loss of every epoch."""
        return self.progress.train_loss

    @train_loss_dict.setter
    def train_loss_dict(self, losses: dict[int, float | list[float]]) -> None:
        self.progress.train_loss = losses


def _prefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}
