"""
recbole_contrec.storage.progress
################################
How far the training of a run has come: the one list of what a trainer counts, saves and goes on from.
"""

from dataclasses import asdict, dataclass, field, fields
from typing import Any, NamedTuple

from recbole_contrec.storage.json_types import LATER, Count, Epoch, built


class CurvePoint(NamedTuple):
    """A validation and what was spent on training and validating until then."""

    epoch: Epoch
    seconds: float  # by the clock
    core_seconds: float  # of processor time, over all threads: not disturbed by what else the machine computes
    score: float


@dataclass(frozen=True)
class FinishedStage:
    """How a stage before training went, and the settings that its result depends on."""

    seconds: float
    found_on_disk: bool
    report: dict[str, Any]
    settings: dict[str, Any] = field(default_factory=dict, metadata=LATER)


@dataclass
class Progress:
    """What a trainer counts, with the values before the first epoch.

    A field that is added here is saved, checked and restored; give it ``metadata=LATER``, so that files of earlier
    versions go on being read.

    Attributes:
        cur_step: validations in a row without an improvement.
        best_valid_score: None before the first validation.
        best_valid_result: the metrics of the same epoch.
        best_epoch: -1 for none.
        epoch_seconds: of training alone, an epoch each.
        training_seconds: with validations and checkpoints.
        core_seconds: the same in processor time.
        curve: a point for every validation.
        train_loss: by epoch.
        stages: finished before training, by name.
        refinements: of identifiers, a record each, where a model improves them.
    """

    cur_step: Count = 0
    best_valid_score: float | None = None
    best_valid_result: dict[str, float] | None = None
    best_epoch: Epoch = -1
    epoch_seconds: list[float] = field(default_factory=list)
    training_seconds: float = 0.0
    core_seconds: float = 0.0
    curve: list[CurvePoint] = field(default_factory=list)
    train_loss: dict[int, float | list[float]] = field(default_factory=dict)
    stages: dict[str, FinishedStage] = field(default_factory=dict)
    refinements: list[dict[str, Any]] = field(default_factory=list, metadata=LATER)

    def to_record(self) -> dict[str, Any]:
        """A copy, JSON-like."""
        return asdict(self)

    @classmethod
    def from_record(cls, record: dict[str, Any]) -> "Progress":
        """Back from JSON.

        Args:
            record: checked against this type; keys that are none of its fields are passed over.
        """
        names = {field.name for field in fields(cls)}
        return built({key: value for key, value in record.items() if key in names}, cls)
